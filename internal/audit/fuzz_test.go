package audit_test

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"headway/internal/audit"
)

func seeds(f *testing.F) []byte {
	r := audit.Record{Seq: 1, Stage: audit.Result, Prev: strings.Repeat("0", 64)}
	e := change("policy.put").Fit()
	r.Category, r.Action, r.Outcome, r.Reason, r.Actor, r.Src, r.Target, r.Before = e.Category, e.Action, e.Outcome, "a\nb\U000e0041", e.Actor, e.Source, e.Target, e.Before
	return audit.AppendLine(nil, &r)
}

// What is taken for a record is JSON, and the same record when it is written
// again.
func FuzzParseLine(f *testing.F) {
	line := bytes.TrimSuffix(seeds(f), []byte("\n"))
	f.Add(line)
	f.Add(bytes.Replace(line, []byte(`a\nb`), []byte(`\ud83d\ude00\udead`), 1))
	f.Add(bytes.Replace(line, []byte(`{"revision":1}`), []byte(`{"a":["}",{}]}`), 1))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := audit.ParseLine(line)
		if err != nil {
			return
		}
		again := audit.AppendLine(nil, &r)
		r2, err := audit.ParseLine(again[:len(again)-1])
		if err != nil {
			t.Fatalf("%q was written again as %q: %v", line, again, err)
		}
		r2.Hash, r.Hash = "", ""
		if a, b := audit.AppendLine(nil, &r), audit.AppendLine(nil, &r2); !bytes.Equal(a, b) {
			t.Fatalf("%q\nbecame %q\nand then %q", line, a, b)
		}
	})
}

// A checkpoint that is read is the same when it is written again, and no file
// beside the trail keeps the service from starting.
func FuzzCheckpoint(f *testing.F) {
	f.Add([]byte(`{"node":"n","seq":5,"hash":"`+strings.Repeat("a", 64)+`","time":"2026-11-23T21:42:18.000Z"}`+"\n"), []byte("7\n"))
	f.Add([]byte(`{"node":"\u0000\ud83d","seq":18446744073709551615,"hash":"`+strings.Repeat("0", 64)+`","time":"2026-11-23T21:42:18.000Z","signature":"AA=="}`), []byte("99999999999999999999"))
	f.Add([]byte("{}"), []byte("-1"))
	f.Fuzz(func(t *testing.T, text, waiting []byte) {
		w := newWorld(t)
		for file, content := range map[string][]byte{audit.CheckpointPath(w.path): text, w.path + ".waiting": waiting} {
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if c, err := audit.ReadCheckpoint(audit.CheckpointPath(w.path)); err == nil {
			again, ok := audit.ParseCheckpoint(c.Line())
			if !ok || again.Seq != c.Seq || again.Hash != c.Hash || !again.Time.Equal(c.Time) {
				t.Fatalf("%q was read as %+v and written as %q", text, c, c.Line())
			}
		}
		j, err := audit.Open(w.o)
		if err != nil {
			t.Fatal(err)
		}
		w.close(j)
	})
}

// For any entry, its line is one line of JSON that reads the same.
func FuzzEntry(f *testing.F) {
	f.Add("a\nb", []byte(`{"a":1}`), []byte{0xff})
	f.Add(strings.Repeat("\x01", 5000), []byte(`{"`+strings.Repeat("x", 20_000)+`":1}`), []byte("\u2028"))
	f.Fuzz(func(t *testing.T, text string, object, bytesOfText []byte) {
		e := audit.Entry{Action: text, Reason: string(bytesOfText), Actor: audit.Actor{ID: text}, Source: audit.Source{UserAgent: text}, Target: audit.Target{ID: string(bytesOfText)}, Before: object, After: object}.Fit()
		r := audit.Record{Seq: 1 << 63, Action: e.Action, Reason: e.Reason, Actor: e.Actor, Src: e.Source, Target: e.Target, Before: e.Before, After: e.After, Prev: strings.Repeat("0", 64)}
		line := audit.AppendLine(nil, &r)
		if len(line) > audit.MaxLine || bytes.IndexByte(line, '\n') != len(line)-1 {
			t.Fatalf("%d bytes: %q", len(line), line)
		}
		var decoded audit.Record
		if err := json.Unmarshal(line, &decoded); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		if want := strings.ToValidUTF8(e.Action, "\ufffd"); strings.ReplaceAll(decoded.Action, "\ufffd", "") != strings.ReplaceAll(want, "\ufffd", "") {
			t.Fatalf("%q became %q", want, decoded.Action)
		}
		if _, err := audit.ParseLine(line[:len(line)-1]); err != nil {
			t.Fatal(err)
		}
	})
}
