package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Every kind of entry is distinguished, and what makes a run fail is named.
func TestARunOverATinyPackage(t *testing.T) {
	var out bytes.Buffer
	err := run(t.Context(), &out, options{root: "testdata/house", workers: 2, least: 2 * time.Second, minTotal: 11, minShare: 85})
	if err == nil {
		t.Fatalf("a run with errors passed:\n%s", out.String())
	}
	for title, want := range map[string]string{
		"seen":                      `noticed \(`,
		"not seen":                  "NOT NOTICED",
		"hangs":                     "noticed by a hang",
		"does not compile":          "ERROR.*does not compile",
		"no such test":              "ERROR.*TestNowhere does not pass without the change",
		"its test is skipped":       "ERROR.*TestSkipped does not pass without the change",
		"its test fails without it": "ERROR.*TestFailing does not pass without the change",
		"said to be unnoticed":      "NOT NOTICED.*it changes nothing",
		"seen by a part":            `noticed \(`,
		"not seen by another part":  "NOT NOTICED",
		"tiny  3/10     30 %":       "1 +4",
		"mutants/tiny.txt:8: inter": "not seen: passed: TestBelow", // the list at the end
	} {
		if !regexp.MustCompile(regexp.QuoteMeta(title) + ".*" + want).Match(out.Bytes()) {
			t.Errorf("%q: no line that goes on with %q in\n%s", title, want, out.String())
		}
	}
	for _, want := range []string{"tiny: 3 of 10", "10 changes; 11 is the least", "internal/ bare"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
}

func TestARunThatPasses(t *testing.T) {
	var out bytes.Buffer
	// A part of the set is not held to the size and the rooms of the whole.
	if err := run(t.Context(), &out, options{root: "testdata/house", room: "tiny", only: "hangs", workers: 1, least: time.Second, minTotal: 9, minShare: 85}); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestEntriesThatAreRefused(t *testing.T) {
	sound := "== title\nfile internal/tiny/tiny.go\n-\treturn n < limit\n+\treturn n <= limit\ntest TestBorder\n"
	for name, c := range map[string]struct{ old, new, want string }{
		"no title":           {"== title", "== ", "needs a title"},
		"another room":       {"internal/tiny/", "internal/bare/", "below internal/tiny/"},
		"no old text":        {"-\treturn n < limit\n", "", "needs the old text"},
		"no change":          {"n <= limit", "n < limit", "the new text is the old"},
		"text that is gone":  {"n < limit", "n < most", "the code has moved on"},
		"text that is twice": {"-\treturn n < limit", "-}", "must stand once"},
		"no tests":           {"test TestBorder\n", "", "either its tests or the reason"},
		"tests and a reason": {"test TestBorder\n", "test TestBorder\nunnoticed why\n", "either its tests or the reason"},
		"no names":           {"TestBorder", "Test*", "no list of tests"},
		"a foreign package":  {"test TestBorder", "test tiny TestBorder", "begins with ./"},
		"two files":          {"test", "file internal/tiny/tiny.go\ntest", "stands twice"},
		"old after new":      {"test", "-}\ntest", "before the new"},
		"outside an entry":   {"test", "\ntest", "belongs to no entry"},
	} {
		root := t.TempDir()
		for file, text := range map[string]string{
			"internal/tiny/tiny.go": "package tiny\n\nfunc Below(n, limit int) bool {\n\treturn n < limit\n}\n\nfunc Not(b bool) bool {\n\treturn !b\n}\n",
			"mutants/tiny.txt":      strings.Replace(sound, c.old, c.new, 1),
		} {
			file = filepath.Join(root, filepath.FromSlash(file))
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := readAll(root); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "mutants/tiny.txt:") {
			t.Errorf("%s: %v; want %q with file and line", name, err, c.want)
		}
	}
}

// The entries of this repository fit its code: each old text stands once, and
// each test exists.
func TestTheSetFitsTheCode(t *testing.T) {
	all, err := readAll("..")
	if err != nil {
		t.Error(err)
	}
	for _, c := range all {
		if c.unnoticed != "" {
			continue
		}
		files, err := filepath.Glob(filepath.Join("..", filepath.FromSlash(c.tests.pkg), "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		var text []byte
		for _, name := range files {
			part, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			text = append(text, part...)
		}
		for name := range strings.SplitSeq(c.tests.names, "|") {
			if !bytes.Contains(text, []byte("\nfunc "+top(name)+"(")) {
				t.Errorf("%s: %s has no test %s", c.at, c.tests.pkg, name)
			}
		}
	}
}
