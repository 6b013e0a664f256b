package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"headway/api"
	"headway/internal/audit"
)

// strange are characters that turn text around, break a line or move the cursor.
const strange = "a\u202eb\u0085c\x1b[2Jd\U000e0041<&>\""

// oddTrail writes a trail with strange names, at times that end in 0.
func oddTrail(t *testing.T, path string) {
	t.Helper()
	var hundredths atomic.Int64
	now := func() time.Time { return time.UnixMilli(1_795_000_000_290 + 10*hundredths.Load()) }
	j, err := audit.Open(audit.Options{Path: path, Log: slog.New(slog.DiscardHandler), Now: now, MaxBytes: 4000})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		hundredths.Add(1)
		j.Happened(audit.Entry{
			Category: audit.Head, Action: "head.register", Outcome: audit.Success, Reason: strange,
			Actor: audit.Actor{Type: "key", ID: fmt.Sprint(i)}, Target: audit.Target{Type: "head", ID: strange}, After: json.RawMessage(`{"label":"` + "\u202e" + `"}`),
		})
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

// An export is the trail itself; what people and programs read of it shows
// characters that hide as escapes.
func TestAnExportIsTheTrail(t *testing.T) {
	s := &shell{TB: t, dir: t.TempDir()}
	trail := filepath.Join(s.dir, "trail", "audit.log")
	if err := os.Mkdir(filepath.Dir(trail), 0o750); err != nil {
		t.Fatal(err)
	}
	oddTrail(t, trail)
	exported, _ := s.cli(exitOK, "audit", "export", "--file", trail)
	if !strings.Contains(exported, `0Z","id"`) || strings.Count(exported, "\n") < 20 {
		t.Fatalf("exported is\n%s", exported)
	}
	s.write("export.jsonl", exported)
	out, _ := s.cli(exitOK, "audit", "verify", "--file", "export.jsonl", "--checkpoint", trail+".checkpoint")
	has(t, out, "is sound")
	s.write("export.jsonl", strings.Replace(exported, "0Z", "Z", 1))
	s.cli(exitDamage, "audit", "verify", "--file", "export.jsonl")

	for _, args := range [][]string{{"export", "--format", "ocsf"}, {"search"}, {"search", "-o", "wide"}, {"search", "-o", "json"}, {"search", "-o", "yaml"}} {
		out, _ := s.cli(exitOK, append([]string{"audit", "--file", trail}, args...)...)
		if i := strings.IndexFunc(strings.ReplaceAll(out, "\n", ""), audit.Hidden); i >= 0 {
			t.Errorf("%v: a hidden character in\n%q", args, out)
		}
		has(t, out, "b\\")
	}
	var records []api.AuditRecord
	out, _ = s.cli(exitOK, "audit", "search", "--file", trail, "-o", "json", "--action", "head.register", "--limit", "1")
	if err := json.Unmarshal([]byte(out), &records); err != nil || len(records) != 1 || records[0].Target.ID != strange {
		t.Errorf("as JSON: %v, %+v", err, records)
	}
	var fields []struct{ Target struct{ ID string } }
	out, _ = s.cli(exitOK, "audit", "search", "--file", trail, "-o", "yaml", "--action", "head.register", "--limit", "1")
	if err := yaml.Unmarshal([]byte(out), &fields); err != nil || len(fields) != 1 || fields[0].Target.ID != strange {
		t.Errorf("as YAML: %v, %+v", err, fields)
	}
}

// The trail that is read is that of the data directory or configuration that was
// named, and never one of another service.
func TestWhichTrailIsRead(t *testing.T) {
	s := &shell{TB: t, dir: t.TempDir()}
	for _, name := range []string{"data/routing_audit.log", "other/trail.log", "killed/trail.log"} {
		path := filepath.Join(s.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		oddTrail(t, path)
	}
	s.write("headway.yaml", "data_dir: other\naudit: {file: other/trail.log}\n")
	s.write("killed/server.json", fmt.Sprintf(`{"url":"http://127.0.0.1:1","audit_file":%q,"pid":%d}`, filepath.Join(s.dir, "killed/trail.log"), 1<<30))
	for _, c := range []struct {
		args []string
		path string
	}{
		{[]string{"--data-dir", "data"}, "data/routing_audit.log"},
		{[]string{"--config", "headway.yaml"}, "other/trail.log"},
		{[]string{"--data-dir", "killed"}, filepath.Join(s.dir, "killed/trail.log")},
	} {
		out, errs := s.cli(exitOK, append([]string{"audit", "verify"}, c.args...)...)
		has(t, out, c.path+" is sound", "checkpoint: record")
		has(t, errs, "reading "+c.path, "--file")
		out, _ = s.cli(exitOK, append([]string{"audit", "export"}, c.args...)...)
		has(t, out, `"action":"head.register"`)
	}
	if err := os.Mkdir(filepath.Join(s.dir, "empty"), 0o750); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"verify", "export"} {
		out, errs := s.cli(exitNotFound, "audit", command, "--data-dir", "empty")
		has(t, errs, "empty/routing_audit.log", "--file", "--config", "/var/log/routing_audit.log")
		if out != "" {
			t.Errorf("of an empty data directory: %s", out)
		}
	}
	for _, command := range []string{"verify", "export", "search", "tail"} {
		s.cli(exitNotFound, "audit", command, "--file", "missing.log")
	}
	s.cli(exitUsage, "audit", "search", "--limit", "-1", "--file", "data/routing_audit.log")
	s.cli(exitUsage, "audit", "tail", "-n", "-1", "--file", "data/routing_audit.log")
	out, _ := s.cli(exitOK, "audit", "tail", "-n", "0", "--file", "data/routing_audit.log")
	if strings.Count(out, "\n") != 1 {
		t.Errorf("no records are\n%s", out)
	}
}
