package boltstore_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"headway/internal/boltstore"
	"headway/internal/fleet"
)

func newLines(r io.Reader) *bufio.Scanner { return bufio.NewScanner(r) }

func export(t testing.TB, path string) string {
	t.Helper()
	var out bytes.Buffer
	if err := boltstore.Export(t.Context(), path, &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestAnExportMakesTheSameState(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), "from.db"), filepath.Join(t.TempDir(), "to.db")
	heads, policies := fill(t, from, 60)
	out := export(t, from)
	if err := boltstore.Import(t.Context(), strings.NewReader(out), to); err != nil {
		t.Fatal(err)
	}
	if report, err := boltstore.Check(to); err != nil || len(report.Faults) > 0 {
		t.Fatalf("the imported file: %v, %v", report.Faults, err)
	}
	s := open(t, to)
	gotHeads, gotPolicies, err := contents(s)
	if err != nil {
		t.Fatal(err)
	}
	for i := range gotHeads {
		gotHeads[i].Revision = heads[i].Revision // the file's own
	}
	if !reflect.DeepEqual(gotHeads, heads) || !reflect.DeepEqual(gotPolicies, policies) {
		t.Errorf("%d heads and %d policies came back, not those that were exported", len(gotHeads), len(gotPolicies))
	}
	if first, err := s.GrantEpochs(t.Context(), 1); err != nil || first <= 1<<16 {
		t.Errorf("epochs go on at %d, error %v; 65,536 had been granted", first, err)
	}
}

func TestImportRefuses(t *testing.T) {
	from := filepath.Join(t.TempDir(), "from.db")
	fill(t, from, 3)
	good := export(t, from)
	lines := strings.SplitAfter(strings.TrimSuffix(good, "\n"), "\n")
	without := func(i int) string { return strings.Join(append(append([]string{}, lines[:i]...), lines[i+1:]...), "") }
	for name, c := range map[string]struct{ in, says string }{
		"nothing":                {"", "line 1: the export ends"},
		"another file":           {"{}\n", "line 1: this is no export"},
		"no JSON":                {"hello\n", "line 1: not as an export has it at byte 0"},
		"an unknown member":      {strings.Replace(good, `"version"`, `"x":1,"version"`, 1), "line 1: not as an export has it at /x"},
		"a newer version":        {strings.Replace(good, `"version":1`, `"version":2`, 1), "newer headway"},
		"a missing end":          {strings.Join(lines[:len(lines)-1], ""), "it was cut"},
		"a missing head":         {without(1), "changed or cut"},
		"a changed head":         {strings.Replace(good, "10.0.0.1", "10.0.0.9", 1), "changed or cut"},
		"something after":        {good + "\n{}\n", "something follows"},
		"no version":             {strings.Replace(good, `"version":1,`, "", 1), "line 1: this is no export"},
		"impossible epochs":      {strings.Replace(good, `"epochs":65536`, `"epochs":18446744073709551615`, 1), "line 1: no headway grants"},
		"a head twice":           {closed(lines[0] + lines[1] + lines[1]), "another revision"},
		"a head without an id":   {closed(lines[0] + strings.Replace(lines[1], `"id":"head-000000"`, `"id":""`, 1)), "line 2: a head's id has"},
		"an unknown admin state": {closed(lines[0] + strings.Replace(lines[1], `"state":0`, `"state":9`, 1)), "line 2: admin state 9"},
		"a policy twice":         {closed(lines[0] + lines[4] + lines[4]), "line 3: "},
		"a policy revision of 0": {closed(lines[0] + strings.Replace(lines[4], `"revision":1`, `"revision":0`, 1)), "line 2: no policy has revision 0"},
		"two in one line":        {closed(lines[0] + strings.Replace(lines[1], "{", `{"epochs":1,`, 1)), "line 2: it is not one head"},
		"a long line after":      {good + strings.Repeat(" ", 5<<20), "something follows"},
		"a line that is nothing": {lines[0] + "{}\n", "line 2: it is not one head, one policy, one key or the end"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			err := boltstore.Import(t.Context(), strings.NewReader(c.in), filepath.Join(dir, "to.db"))
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("it left %v", left)
			}
		})
	}
	t.Run("an existing file", func(t *testing.T) {
		before, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := boltstore.Import(t.Context(), strings.NewReader(good), from); err == nil || !strings.Contains(err.Error(), "exists") {
			t.Errorf("got %v", err)
		}
		if after, _ := os.ReadFile(from); !bytes.Equal(before, after) {
			t.Error("the file changed")
		}
	})
}

// FuzzImport feeds the reader of exports: any input ends with a state
// that is sound and exports as it was read, or with an error and no file. So
// that not all ends at the checksum, closing adds the closing line that fits.
func FuzzImport(f *testing.F) {
	from := filepath.Join(f.TempDir(), "from.db")
	fill(f, from, 2)
	good := export(f, from)
	f.Add(good, false)
	f.Add(good[:strings.Index(good, `{"end"`)], true)
	f.Fuzz(func(t *testing.T, in string, closing bool) {
		if closing {
			in = closed(in)
		}
		path := filepath.Join(t.TempDir(), "to.db")
		if err := boltstore.Import(t.Context(), strings.NewReader(in), path); err != nil {
			if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) > 0 {
				t.Errorf("it left %v, error %v", left, err)
			}
			return
		}
		if report, err := boltstore.Check(path); err != nil || len(report.Faults) > 0 {
			t.Fatalf("accepted, and the file is not sound: %q, %v", report.Faults, err)
		}
		out := export(t, path)
		again := filepath.Join(t.TempDir(), "again.db")
		if err := boltstore.Import(t.Context(), strings.NewReader(out), again); err != nil {
			t.Fatalf("its own export is refused: %v", err)
		}
		if twice := export(t, again); records(twice) != records(out) {
			t.Errorf("exported\n%s\nand after an import\n%s", out, twice)
		}
		for _, h := range must(boltstore.Open(again, boltstore.Options{}))(t) {
			_ = h.Admin.State.String() // has a name
		}
	})
}

// must reads the heads of a store that was just opened and closes it.
func must(s *boltstore.Store, err error) func(*testing.T) []fleet.Record {
	return func(t *testing.T) []fleet.Record {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		heads, _, err := contents(s)
		if err := errors.Join(err, s.Close()); err != nil {
			t.Fatal(err)
		}
		return heads
	}
}

// records are the lines of an export between the first, which has the time, and
// the last, which has a checksum over it.
func records(export string) string {
	_, rest, _ := strings.Cut(export, "\n")
	return rest[:strings.LastIndex(rest, `{"end"`)]
}

// closed appends the closing line of an export.
func closed(lines string) string {
	if !strings.HasSuffix(lines, "\n") {
		lines += "\n"
	}
	return fmt.Sprintf(`%s{"end":{"heads":%d,"policies":%d,"sha256":"%x"}}`+"\n", lines,
		strings.Count(lines, "{\"head\":"), strings.Count(lines, "{\"policy\":"), sha256.Sum256([]byte(lines)))
}
