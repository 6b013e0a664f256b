package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// kept are the records of an export, without its first and its last line.
func kept(t *testing.T, export string) []string {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(export, "\n"), "\n")
	if len(lines) < 2 || !strings.Contains(lines[0], `"headway-state"`) || !strings.Contains(lines[len(lines)-1], `"sha256"`) {
		t.Fatalf("not a whole export: %s", export)
	}
	return lines[1 : len(lines)-1]
}

// A copy is taken and the file is checked while the service runs, and both are
// the same as of the file itself.
func TestTheStateIsExportedAndCheckedBesideTheService(t *testing.T) {
	s := &shell{TB: t, dir: t.TempDir()}
	p := serve(t, filepath.Join(s.dir, "data"), "--lease-base-interval", "60s")
	for _, id := range []string{"gpu-1", "gpu-2"} {
		p.must(201, "POST", "/api/v1/heads", headBody(id))
	}
	out, _ := s.cli(exitOK, "state", "check")
	has(t, out, "heads", "2 records", p.url+" is sound")
	printed, _ := s.cli(exitOK, "state", "export")
	_, errs := s.cli(exitOK, "state", "export", "copy.jsonl")
	has(t, errs, fmt.Sprintf("wrote %d records to copy.jsonl", len(kept(t, printed))))
	copied, err := os.ReadFile(filepath.Join(s.dir, "copy.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if a, b := strings.Join(kept(t, printed), "\n"), strings.Join(kept(t, string(copied)), "\n"); a != b || strings.Count(a, `"head"`) != 2 {
		t.Errorf("printed was\n%s\nand the file has\n%s", a, b)
	}
	_, errs = s.cli(exitError, "state", "export", "copy.jsonl")
	has(t, errs, "file exists; name a file that does not exist")
	if strings.Contains(errs, "key") {
		t.Errorf("a state is no key: %s", errs)
	}
	out, _ = s.cli(exitOK, "audit", "search", "--action", "state.*", "-o", "json")
	var records []struct{ Action, Outcome string }
	if err := json.Unmarshal([]byte(out), &records); err != nil || len(records) != 3 {
		t.Errorf("%v: the trail has %s", err, out)
	}

	// A service that is named, and not the local one.
	far := &shell{TB: t, dir: t.TempDir()}
	out, _ = far.cli(exitOK, "state", "check", "--server", p.url)
	has(t, out, "2 records")
	_, errs = far.cli(exitUsage, "state", "import", "copy.jsonl", "--server", p.url)
	has(t, errs, "--data-dir")

	p.stop()
	out, _ = s.cli(exitOK, "state", "check", "--data-dir", "data")
	has(t, out, "2 records", "headway.db is sound")
	closed, _ := s.cli(exitOK, "state", "export", "--data-dir", "data")
	if a, b := strings.Join(kept(t, closed), "\n"), strings.Join(kept(t, printed), "\n"); a != b {
		t.Errorf("of the file:\n%s\nof the service:\n%s", a, b)
	}
	s.env = []string{"HEADWAY_SERVER=http://127.0.0.1:1"} // not asked: the directory is nearer
	s.cli(exitOK, "state", "import", "--data-dir", "other", "copy.jsonl")
	out, _ = s.cli(exitOK, "state", "check", "--data-dir", "other")
	has(t, out, "2 records")
}

// The copy has the hashes of keys, so only an administrator gets it.
func TestOnlyAnAdministratorExportsTheState(t *testing.T) {
	s := &shell{TB: t, dir: t.TempDir()}
	p := serve(t, filepath.Join(s.dir, "data"))
	for _, role := range []string{"admin", "operator"} {
		s.cli(exitOK, "keys", "create", "--role", role, "--name", role, "--out", role+".key")
	}
	for role, code := range map[string]int{"operator": exitRefused, "admin": exitOK} {
		for _, command := range []string{"check", "export"} {
			out, errs := s.cli(code, "state", command, "--server", p.url, "--token-file", role+".key")
			if code == exitRefused && (out != "" || !strings.Contains(errs, "admin")) {
				t.Errorf("%s %s: printed %q, said %q", role, command, out, errs)
			}
		}
	}
	out, _ := s.cli(exitOK, "state", "export")
	secret, err := os.ReadFile(filepath.Join(s.dir, "admin.key"))
	if err != nil || strings.Contains(out, strings.TrimSpace(string(secret))) {
		t.Errorf("error %v, or the copy has a secret", err)
	}
}

// A service of an earlier version answers that there is no such path; what helps
// is to stop it, since its file can be read then.
func TestAServiceThatKnowsNoCopyIsToBeStopped(t *testing.T) {
	old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"code":"not_found","title":"Not found","detail":"There is nothing at this path."}`))
	}))
	defer old.Close()
	s := &shell{TB: t, dir: t.TempDir()}
	for _, command := range []string{"check", "export"} {
		_, errs := s.cli(exitNotFound, "state", command, "--server", old.URL)
		has(t, errs, old.URL+" is older than this command", "stop it, then run this again")
	}
}
