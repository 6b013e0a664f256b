package trail_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"headway/internal/audit"
	"headway/internal/trail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logbook is a log that tests read.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logbook) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(l, nil)) }

// world is a trail in a directory of its own.
type world struct {
	t    testing.TB
	path string
	log  *logbook
	o    audit.Options
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, path: filepath.Join(t.TempDir(), "audit.log"), log: &logbook{}}
	w.o = audit.Options{Path: w.path, Node: "node-1", Log: w.log.logger()}
	return w
}

// open opens the journal; the test closes it, or its end does.
func (w *world) open() *audit.Journal {
	w.t.Helper()
	j, err := audit.Open(w.o)
	if err != nil {
		w.t.Fatalf("Open: %v", err)
	}
	w.t.Cleanup(func() { _ = j.Close() })
	return j
}

func (w *world) close(j *audit.Journal) {
	w.t.Helper()
	if err := j.Close(); err != nil {
		w.t.Fatalf("Close: %v", err)
	}
}

// record writes an entry.
func (w *world) record(j *audit.Journal, e audit.Entry) {
	w.t.Helper()
	if j.Happened(e); j.Stats().Down {
		w.t.Fatal("the disk fails")
	}
}

// fill writes a trail with n records of various shapes and closes it.
func (w *world) fill(n int) {
	w.t.Helper()
	j := w.open()
	for i := range n {
		e := change("policy.put")
		if i%3 == 1 {
			e = audit.Entry{Category: audit.Head, Action: "head.register", Outcome: audit.Success, Target: audit.Target{Type: "head", ID: "gpu-7", Region: "us-west"}}
		}
		w.record(j, e)
	}
	w.close(j)
}

// lines are the lines of the current file.
func (w *world) lines() []string { return linesOf(w.t, w.path) }

func linesOf(t testing.TB, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.SplitAfter(strings.TrimSuffix(string(text), "\n"), "\n")
}

// records are all records of the trail in their order.
func (w *world) records() []audit.Record {
	w.t.Helper()
	var all []audit.Record
	q := trail.Query{Limit: trail.MaxFound}
	for {
		found, next, err := trail.Search(context.Background(), w.path, q)
		if err != nil {
			w.t.Fatalf("Search: %v", err)
		}
		all = append(all, found...)
		if next == "" {
			slices.Reverse(all)
			return all
		}
		q.Cursor = next
	}
}

// sound demands that verifying finds nothing.
func (w *world) sound() trail.Report {
	w.t.Helper()
	return w.soundUpTo(nil)
}

func (w *world) soundUpTo(c *audit.Checkpoint) trail.Report {
	w.t.Helper()
	report := w.verify(c)
	if !report.Sound() {
		w.t.Fatalf("the trail is not sound: %v", report.Faults)
	}
	return report
}

func (w *world) verify(c *audit.Checkpoint) trail.Report {
	w.t.Helper()
	report, err := trail.Verify(context.Background(), w.path, trail.VerifyOptions{Checkpoint: c})
	if err != nil {
		w.t.Fatalf("Verify: %v", err)
	}
	return report
}

// checkpoint is the newest, beside the trail.
func (w *world) checkpoint() *audit.Checkpoint {
	w.t.Helper()
	c, err := audit.ReadCheckpoint(audit.CheckpointPath(w.path))
	if err != nil {
		w.t.Fatal(err)
	}
	return &c
}

func change(action string) audit.Entry {
	return audit.Entry{
		Category: audit.Policy, Action: action, Outcome: audit.Success, Reason: "rollout",
		Actor:     audit.Actor{Type: "key", ID: "k-ops", Via: "http"},
		Source:    audit.Source{IP: "10.0.0.9", UserAgent: "curl/8"},
		Target:    audit.Target{Type: "policy", ID: "default"},
		RequestID: "req-1", TraceID: "trace-1",
		Before: json.RawMessage(`{"revision":1}`), After: json.RawMessage(`{"revision":2}`),
	}
}
