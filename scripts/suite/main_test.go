package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// module makes a module with one package whose tests are text.
func module(t *testing.T, tests string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":          "module house\n\ngo 1.26\n",
		"tiny/tiny.go":    "package tiny\n",
		"tiny/my_test.go": "package tiny\n\nimport \"testing\"\n\n" + tests,
	} {
		name = filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
}

func TestASkipThatIsOnNoListFails(t *testing.T) {
	module(t, `func TestFine(t *testing.T) { t.Log("chatter") }
func TestPrograms(t *testing.T) { t.Skip("promtool is missing; get it with: apt-get install -y --no-install-recommends prometheus") }
func TestParts(t *testing.T) {
	t.Run("one", func(t *testing.T) { t.Skip("node is missing; get it with: apt-get install -y nodejs npm") })
	t.Run("two", func(t *testing.T) {})
}
`)
	listed := filepath.Join(t.TempDir(), "skips.txt")
	if err := os.WriteFile(listed, []byte("# a list\n\ntiny TestPrograms wants a program\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err := run(t.Context(), &out, listed, true, []string{"-count=1", "./..."})
	if err == nil || !strings.Contains(err.Error(), "tiny TestParts") || strings.Contains(err.Error(), "TestPrograms") {
		t.Errorf("the run ended with %v; want an error that names TestParts alone", err)
	}
	for _, want := range []string{
		"ok  \thouse/tiny",
		"skipped: TestPrograms in tiny: promtool is missing",
		"skipped: TestParts/one in tiny: node is missing",
		"get them with: apt-get install -y --no-install-recommends nodejs npm prometheus\n",
		"\ntests: 2 passed, 0 failed, 2 skipped\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "chatter") {
		t.Error("what a passing test prints is printed")
	}
	if err := run(t.Context(), &out, listed, false, []string{"./..."}); err != nil {
		t.Errorf("outside CI a skip fails the run: %v", err)
	}
}

func TestFailuresArePrinted(t *testing.T) {
	for name, c := range map[string]struct{ tests, want string }{
		"an error":       {`func TestBad(t *testing.T) { t.Error("seven is not eight") }`, "seven is not eight"},
		"a panic":        {`func TestBad(t *testing.T) { panic("all is lost") }`, "all is lost"},
		"the compiler":   {`func TestBad(t *testing.T) { nowhere() }`, "undefined: nowhere"},
		"the test's end": {"func TestMain(*testing.M) { println(\"gone at once\"); panic(1) }", "gone at once"},
		"a deadline":     {"func TestBad(t *testing.T) { select {} }", "TestBad"},
	} {
		module(t, c.tests)
		var out bytes.Buffer
		err := run(t.Context(), &out, "", false, []string{"-timeout=2s", "./..."})
		if err == nil || !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: the run ended with %v and printed\n%s\nwant %q", name, err, out.String(), c.want)
		}
	}
}

func TestTheListNeedsReasons(t *testing.T) {
	list := filepath.Join(t.TempDir(), "skips.txt")
	if err := os.WriteFile(list, []byte("tiny TestX why\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readSkips(list); err == nil || !strings.Contains(err.Error(), "skips.txt:1") {
		t.Errorf("a line without a reason: %v", err)
	}
	if _, err := readSkips("skips.txt"); err != nil {
		t.Error(err)
	}
}

// What crashed is no test: the package runs once more, and its tests count once.
func TestACrashOfTheRaceDetectorIsNoFailure(t *testing.T) {
	const crash = `
	os.Stderr.WriteString("ThreadSanitizer: CHECK failed: tsan_rtl.cpp:346 \"((exiting)) != (0)\" (0x0, 0x0) (tid=1)\n")
	os.Exit(66)
}
`
	const once = `func TestFine(t *testing.T) {}
func TestMore(t *testing.T) {
	if _, err := os.Stat("was.here"); err == nil {
		return
	}
	os.WriteFile("was.here", nil, 0o600)`
	for name, c := range map[string]struct{ tests, last string }{
		"once":                  {once + crash, "tests: 2 passed, 0 failed, 0 skipped\n"},
		"each time":             {"func TestFine(t *testing.T) {}\nfunc TestMore(t *testing.T) {" + crash, "tests: 0 passed, 0 failed, 0 skipped\n"},
		"beside a failing test": {"func TestBad(t *testing.T) { t.Error(1) }\n" + once + crash, "tests: 1 passed, 1 failed, 0 skipped\n"},
	} {
		t.Run(name, func(t *testing.T) {
			module(t, "import \"os\"\n\n"+c.tests)
			var out bytes.Buffer
			err := run(t.Context(), &out, "", true, []string{"-count=1", "./..."})
			if (err == nil) != (name == "once") || !strings.HasSuffix(out.String(), c.last) {
				t.Errorf("the run ended with %v and\n%s", err, out.String())
			}
			if again := strings.Count(out.String(), "in house/tiny: once more."); again != map[bool]int{true: 0, false: 1}[name == "beside a failing test"] {
				t.Errorf("it ran again %d times:\n%s", again, out.String())
			}
		})
	}
}
