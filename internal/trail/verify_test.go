package trail_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"headway/internal/audit"
	"headway/internal/trail"
)

// damaged is a copy of a sound trail of one file, and what is wrong with it.
type damaged struct {
	*world
	text       []byte
	checkpoint *audit.Checkpoint
}

func newDamaged(t *testing.T, n int) *damaged {
	w := newWorld(t)
	w.fill(n)
	text, err := os.ReadFile(w.path)
	if err != nil {
		t.Fatal(err)
	}
	d := &damaged{world: w, text: text, checkpoint: w.checkpoint()}
	w.soundUpTo(d.checkpoint)
	return d
}

// found demands that this content is not taken for sound.
func (d *damaged) found(what string, text []byte) trail.Report {
	d.t.Helper()
	if err := os.Remove(d.path); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(d.path, text, 0o600); err != nil {
		d.t.Fatal(err)
	}
	report := d.verify(d.checkpoint)
	if report.Sound() {
		d.t.Fatalf("%s: nothing was found", what)
	}
	return report
}

func TestVerifyFindsEachFlippedByte(t *testing.T) {
	d := newDamaged(t, 6)
	line, start := 1, 0
	for i := range d.text {
		flipped := bytes.Clone(d.text)
		flipped[i] ^= 1 << (i % 8)
		report := d.found(fmt.Sprintf("byte %d of line %d", i-start, line), flipped)
		if first := report.Faults[0]; d.text[i] != '\n' && first.Line != uint64(line) {
			t.Fatalf("byte %d of line %d: %v", i-start, line, report.Faults)
		}
		if d.text[i] == '\n' {
			line, start = line+1, i+1
		}
	}
}

func TestVerifyFindsEachInsertedAndEachRemovedByte(t *testing.T) {
	d := newDamaged(t, 1)
	for i := range d.text {
		d.found(fmt.Sprintf("without byte %d", i), slices.Delete(bytes.Clone(d.text), i, i+1))
		for _, c := range []byte("0\n") {
			d.found(fmt.Sprintf("with %q before byte %d", c, i), slices.Insert(bytes.Clone(d.text), i, c))
		}
	}
	d.found("with a newline at the end", append(bytes.Clone(d.text), '\n'))
}

func TestVerifyFindsWhatIsDoneWithLines(t *testing.T) {
	d := newDamaged(t, 8)
	lines := bytes.SplitAfter(bytes.TrimSuffix(d.text, []byte("\n")), []byte("\n"))
	lines[len(lines)-1] = append(lines[len(lines)-1], '\n')
	join := func(l [][]byte) []byte { return bytes.Join(l, nil) }
	for i := range lines {
		report := d.found(fmt.Sprintf("without line %d", i+1), join(slices.Delete(slices.Clone(lines), i, i+1)))
		if i > 0 && i < len(lines)-1 && !strings.Contains(report.Faults[0].String(), fmt.Sprintf("audit.log:%d: record %d: the records from %d to %d are missing", i+1, i+2, i+1, i+1)) {
			t.Errorf("without line %d: %v", i+1, report.Faults)
		}
		d.found(fmt.Sprintf("all from line %d on cut off", i+1), join(lines[:i]))
		d.found(fmt.Sprintf("all before line %d cut off", i+2), join(lines[i+1:]))
		for k := range len(lines) + 1 {
			d.found(fmt.Sprintf("line %d repeated before line %d", i+1, k+1), join(slices.Insert(slices.Clone(lines), k, lines[i])))
		}
		for k := range lines[:i] {
			swapped := slices.Clone(lines)
			swapped[i], swapped[k] = swapped[k], swapped[i]
			d.found(fmt.Sprintf("lines %d and %d swapped", k+1, i+1), join(swapped))
		}
	}
}

// Who can write the file can rehash a changed record. That
// shows in the next record; and if all of those are rehashed, in the
// checkpoint.
func TestVerifyFindsWhatWasRehashed(t *testing.T) {
	d := newDamaged(t, 6)
	records := d.records()
	for from := range records {
		for to := from + 1; to <= len(records); to++ {
			var text []byte
			prev := ""
			for i, r := range records {
				if i == from {
					r.Actor.ID = "somebody-else"
				}
				if i > from && i < to {
					r.Prev = prev
				}
				text = audit.AppendLine(text, &r)
				prev = r.Hash
			}
			d.found(fmt.Sprintf("record %d changed and hashed anew up to %d", from+1, to), text)
		}
	}
}

func TestVerifyFindsAMissingFile(t *testing.T) {
	w := newWorld(t)
	w.o.MaxBytes = 4000
	w.fill(40)
	c := w.checkpoint()
	report := w.soundUpTo(c)
	if len(report.Files) < 4 || report.First != 1 {
		t.Fatalf("%d files from record %d on", len(report.Files), report.First)
	}
	for i, name := range report.Files {
		path := filepath.Join(filepath.Dir(w.path), name)
		away := path + ".away"
		if err := os.Rename(path, away); err != nil {
			t.Fatal(err)
		}
		switch report := w.verify(c); {
		case i == 0 && (!report.Sound() || report.First == 1):
			t.Errorf("without the oldest file: from record %d on: %v", report.First, report.Faults)
		case i > 0 && report.Sound():
			t.Errorf("without %s nothing was found", name)
		}
		if err := os.Rename(away, path); err != nil {
			t.Fatal(err)
		}
	}
	w.soundUpTo(c)
}

func TestVerifyReadsWhatLogrotateLeaves(t *testing.T) {
	w := newWorld(t)
	w.o.MaxBytes = 4000
	w.fill(40)
	report := w.sound()
	for i, name := range report.Files[:len(report.Files)-1] {
		path := filepath.Join(filepath.Dir(w.path), name)
		left := w.path + []string{".9", ".1", "-20261123", "-20261122", ".10", ".3", ".4", ".5", ".6", ".7"}[i]
		if i%2 == 0 {
			compress(t, path, left+".gz")
		} else if err := os.Rename(path, left); err != nil {
			t.Fatal(err)
		}
	}
	again := w.soundUpTo(w.checkpoint())
	if again.Records != report.Records || again.LastHash != report.LastHash {
		t.Errorf("%d records, want %d", again.Records, report.Records)
	}
	// While logrotate compresses, both files are there.
	for _, name := range again.Files {
		if plain, ok := strings.CutSuffix(filepath.Join(filepath.Dir(w.path), name), ".gz"); ok {
			if err := os.WriteFile(plain+".gz", []byte("\x1f\x8b half"), 0o600); err != nil {
				t.Fatal(err)
			}
			if report := w.verify(nil); report.Sound() {
				t.Error("half a compressed file was taken for sound")
			}
			break
		}
	}
}

func compress(t testing.TB, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(z.Close(), os.WriteFile(to, b.Bytes(), 0o600), os.Remove(from)); err != nil {
		t.Fatal(err)
	}
}

func TestCheckpointIsHeldAgainstItsKey(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w.o.SigningKey = private
	w.fill(3)
	c := *w.checkpoint()
	verify := func(c audit.Checkpoint) trail.Report {
		report, err := trail.Verify(t.Context(), w.path, trail.VerifyOptions{Checkpoint: &c, PublicKey: public})
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	if report := verify(c); !report.Sound() {
		t.Errorf("the checkpoint that was signed: %v", report.Faults)
	}
	forged := map[string]func(*audit.Checkpoint){
		"node":         func(c *audit.Checkpoint) { c.Node = "node-1\n2" },
		"sequence":     func(c *audit.Checkpoint) { c.Seq-- },
		"hash":         func(c *audit.Checkpoint) { c.Hash = strings.Repeat("a", 64) },
		"time":         func(c *audit.Checkpoint) { c.Time = c.Time.Add(time.Second) },
		"no signature": func(c *audit.Checkpoint) { c.Signature = nil },
	}
	for what, forge := range forged {
		other := c
		forge(&other)
		if report := verify(other); report.Sound() {
			t.Errorf("another %s was taken for signed", what)
		}
	}
}

// However many files a trail has and at any place of damage, all faults are
// found and none is imagined.
func TestVerifyFindsRandomDamage(t *testing.T) {
	w := newWorld(t)
	w.o.MaxBytes = 6000
	w.fill(60)
	report := w.soundUpTo(w.checkpoint())
	c := w.checkpoint()
	rapid.Check(t, func(r *rapid.T) {
		path := filepath.Join(filepath.Dir(w.path), rapid.SampledFrom(report.Files).Draw(r, "file"))
		sound, err := os.ReadFile(path)
		if err != nil {
			r.Fatal(err)
		}
		from := rapid.IntRange(0, len(sound)-1).Draw(r, "from")
		to := rapid.IntRange(from, min(len(sound), from+2000)).Draw(r, "to")
		with := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(r, "with")
		changed := slices.Concat(sound[:from], with, sound[to:])
		if bytes.Equal(changed, sound) {
			return
		}
		if len(changed) == 0 {
			return // as if the file were missing, which has a test of its own
		}
		if err := os.WriteFile(path, changed, 0o600); err != nil {
			r.Fatal(err)
		}
		got := w.verify(c)
		if err := os.WriteFile(path, sound, 0o600); err != nil {
			r.Fatal(err)
		}
		if got.Sound() {
			r.Fatalf("%s with bytes %d to %d replaced by %q was taken for sound", path, from, to, with)
		}
	})
	w.soundUpTo(c)
}

func TestVerifyEndsWithItsContext(t *testing.T) {
	w := newWorld(t)
	w.fill(1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := trail.Verify(ctx, w.path, trail.VerifyOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkVerify(b *testing.B) {
	w := newWorld(b)
	var text []byte
	r := audit.Record{V: 1, Time: time.Now(), ID: "0198f0aa-7d1c-7000-8000-000000000000", Node: "node-1", Stage: audit.Result, Prev: strings.Repeat("0", 64)}
	e := change("policy.put")
	r.Category, r.Action, r.Outcome, r.Reason, r.Actor, r.Src, r.Target = e.Category, e.Action, e.Outcome, e.Reason, e.Actor, e.Source, e.Target
	r.RequestID, r.TraceID, r.Before, r.After = e.RequestID, e.TraceID, e.Before, e.After
	for len(text) < 64<<20 {
		r.Seq++
		text = audit.AppendLine(text, &r)
		r.Prev = r.Hash
	}
	if err := os.WriteFile(w.path, text, 0o600); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if report := w.sound(); report.Records != r.Seq {
			b.Fatal(report.Records)
		}
	}
	b.ReportMetric(float64(len(text))/float64(r.Seq), "B/record")
}
