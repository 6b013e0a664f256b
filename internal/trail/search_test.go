package trail_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"headway/internal/audit"
	"headway/internal/trail"
)

// library is a trail over several files, some of them compressed, and what is in
// it.
func library(t *testing.T) (*world, []audit.Record) {
	w := newWorld(t)
	w.o.MaxBytes = 20_000
	start := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	var ticks atomic.Int64
	w.o.Now = func() time.Time { return start.Add(time.Duration(ticks.Load()) * 700 * time.Millisecond) }
	j := w.open()
	actions := []string{"policy.put", "policy.patch", "head.register", "key.create"}
	actors := []audit.Actor{{Type: "key", ID: "k-ops"}, {Type: "jwt", ID: "ann"}, {Type: "system"}, {Type: "key", ID: "k\nevil"}}
	for i := range 300 {
		e := change(actions[i%4])
		e.Actor = actors[i%3]
		if i%17 == 0 {
			e.Actor, e.Outcome, e.Category = actors[3], audit.Denied, audit.Auth
		}
		e.Target = audit.Target{Type: "head", ID: fmt.Sprintf("gpu-%d", i%5)}
		w.record(j, e)
		if i%3 == 0 { // some have the same time
			ticks.Add(1)
		}
	}
	w.close(j)
	report := w.sound()
	var all []audit.Record
	for i, name := range report.Files {
		path := filepath.Join(filepath.Dir(w.path), name)
		for _, line := range linesOf(t, path) {
			r, err := audit.ParseLine([]byte(strings.TrimSuffix(line, "\n")))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, r)
		}
		if i%2 == 1 && path != w.path {
			compress(t, path, path+".gz")
		}
	}
	slices.Reverse(all)
	if len(report.Files) < 6 {
		t.Fatalf("the trail has only %d files", len(report.Files))
	}
	return w, all
}

// Any query, page by page, finds the same as a scan of all records.
func TestSearchFindsWhatReadingAllFinds(t *testing.T) {
	w, all := library(t)
	rapid.Check(t, func(r *rapid.T) {
		at := func(name string) time.Time {
			if rapid.Bool().Draw(r, name+" given") {
				return all[rapid.IntRange(0, len(all)-1).Draw(r, name)].Time.Add(time.Duration(rapid.IntRange(-1, 1).Draw(r, name+" off")) * time.Microsecond)
			}
			return time.Time{}
		}
		q := trail.Query{
			Since: at("since"), Until: at("until"),
			Actor:    rapid.SampledFrom([]string{"", "", "k-ops", "jwt", "jwt:ann", "key", "k\nevil", "nobody"}).Draw(r, "actor"),
			Action:   rapid.SampledFrom([]string{"", "", "policy.", "policy.put", "*.put", "p*t*h", "*", "audit.*", "none"}).Draw(r, "action"),
			Category: rapid.SampledFrom([]audit.Category{"", "", audit.Policy, audit.Auth}).Draw(r, "category"),
			Outcome:  rapid.SampledFrom([]audit.Outcome{"", "", audit.Denied, audit.Success}).Draw(r, "outcome"),
			Target:   rapid.SampledFrom([]string{"", "", "gpu-3", "head:gpu-1", "head"}).Draw(r, "target"),
			Limit:    rapid.SampledFrom([]int{0, 1, 7, 50, 1000}).Draw(r, "limit"),
		}
		var want []uint64
		for _, record := range all {
			if asked(&q, &record) {
				want = append(want, record.Seq)
			}
		}
		var got []uint64
		for {
			found, next, err := trail.Search(context.Background(), w.path, q)
			if err != nil {
				r.Fatal(err)
			}
			limit := q.Limit
			if limit == 0 {
				limit = 100
			}
			if len(found) > limit || next != "" && len(found) != limit {
				r.Fatalf("%d records for a limit of %d, and next is %q", len(found), limit, next)
			}
			for _, record := range found {
				got = append(got, record.Seq)
				if !reflect.DeepEqual(record, all[uint64(len(all))-record.Seq]) {
					r.Fatalf("record %d is %+v", record.Seq, record)
				}
			}
			if q.Cursor = next; next == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			r.Fatalf("%+v: got %v, want %v", q, got, want)
		}
	})
}

// asked is what the fields of a Query mean, said again.
func asked(q *trail.Query, r *audit.Record) bool {
	named := func(kind, id, name string) bool {
		return name == "" || name == kind || name == id || name == kind+":"+id
	}
	action := map[string]bool{
		"": true, "policy.": strings.HasPrefix(r.Action, "policy."), "policy.put": r.Action == "policy.put", "*.put": r.Action == "policy.put",
		"p*t*h": r.Action == "policy.patch", "*": true, "audit.*": r.Category == audit.Trail,
	}[q.Action]
	return action && named(r.Actor.Type, r.Actor.ID, q.Actor) && named(r.Target.Type, r.Target.ID, q.Target) &&
		(q.Category == "" || q.Category == r.Category) && (q.Outcome == "" || q.Outcome == r.Outcome) &&
		(q.Since.IsZero() || !r.Time.Before(q.Since)) && (q.Until.IsZero() || r.Time.Before(q.Until))
}

func TestSearchRefusesWhatCannotBeAsked(t *testing.T) {
	w := newWorld(t)
	for _, q := range []trail.Query{{Limit: -1}, {Limit: trail.MaxFound + 1}, {Cursor: "x"}} {
		if _, _, err := trail.Search(t.Context(), w.path, q); !errors.Is(err, trail.ErrQuery) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	if found, next, err := trail.Search(t.Context(), w.path, trail.Query{}); err != nil || len(found) > 0 || next != "" {
		t.Errorf("without a trail: %v, %q, %v", found, next, err)
	}
}

// Damage hides what it hit and nothing else.
func TestSearchReadsAroundDamage(t *testing.T) {
	w := newWorld(t)
	w.fill(200)
	sound, err := os.ReadFile(w.path)
	if err != nil {
		t.Fatal(err)
	}
	all := w.records()
	rapid.Check(t, func(r *rapid.T) {
		from := rapid.IntRange(0, len(sound)-1).Draw(r, "from")
		to := rapid.IntRange(from, min(len(sound), from+60_000)).Draw(r, "to")
		with := bytes.Repeat([]byte{rapid.Byte().Draw(r, "with")}, rapid.IntRange(0, 100_000).Draw(r, "times"))
		if err := os.WriteFile(w.path, slices.Concat(sound[:from], with, sound[to:]), 0o600); err != nil {
			r.Fatal(err)
		}
		q := trail.Query{Limit: 1000, Until: all[rapid.IntRange(0, len(all)-1).Draw(r, "until")].Time}
		if rapid.Bool().Draw(r, "all") {
			q.Until = time.Time{}
		}
		found, _, err := trail.Search(context.Background(), w.path, q)
		if err != nil {
			r.Fatal(err)
		}
		seen := make(map[uint64]bool)
		for _, record := range found {
			seen[record.Seq] = true
		}
		at := 0
		for i, line := range bytes.SplitAfter(sound, []byte("\n")) {
			start, end := at, at+len(line)
			at = end
			whole := end <= from && end < len(sound) || start > to || start == to && (len(with) == 0 && from == 0)
			if whole && len(line) > 0 && (q.Until.IsZero() || all[i].Time.Before(q.Until)) && !seen[all[i].Seq] {
				r.Fatalf("record %d, at bytes %d to %d, was not found", all[i].Seq, start, end)
			}
		}
	})
}

// A record that damage gives another place, by its sequence or its time, hides no
// other.
func TestSearchDoesNotFollowADamagedRecord(t *testing.T) {
	for _, c := range []struct{ what, from, to string }{
		{"a lower sequence", `"seq":119,`, `"seq":19,`},
		{"a higher sequence", `"seq":100,`, `"seq":900,`},
		{"another time", "", ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			w := newWorld(t)
			w.fill(200)
			text, err := os.ReadFile(w.path)
			if err != nil {
				t.Fatal(err)
			}
			all := w.records()
			from, to := c.from, c.to
			if from == "" {
				from = string(bytes.SplitAfter(text, []byte("\n"))[119])
				to = strings.Replace(from, `"time":"2`, `"time":"1`, 1)
			}
			damaged := bytes.Replace(text, []byte(from), []byte(to), 1)
			if bytes.Equal(damaged, text) {
				t.Fatalf("there is no %s in the trail", from)
			}
			if err := os.WriteFile(w.path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			found, _, err := trail.Search(t.Context(), w.path, trail.Query{Limit: 1000, Since: all[0].Time})
			if err != nil || len(found) < len(all)-1 {
				t.Errorf("%d of %d records were found, %v", len(found), len(all), err)
			}
		})
	}
}

func BenchmarkSearch(b *testing.B) {
	w := newWorld(b)
	var text []byte
	var r audit.Record
	e := change("policy.put")
	r.Stage, r.Category, r.Action, r.Outcome, r.Reason, r.Actor, r.Src, r.Target = audit.Result, e.Category, e.Action, e.Outcome, e.Reason, e.Actor, e.Source, e.Target
	start := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	for len(text) < 64<<20 {
		r.Seq++
		r.Time = start.Add(time.Duration(r.Seq) * time.Second)
		text = audit.AppendLine(text, &r)
		r.Prev = r.Hash
	}
	if err := os.WriteFile(w.path, text, 0o600); err != nil {
		b.Fatal(err)
	}
	queries := map[string]trail.Query{
		"newest": {}, "page in the middle": {Cursor: fmt.Sprint(r.Seq / 2)}, "hour in the middle": {Since: start.Add(10 * time.Hour), Until: start.Add(11 * time.Hour), Limit: 1000}, "nothing": {Actor: "nobody"},
	}
	for name, q := range queries {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := trail.Search(context.Background(), w.path, q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
