package trail_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"headway/internal/audit"
	"headway/internal/trail"
)

func seeds(f *testing.F) []byte {
	r := audit.Record{Seq: 1, Stage: audit.Result, Prev: strings.Repeat("0", 64)}
	e := change("policy.put")
	r.Category, r.Action, r.Outcome, r.Reason, r.Actor, r.Src, r.Target, r.Before = e.Category, e.Action, e.Outcome, "a\nb\U000e0041", e.Actor, e.Source, e.Target, e.Before
	return audit.AppendLine(nil, &r)
}

// No file makes a reader fail otherwise than with an error.
func FuzzReaders(f *testing.F) {
	line := seeds(f)
	f.Add(line, uint64(0))
	f.Add(append(bytes.Clone(line), line[:20]...), uint64(1))
	f.Add([]byte("\x00\n\n{\"v\":1,\"seq\":"), uint64(2))
	f.Fuzz(func(t *testing.T, text []byte, cursor uint64) {
		path := filepath.Join(t.TempDir(), "audit.log")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		report, err := trail.Verify(context.Background(), path, trail.VerifyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, _, _ = trail.Search(context.Background(), path, trail.Query{Limit: 10, Cursor: strconv.FormatUint(cursor, 10)}) // any answer but a panic
		found, _, err := trail.Search(context.Background(), path, trail.Query{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		if report.Sound() && len(found) < int(min(report.Records, 1000)) {
			t.Fatalf("%d sound records, and %d were found", report.Records, len(found))
		}
		before := ^uint64(0)
		for _, r := range found {
			if r.Seq >= before {
				t.Fatalf("record %d was found behind record %d", r.Seq, before)
			}
			before = r.Seq
		}
		o := newWorld(t).o
		o.Path = path
		if j, err := audit.Open(o); err == nil {
			_ = j.Close()
		}
	})
}
