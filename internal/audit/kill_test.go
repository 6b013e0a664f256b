package audit_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"headway/internal/audit"
)

// childPath names the variable with the trail that a child process writes.
const childPath = "AUDIT_TEST_CHILD"

// writeUntilKilled is the child: eight writers that say on standard output what
// is durable.
func writeUntilKilled() {
	j, err := audit.Open(audit.Options{
		Path: os.Getenv(childPath), Node: "child", MaxBytes: 64 << 10, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var out sync.Mutex
	var writers sync.WaitGroup
	for n := range 8 {
		writers.Go(func() {
			for {
				e := change("policy.put")
				e.Reason = strings.Repeat("x", 100*n)
				op, err := j.Operate(context.Background(), e)
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				id, err := j.Record(context.Background(), audit.Result, change("key.create"))
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				registered := audit.Entry{Category: audit.Head, Action: "head.register", Outcome: audit.Success, RequestID: id + ".head"}
				j.Happened(registered)
				out.Lock()
				fmt.Fprintln(os.Stdout, id)
				fmt.Fprintln(os.Stdout, registered.RequestID)
				out.Unlock()
				_ = op.End(context.Background(), audit.Success, "", nil)
			}
		})
	}
	writers.Wait()
}

// A process that is killed at any moment loses nothing that it has said to be
// durable, and leaves a trail that the next one continues soundly.
func TestKilledProcessLosesNothingThatWasAnswered(t *testing.T) {
	const rounds = 12
	w := newWorld(t)
	durable := make(map[string]bool)
	for round := range rounds {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
		child.Env = append(os.Environ(), childPath+"="+w.path)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		said := bufio.NewScanner(out)
		for range 20 + 37*round {
			if !said.Scan() {
				t.Fatal("the child has ended by itself")
			}
			durable[said.Text()] = true
		}
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for said.Scan() {
			durable[said.Text()] = true
		}
		_ = child.Wait() // it was killed
	}

	w.close(w.open())
	w.sound()
	records := w.records()
	open := make(map[string]bool)
	for _, r := range records {
		delete(durable, r.ID)
		delete(durable, r.RequestID)
		switch {
		case r.Stage == audit.Intent:
			open[r.ID] = true
		case strings.HasSuffix(r.ID, ".result"):
			delete(open, strings.TrimSuffix(r.ID, ".result"))
		case r.Action == "audit.unfinished":
			delete(open, r.Target.ID)
		}
	}
	if len(durable) > 0 {
		t.Errorf("%d records that were answered are not in the trail", len(durable))
	}
	if len(open) > 0 {
		t.Errorf("%d intents have neither a result nor a mark", len(open))
	}
	if starts := len(of("audit.start", records)); starts != rounds+1 {
		t.Errorf("%d starts are recorded, want %d", starts, rounds+1)
	}
	t.Logf("%d records over %d kills, %d unfinished operations", len(records), rounds, len(of("audit.unfinished", records)))
}

// After a kill within the last line, the next start puts it aside
// and goes on.
func TestTornLastLineIsPutAside(t *testing.T) {
	w := newWorld(t)
	w.fill(2)
	sound, err := os.ReadFile(w.path)
	if err != nil {
		t.Fatal(err)
	}
	lines := w.lines()
	last := lines[len(lines)-1] + "\n"
	for left := 1; left < len(last); left++ {
		if err := os.WriteFile(w.path, append(sound[:len(sound):len(sound)], last[:left]...), 0o600); err != nil {
			t.Fatal(err)
		}
		w.close(w.open())
		w.sound()
		if aside, err := os.ReadFile(w.path + ".torn"); err != nil || string(aside) != last[:left] {
			t.Fatalf("%d bytes were torn off: aside are %q (%v)", left, aside, err)
		}
		start := of("audit.start", w.records())
		if reason := start[len(start)-1].Reason; !strings.Contains(reason, fmt.Sprintf("the %d bytes are in audit.log.torn", left)) {
			t.Fatalf("the start says %q", reason)
		}
		if err := os.Remove(audit.CheckpointPath(w.path)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTailOfZerosIsPutAside(t *testing.T) {
	w := newWorld(t)
	w.fill(2)
	f, err := os.OpenFile(w.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(make([]byte, 5000)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	w.close(w.open())
	w.sound()
}
