package trail

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"headway/internal/audit"
)

// rotating is a journal whose file is full after a few records.
func rotating(t *testing.T) (path string, note func(n int)) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "audit.log")
	j, err := audit.Open(audit.Options{Path: path, Node: "n", MaxBytes: 2000, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return path, func(n int) {
		t.Helper()
		for range n {
			j.Happened(audit.Entry{Category: audit.Policy, Action: "policy.put", Outcome: audit.Success, Target: audit.Target{Type: "policy"}})
		}
	}
}

// read returns the sequences of the records that the walk comes to now.
func (w *walk) sequences(t *testing.T) (list []uint64) {
	t.Helper()
	for {
		line, err := w.line()
		if err != nil {
			t.Fatal(err)
		}
		if line == nil {
			return list
		}
		seq, _, _, _ := audit.Inspect(line)
		list = append(list, seq)
	}
}

// rest walks on to the end.
func (w *walk) rest(t *testing.T) (list []uint64) {
	t.Helper()
	for {
		more, err := w.next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return list
		}
		list = append(list, w.sequences(t)...)
	}
}

func upTo(n uint64) (list []uint64) {
	for seq := uint64(1); seq <= n; seq++ {
		list = append(list, seq)
	}
	return list
}

// What comes into a file after it was read, and before it is rotated, is read as
// well, and so are the files that appear meanwhile, under any name
// then.
func TestAWalkMissesNothingThatIsWrittenMeanwhile(t *testing.T) {
	path, note := rotating(t)
	note(2)
	w := &walk{path: path}
	defer w.close()
	if more, err := w.next(t.Context()); err != nil || !more {
		t.Fatal(more, err)
	}
	got := w.sequences(t)
	note(30) // into this file, and others
	got = append(got, w.rest(t)...)
	newest := got[len(got)-1]
	if newest < 33 || !slices.Equal(got, upTo(newest)) {
		t.Errorf("read %v", got)
	}
	if more := w.rest(t); len(more) > 0 {
		t.Errorf("read %v after the end", more)
	}
	note(30)
	files, err := filepath.Glob(path + ".*Z")
	if err != nil {
		t.Fatal(err)
	}
	for i, file := range files {
		if err := os.Rename(file, path+"."+strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	if got = append(got, w.rest(t)...); !slices.Equal(got, upTo(got[len(got)-1])) || got[len(got)-1] < newest+30 {
		t.Errorf("read %v", got)
	}
}

// A file that is renamed between the listing and its opening is found again.
func TestAWalkFindsRenamedFiles(t *testing.T) {
	path, note := rotating(t)
	note(40)
	for _, backward := range []bool{false, true} {
		w := &walk{path: path, backward: backward, before: 1 << 60}
		if more, err := w.next(t.Context()); err != nil || !more {
			t.Fatal(more, err)
		}
		for i, f := range w.left {
			if f.Path == path {
				continue
			}
			if err := os.Rename(f.Path, path+"-2026112"+strconv.Itoa(i)+map[bool]string{true: "1", false: "2"}[backward]); err != nil {
				t.Fatal(err)
			}
		}
		got := append(w.sequences(t), w.rest(t)...)
		slices.Sort(got)
		if len(got) < 40 || !slices.Equal(got, upTo(uint64(len(got)))) {
			t.Errorf("backward %v: read %v", backward, got)
		}
		w.close()
	}
}

// A line that is being written is read once it has its end, and one that is too
// long for a record never.
func TestAWalkReadsALineOnceItIsWhole(t *testing.T) {
	path, note := rotating(t)
	note(1)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	grows := filepath.Join(t.TempDir(), "audit.log")
	write := func(text string) {
		f, err := os.OpenFile(grows, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	write(string(whole[:len(whole)-10]))
	w := &walk{path: grows}
	defer w.close()
	if more, err := w.next(t.Context()); err != nil || !more {
		t.Fatal(more, err)
	}
	if got := w.sequences(t); len(got) != 1 {
		t.Fatalf("read %v", got)
	}
	write(string(whole[len(whole)-10:]))
	if got := w.sequences(t); !slices.Equal(got, []uint64{2}) {
		t.Errorf("read %v", got)
	}
	for range 40 {
		write(string(make([]byte, 100<<10)))
		if got := w.sequences(t); len(got) > 0 || cap(w.begun) > 1<<20 {
			t.Fatalf("read %v, %d bytes are kept", got, cap(w.begun))
		}
	}
	write("\n" + string(whole))
	if got := w.sequences(t); !slices.Equal(got[len(got)-2:], []uint64{1, 2}) {
		t.Errorf("read %v", got)
	}
}
