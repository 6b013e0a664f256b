package trail_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"headway/internal/audit"
	"headway/internal/trail"
)

// odd are characters that a careless copy would change, or a terminal obey.
const odd = "a\u202eb\u0085c\x1b[2Jd\u2028e\u00e9\U000e0041<&>\\\"\n"

func (w *world) copied(q trail.Query) string {
	w.t.Helper()
	var text strings.Builder
	err := trail.Copy(context.Background(), w.path, q, func(line []byte) error {
		text.Write(line)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return text.String()
}

// inFiles are the lines of all files of the trail as they were written.
func (w *world) inFiles(all []audit.Record) string {
	var text []byte
	for i := range all {
		text = audit.AppendLine(text, &all[i])
	}
	return string(text)
}

// A copy of a trail has its bytes, over all files, and verifies as it does.
func TestACopyHasTheBytesOfTheTrail(t *testing.T) {
	w, _ := library(t)
	j := w.open()
	e := change("policy.put")
	e.Reason, e.Actor.ID, e.After = odd, odd, json.RawMessage(`{"name":"`+"\u202e\u0085"+`"}`)
	w.record(j, e)
	w.close(j)
	all := w.records()
	text := w.copied(trail.Query{})
	if text != w.inFiles(all) {
		t.Fatal("the copy has other bytes than the trail")
	}
	for _, r := range text {
		if audit.Hidden(r) && r != '\n' {
			t.Fatalf("%U stands in the copy as it is", r)
		}
	}
	at := newWorld(t)
	if err := os.WriteFile(at.path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if report := at.soundUpTo(w.checkpoint()); report.Records != uint64(len(all)) {
		t.Errorf("%d of %d records were copied", report.Records, len(all))
	}

	for _, q := range []trail.Query{
		{Since: all[100].Time},
		{Until: all[100].Time},
		{Since: all[50].Time, Until: all[250].Time},
		{Since: all[len(all)-1].Time, Actor: "key"},
		{Action: "policy.*", Outcome: audit.Success},
		{Action: "nothing"},
	} {
		want := slices.DeleteFunc(slices.Clone(all), func(r audit.Record) bool {
			return r.Time.Before(q.Since) || !q.Until.IsZero() && !r.Time.Before(q.Until) ||
				q.Actor != "" && r.Actor.Type != q.Actor || q.Outcome != "" && r.Outcome != q.Outcome ||
				q.Action != "" && !strings.HasPrefix(r.Action, strings.TrimSuffix(q.Action, "*"))
		})
		if w.copied(q) != w.inFiles(want) {
			t.Errorf("%+v: not the %d records that were asked for", q, len(want))
		}
	}
}

// Files that are renamed while a copy is made are in it once.
func TestACopyFollowsRotations(t *testing.T) {
	w, _ := library(t)
	all := w.records()
	n := 0
	var text strings.Builder
	err := trail.Copy(t.Context(), w.path, trail.Query{}, func(line []byte) error {
		text.Write(line)
		if n++; n == 10 { // as logrotate does, with a new file that stays empty
			return errors.Join(os.Rename(w.path, w.path+"-20261124"), os.WriteFile(w.path, nil, 0o600))
		}
		return nil
	})
	if err != nil || text.String() != w.inFiles(all) {
		t.Errorf("%v: %d of %d bytes", err, text.Len(), len(w.inFiles(all)))
	}
}

// What is damaged is copied as it is, so that the copy is not sounder than the
// trail; the writer's error ends it, as does the context.
func TestACopyHidesNoDamage(t *testing.T) {
	w := newWorld(t)
	w.fill(4)
	lines := w.lines()
	lines = append(lines[:3], append([]string{lines[2], strings.Replace(lines[3], "rollout", "roll-in", 1)}, lines[4:]...)...)
	text := strings.Join(lines, "") + "\n"
	if err := os.WriteFile(w.path, []byte(text+"torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if w.copied(trail.Query{}) != text {
		t.Error("the copy has other bytes than the trail")
	}
	full := fmt.Errorf("the disk is full")
	n := 0
	if err := trail.Copy(t.Context(), w.path, trail.Query{}, func([]byte) error { n++; return full }); !errors.Is(err, full) || n != 1 {
		t.Errorf("after %d lines: %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := trail.Copy(ctx, w.path, trail.Query{}, func([]byte) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

// The size of a trail says nothing about the memory that copying takes.
func TestACopyIsNotHeldInMemory(t *testing.T) {
	w, _ := library(t)
	if err := filepath.WalkDir(filepath.Dir(w.path), func(path string, _ os.DirEntry, err error) error {
		if strings.HasSuffix(path, ".gz") { // uncompressing has its own
			return os.Remove(path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	count := func(q trail.Query) (lines int, allocs float64) {
		allocs = testing.AllocsPerRun(5, func() {
			lines = 0
			if err := trail.Copy(context.Background(), w.path, q, func([]byte) error { lines++; return nil }); err != nil {
				t.Fatal(err)
			}
		})
		return lines, allocs
	}
	none, base := count(trail.Query{Action: "nothing"})
	all, allocs := count(trail.Query{})
	if none != 0 || all < 100 || allocs > base+float64(all)/10 {
		t.Errorf("%d lines: %.0f allocations; of none: %.0f", all, allocs, base)
	}
}

// A line of OCSF shows hidden characters as escapes too.
func TestOCSFHidesNothing(t *testing.T) {
	var out bytes.Buffer
	if err := trail.WriteOCSF(&out, audit.Record{ID: "u", Reason: odd, Actor: audit.Actor{Type: "key", ID: odd}}); err != nil {
		t.Fatal(err)
	}
	line := strings.TrimSuffix(out.String(), "\n")
	if strings.ContainsFunc(line, audit.Hidden) {
		t.Errorf("hidden characters in %q", line)
	}
	var back struct {
		Detail string `json:"status_detail"`
	}
	if err := json.Unmarshal([]byte(line), &back); err != nil || back.Detail != odd {
		t.Errorf("%q, %v", back.Detail, err)
	}
}
