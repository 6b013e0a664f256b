package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// oldVersion has what a service of commit daa1f9e left; its README says how it
// is made.
const oldVersion = "testdata/daa1f9e"

// oldData unpacks data.tar.gz and returns where.
func oldData(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	file, err := os.Open(filepath.Join(oldVersion, "data.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unpacked, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for archive := tar.NewReader(unpacked); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.FileInfo().IsDir() {
			err = root.MkdirAll(h.Name, 0o750)
		} else {
			var data []byte
			if data, err = io.ReadAll(archive); err == nil {
				err = root.WriteFile(h.Name, data, fs.FileMode(h.Mode).Perm())
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// oldService is the service of today in a directory of the old one.
type oldService struct {
	*process
	dir string
}

func serveOld(t *testing.T, dir string, args ...string) oldService {
	t.Helper()
	cmd := command(t, append([]string{"serve", "--config", "headway.yaml"}, args...)...)
	cmd.Dir = dir
	return oldService{start(t, filepath.Join(dir, "data"), cmd), dir}
}

// run runs a command in the directory and wants it to succeed.
func (s oldService) run(args ...string) {
	s.Helper()
	cmd := command(s, args...)
	cmd.Dir = s.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		s.Errorf("headway %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// ask sends a request with the key in a file, "" for none, and wants a status.
func (s oldService) ask(want int, key, method, path, body string) []byte {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if method == http.MethodPatch {
		req.Header.Set("If-Match", "*")
	}
	if key != "" {
		secret, err := os.ReadFile(filepath.Join(s.dir, key+".key"))
		if err != nil {
			s.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(secret)))
	}
	res, err := s.client.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != want {
		s.Errorf("%s %s with the key %q: %s, %v: %s; want %d", method, path, key, res.Status, err, answer, want)
	}
	return answer
}

// answersAsBefore compares what the service says of its state with what the old
// one said, in expected/ beside its directory.
func (s oldService) answersAsBefore(key string) {
	s.Helper()
	expected := filepath.Join(filepath.Dir(s.dir), "expected", filepath.Base(s.dir))
	for name, path := range map[string]string{
		"heads.json": "/api/v1/heads?limit=1000", "policy.json": "/api/v1/policy", "revisions.json": "/api/v1/policy/revisions?limit=100", "keys.json": "/api/v1/keys?limit=100",
	} {
		s.same(path, read(s, filepath.Join(expected, name)), s.ask(200, key, "GET", path, ""))
	}
	lines := bytes.Split(bytes.TrimSpace(read(s, filepath.Join(expected, "decisions.jsonl"))), []byte("\n"))
	for _, line := range lines {
		var d struct{ Request, Answer json.RawMessage }
		if err := json.Unmarshal(line, &d); err != nil {
			s.Fatal(err)
		}
		answer := s.ask(200, key, "POST", "/api/v1/decisions", string(d.Request))
		s.same("the decision "+string(d.Request), d.Answer, answer)
		var made struct {
			ID string `json:"decision_id"`
		}
		if err := json.Unmarshal(answer, &made); err != nil {
			s.Fatal(err)
		}
		s.ask(204, key, "POST", "/api/v1/decisions/"+made.ID+"/outcome", `{"result":"ok"}`)
	}
	if len(lines) < 3 {
		s.Errorf("%d decisions are compared", len(lines))
	}
}

func (s oldService) same(what string, before, now []byte) {
	s.Helper()
	var want, got any
	if err := errors.Join(json.Unmarshal(before, &want), json.Unmarshal(now, &got)); err != nil {
		s.Fatalf("%s: %v", what, err)
	}
	if err := within(want, got, ""); err != nil {
		s.Errorf("%s: %v", what, err)
	}
}

// changing are the members that differ from one run to the next, or are for
// people.
var changing = []string{
	"age_ms", "alternatives", "chosen", "cost", "decision_id", "expires_at", "formula", "last_used_at", "next_cursor", "reason", "signals", "snapshot_revision", "until",
}

// within reports where a value of before is not the same now. What is there
// besides is fine: answers may grow.
func within(before, now any, at string) error {
	switch b := before.(type) {
	case map[string]any:
		n, _ := now.(map[string]any)
		chosenByHash := b["strategy"] == "session_affinity"
		for name, value := range b {
			if slices.Contains(changing, name) || name == "head" && b["decision_id"] != nil && !chosenByHash {
				continue
			}
			if err := within(value, n[name], at+"/"+name); err != nil {
				return err
			}
		}
		return nil
	case []any:
		n, _ := now.([]any)
		if forgotten := func(v any) bool { m, _ := v.(map[string]any); return m["revoked_at"] != nil }; len(n) < len(b) {
			b = slices.DeleteFunc(slices.Clone(b), forgotten) // keys, 90 days later
		}
		if len(n) != len(b) {
			return fmt.Errorf("%s: %d elements, was %d", at, len(n), len(b))
		}
		byName := func(x, y any) int { return strings.Compare(nameOf(x), nameOf(y)) }
		b, n = slices.SortedStableFunc(slices.Values(b), byName), slices.SortedStableFunc(slices.Values(n), byName)
		for i := range b {
			if err := within(b[i], n[i], fmt.Sprintf("%s/%d", at, i)); err != nil {
				return err
			}
		}
		return nil
	}
	if before != now {
		return fmt.Errorf("%s: %v, was %v", at, now, before)
	}
	return nil
}

// nameOf is what a list of candidates, whose order is by cost, is sorted by.
func nameOf(v any) string {
	m, _ := v.(map[string]any)
	name, _ := m["head"].(string)
	return name
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// trailOf are the records of the trail's files, by id.
func trailOf(t testing.TB, pattern string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	records := map[string]string{}
	for _, file := range files {
		if strings.HasSuffix(file, ".checkpoint") {
			continue
		}
		for line := range bytes.Lines(read(t, file)) {
			var r struct{ ID, Hash string }
			if json.Unmarshal(line, &r) == nil && r.ID != "" {
				records[r.ID] = r.Hash
			}
		}
	}
	return records
}

// searched are the records that the service finds.
func (s oldService) searched(key string) map[string]string {
	s.Helper()
	records := map[string]string{}
	for cursor := ""; ; {
		var page struct {
			Data       []struct{ ID, Hash string }
			NextCursor string `json:"next_cursor"`
		}
		if err := json.Unmarshal(s.ask(200, key, "GET", "/api/v1/audit?limit=100&cursor="+cursor, ""), &page); err != nil {
			s.Fatal(err)
		}
		for _, r := range page.Data {
			records[r.ID] = r.Hash
		}
		if cursor = page.NextCursor; cursor == "" {
			return records
		}
	}
}

// trailGoesOn wants each record of before to be found, and new ones besides.
func (s oldService) trailGoesOn(before map[string]string, key string) {
	s.Helper()
	now := s.searched(key)
	for id, hash := range before {
		if now[id] != hash {
			s.Fatalf("record %s of the old trail has the hash %q, was %q", id, now[id], hash)
		}
	}
	if len(now) <= len(before) || len(before) < 100 {
		s.Errorf("%d records are found, there were %d", len(now), len(before))
	}
}

func TestTheStateOfAnOldVersionThatStopped(t *testing.T) {
	dir := filepath.Join(oldData(t), "stopped")
	trail := trailOf(t, filepath.Join(dir, "trail/audit.log*"))
	s := serveOld(t, dir)
	s.answersAsBefore("admin")

	// Old secrets open what they opened.
	for _, route := range []string{"/api/v1/heads", "/api/v1/policy"} {
		s.ask(200, "viewer", "GET", route, "")
		s.ask(200, "operator", "GET", route, "")
		s.ask(200, "reader", "GET", route, "")
		s.ask(403, "chat", "GET", route, "")
		s.ask(403, "rack", "GET", route, "")
		s.ask(401, "revoked", "GET", route, "")
		s.ask(401, "", "GET", route, "")
	}
	s.ask(403, "viewer", "PATCH", "/api/v1/heads/gpu-1", `{"weight":3}`)
	s.ask(200, "operator", "PATCH", "/api/v1/heads/gpu-1", `{"weight":3}`)
	s.ask(403, "operator", "PATCH", "/api/v1/policy", `{}`)
	s.ask(403, "reader", "PATCH", "/api/v1/policy", `{}`) // its scope, not its role
	s.ask(200, "chat", "POST", "/api/v1/decisions", `{"model_type":"default"}`)
	s.ask(401, "revoked", "POST", "/api/v1/decisions", `{"model_type":"default"}`)
	const registration = `{"id":%q,"endpoint":"http://10.0.0.9:1","model_type":"m","region":%q}`
	s.ask(201, "rack", "POST", "/api/v1/heads", fmt.Sprintf(registration, "gpu-9", "eu-west"))
	s.ask(201, "rack", "POST", "/api/v1/heads", fmt.Sprintf(registration, "spare", "eu-west"))
	s.ask(403, "rack", "POST", "/api/v1/heads", fmt.Sprintf(registration, "gpu-10", "us-east"))
	s.ask(403, "rack", "POST", "/api/v1/heads", fmt.Sprintf(registration, "cpu-1", "eu-west"))

	// The rest of the configuration is in force.
	eventually(t, patience, "the alert of the old rule file fires, and the queue is up", func() error {
		alerts, ready := s.ask(200, "admin", "GET", "/prometheus/api/v1/alerts", ""), s.ask(200, "", "GET", "/readyz", "")
		if !bytes.Contains(alerts, []byte(`"ThereAreHeads"`)) || bytes.Contains(ready, []byte(`"ok":false`)) {
			return fmt.Errorf("%s, %s", alerts, ready)
		}
		return nil
	})
	s.ask(200, "admin", "GET", "/api/v1/queue/dead-letters", "")

	// It writes on, and what it writes is there after the next start.
	s.ask(200, "admin", "PATCH", "/api/v1/policy", `{"aliases":{"new":"llama-3.1-8b"}}`)
	s.trailGoesOn(trail, "admin")
	s.stop()
	s.run("state", "check", "--data-dir", "data")
	s.run("audit", "verify", "--file", "trail/audit.log", "--public-key", "audit.pub")
	s = serveOld(t, dir)
	if policy := s.ask(200, "admin", "GET", "/api/v1/policy", ""); !bytes.Contains(policy, []byte(`"new":"llama-3.1-8b"`)) {
		t.Errorf("after a restart the policy is %s", policy)
	}
	s.ask(200, "viewer", "GET", "/api/v1/heads/gpu-9", "")
	s.stop()
}

func TestTheStateOfAnOldVersionThatWasKilled(t *testing.T) {
	dir := filepath.Join(oldData(t), "killed")
	trail := trailOf(t, filepath.Join(dir, "data/audit.log*"))
	s := serveOld(t, dir)
	s.answersAsBefore("")
	s.trailGoesOn(trail, "")
	s.stop()
	s.run("audit", "verify", "--file", "data/audit.log")
}

// A command that waited in the queue, as there was no room for its head, is
// carried out where there is.
func TestTheQueueOfAnOldVersion(t *testing.T) {
	s := serveOld(t, filepath.Join(oldData(t), "killed"), "--heads-max", "10")
	eventually(t, patience, "the head that waited is registered", func() error {
		status, answer, err := s.do("GET", "/api/v1/heads/late", "")
		if err == nil && status != 200 {
			err = fmt.Errorf("%d: %s", status, answer)
		}
		return err
	})
	s.stop()
}

func TestAnExportOfAnOldVersion(t *testing.T) {
	dir := oldData(t)
	old := oldService{&process{TB: t}, filepath.Join(dir, "stopped")}
	if err := os.Remove(filepath.Join(old.dir, "data/headway.db")); err != nil {
		t.Fatal(err)
	}
	old.run("state", "import", "--data-dir", "data", "../expected/stopped/state.jsonl")
	s := serveOld(t, old.dir)
	s.answersAsBefore("admin")
	s.stop()
}

// Each setting of the old version has the name, the form and the effect that it
// had; what is printed hides more than then.
func TestTheConfigurationOfAnOldVersion(t *testing.T) {
	var before, now map[string]any
	if err := yaml.Unmarshal(read(t, filepath.Join(oldData(t), "expected/everything.yaml")), &before); err != nil {
		t.Fatal(err)
	}
	printed, err := command(t, "config", "print", "--config", filepath.Join(oldVersion, "setup/everything.yaml")).Output()
	if err != nil {
		t.Fatalf("config print: %v", err)
	}
	if err := yaml.Unmarshal(printed, &now); err != nil {
		t.Fatal(err)
	}
	hidden := map[string]string{"redis.url": "rediss://********@redis.example.com:6379/2", "monitor.alert_webhooks": "[https://hooks.example.com/********]"}
	settings := 0
	for _, section := range slices.Sorted(maps.Keys(before)) {
		group, ok := before[section].(map[string]any)
		if !ok {
			group, now[section] = map[string]any{"": before[section]}, map[string]any{"": now[section]}
		}
		after, _ := now[section].(map[string]any)
		for name, value := range group {
			settings++
			key := strings.TrimSuffix(section+"."+name, ".")
			want := fmt.Sprint(value)
			if masked, ok := hidden[key]; ok {
				want = masked
			}
			if got := fmt.Sprint(after[name]); got != want {
				t.Errorf("%s: %s, was %s", key, got, want)
			}
		}
	}
	if settings < 75 {
		t.Errorf("%d settings are compared", settings)
	}
}

func TestTheClientOfAnOldVersion(t *testing.T) {
	speak := filepath.Join(t.TempDir(), "speak")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", speak, ".")
	build.Dir = filepath.Join(oldVersion, "client")
	build.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	dir := t.TempDir()
	key := filepath.Join(dir, "admin.key")
	if out, err := command(t, "keys", "create", "--role", "admin", "--name", "root", "--data-dir", dir, "--out", key).CombinedOutput(); err != nil {
		t.Fatalf("keys create: %v: %s", err, out)
	}
	p := serve(t, dir)
	speaking := exec.CommandContext(t.Context(), speak, p.url, key)
	speaking.WaitDelay = time.Second
	if out, err := speaking.CombinedOutput(); err != nil {
		t.Errorf("the client of daa1f9e: %v: %s", err, out)
	}
	p.stop()
}
