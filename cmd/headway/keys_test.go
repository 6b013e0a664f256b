package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"headway/api"
)

// only is the one key that there is.
func (s *shell) only(args ...string) api.Key {
	s.Helper()
	out, _ := s.cli(exitOK, append([]string{"keys", "list", "-o", "json"}, args...)...)
	var keys []api.Key
	if err := json.Unmarshal([]byte(out), &keys); err != nil || len(keys) != 1 {
		s.Fatalf("%v: %s", err, out)
	}
	return keys[0]
}

// named is the id of the key with a name.
func (s *shell) named(name string) string {
	s.Helper()
	out, _ := s.cli(exitOK, "keys", "list", "-o", "json", "--token-file", "admin.key")
	var keys []api.Key
	if err := json.Unmarshal([]byte(out), &keys); err != nil {
		s.Fatal(err)
	}
	for i := range keys {
		if keys[i].Name == name {
			return keys[i].ID
		}
	}
	s.Fatalf("no key %s in %s", name, out)
	return ""
}

// Without a key the service admits every client on loopback, so the last one is
// not revoked by a slip.
func TestTheLastKeyIsRevokedOnlyOnPurpose(t *testing.T) {
	dir := t.TempDir()
	p := serve(t, filepath.Join(dir, "data"))
	s := &shell{TB: t, dir: dir}
	s.cli(exitOK, "keys", "create", "--role", "admin", "--name", "me")
	id := s.only().ID
	out, errs := s.cli(exitUsage, "keys", "revoke", id)
	has(t, errs, "no key would be left", "loopback may do everything", "say --yes")
	if out != "" || s.only().RevokedAt != nil {
		t.Errorf("it was revoked: %s", out)
	}
	p.must(401, "GET", "/api/v1/keys", "")

	// With another one it needs no question.
	s.cli(exitOK, "keys", "create", "--role", "admin", "--name", "other")
	out, errs = s.cli(exitOK, "keys", "revoke", id)
	has(t, out, "key "+id+" is revoked")
	if errs != "" {
		t.Errorf("said %s", errs)
	}
	p.must(401, "GET", "/api/v1/keys", "")

	out, _ = s.cli(exitOK, "keys", "list", "-o", "json")
	var keys []api.Key
	if err := json.Unmarshal([]byte(out), &keys); err != nil || len(keys) != 2 {
		t.Fatalf("%v: %s", err, out)
	}
	last := keys[0].ID
	if last == id {
		last = keys[1].ID
	}
	// Also if the revoked one is named with it.
	s.cli(exitUsage, "keys", "revoke", id, last)
	out, errs = s.cli(exitOK, "keys", "revoke", "--yes", last)
	has(t, out, "key "+last+" is revoked")
	has(t, errs, "no key is left", "loopback may do everything")
	p.must(200, "GET", "/api/v1/keys", "")
	for line := range p.lines {
		if strings.Contains(line, "level=WARN") && strings.Contains(line, "the last key was revoked") {
			break
		}
	}
	p.stop()
}

func TestTheLastKeyIsAskedAboutOnATerminal(t *testing.T) {
	script := debian(t, "script", "bsdutils")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &shell{TB: t, dir: t.TempDir(), env: []string{"HEADWAY_DATA_DIR=data", "HEADWAY_AUDIT_FILE=audit.log"}}
	s.cli(exitOK, "keys", "create", "--role", "admin", "--name", "me")
	id := s.only().ID
	for _, c := range []struct {
		answer  string
		code    int
		revoked bool
	}{{"no\n", exitError, false}, {"\n", exitError, false}, {"y\n", exitOK, true}} {
		terminal := command(t, "-qec", self+" keys revoke "+id, "/dev/null")
		terminal.Path, terminal.Args[0] = script, script
		terminal.Dir, terminal.Env, terminal.Stdin = s.dir, append(terminal.Env, s.env...), strings.NewReader(c.answer)
		out, err := terminal.CombinedOutput()
		has(t, string(out), "no key would be left", "Do it? [y/N]")
		if code := exitCode(err); code != c.code || (s.only().RevokedAt != nil) != c.revoked {
			t.Errorf("answered %q: exit %d, revoked at %v: %s", c.answer, code, s.only().RevokedAt, out)
		}
	}
}

// Keys in files are worked on with the exit codes of a service that runs.
func TestKeysInFilesHaveTheExitCodesOfAService(t *testing.T) {
	dir := t.TempDir()
	s := &shell{TB: t, dir: dir, env: []string{"HEADWAY_DATA_DIR=data", "HEADWAY_AUDIT_FILE=audit.log"}}
	s.cli(exitRefused, "keys", "create", "--role", "viewer", "--name", "first")
	s.cli(exitOK, "keys", "create", "--role", "admin", "--name", "me")
	admin := s.only().ID
	both := func() {
		t.Helper()
		_, errs := s.cli(exitNotFound, "keys", "revoke", "nobody")
		has(t, errs, "revoke key nobody: ")
		_, errs = s.cli(exitConflict, "keys", "revoke", admin)
		has(t, errs, "the last key that may administer")
		s.cli(exitRefused, "keys", "create", "--role", "king", "--name", "x")
	}
	s.cli(exitOK, "keys", "create", "--role", "viewer", "--name", "chat")
	both()
	s.env = nil
	serve(t, filepath.Join(dir, "data"))
	both()
}

// A key that is revoked ends its stream in the service that runs, and the head is left.
func TestARevokedKeyEndsItsStreamInTheProcess(t *testing.T) {
	left := make(chan struct{})
	head := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, streamedChunk)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(left)
	}))
	t.Cleanup(head.Close)
	dir := t.TempDir()
	p := serve(t, filepath.Join(dir, "data"), "--lease-base-interval", "10m")
	p.must(http.StatusCreated, "POST", "/api/v1/heads", fmt.Sprintf(`{"id":"a","endpoint":%q,"model_types":["m"],"region":"eu","status":"active"}`, head.URL))
	s := &shell{TB: t, dir: dir}
	s.cli(exitOK, "keys", "create", "--role", "admin", "--name", "me", "--out", "admin.key")
	s.cli(exitOK, "keys", "create", "--role", "client", "--name", "app", "--out", "app.key", "--token-file", "admin.key")
	key, err := os.ReadFile(filepath.Join(dir, "app.key"))
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+"/v1/chat/completions", strings.NewReader(`{"model":"m","stream":true,"messages":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(key)))
	res, err := (&http.Client{Transport: p.client.Transport, Timeout: patience}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	in := bufio.NewReader(res.Body)
	if line, err := in.ReadString('\n'); res.StatusCode != http.StatusOK || !strings.HasPrefix(line, "data:") {
		t.Fatalf("%d %q %v", res.StatusCode, line, err)
	}
	s.cli(exitOK, "keys", "revoke", s.named("app"), "--token-file", "admin.key")
	rest, err := io.ReadAll(in)
	if !strings.Contains(string(rest), `"code":"key_revoked"`) || err == nil || strings.Contains(string(rest), "[DONE]") {
		t.Fatalf("the stream ended with %v:\n%s", err, rest)
	}
	<-left
	p.stop()
}
