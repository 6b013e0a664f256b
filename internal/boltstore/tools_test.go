package boltstore_test

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"headway/internal/boltstore"
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
		"a line that is nothing": {lines[0] + "{}\n", "line 2: neither a head, a policy nor the end"},
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

// FuzzImport feeds the reader of exports: whatever comes, it ends with a state
// that is sound, or with an error and no file.
func FuzzImport(f *testing.F) {
	from := filepath.Join(f.TempDir(), "from.db")
	fill(f, from, 2)
	good := export(f, from)
	f.Add(good)
	f.Add(strings.Replace(good, `"head"`, `"policy"`, 1))
	f.Add(good[:len(good)/2])
	f.Add("{}\n")
	f.Add("{\"format\":\"headway-state\",\"version\":1,\"schema\":1}\n{\"head\":{\"spec\":{\"id\":\"\"}}}\n")
	f.Fuzz(func(t *testing.T, in string) {
		path := filepath.Join(t.TempDir(), "to.db")
		err := boltstore.Import(t.Context(), strings.NewReader(in), path)
		report, checked := boltstore.Check(path)
		switch {
		case err != nil && checked == nil:
			t.Errorf("refused (%v), and a file is there", err)
		case err == nil && (checked != nil || len(report.Faults) > 0):
			t.Errorf("accepted, and the file is not sound: %v, %v", report.Faults, checked)
		}
	})
}
