package main

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// write makes a module of files in a directory of its own.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files["go.mod"] = "module planted\n\ngo 1.26.0\n"
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Faults that are planted in files for another system are found, those of types
// and those that only go vet's analyzers know; sound files have none.
func TestPlantedFaultsAreFound(t *testing.T) {
	other := "darwin"
	if runtime.GOOS == other {
		other = "linux"
	}
	for name, c := range map[string]struct{ name, text, want string }{
		"sound":             {"a_" + other + ".go", "package a\n\nimport \"fmt\"\n\nfunc F() { fmt.Printf(\"%d\", 1) }\n", ""},
		"a fault of types":  {"a_" + other + ".go", "package a\n\nvar N int = \"1\"\n", "cannot use"},
		"a wrong format":    {"a_" + other + ".go", "package a\n\nimport \"fmt\"\n\nfunc F() { fmt.Printf(\"%d\", \"1\") }\n", "Printf format %d has arg"},
		"a copied lock":     {"a_other.go", "//go:build " + other + "\n\npackage a\n\nimport \"sync\"\n\nfunc F(m sync.Mutex) { m.Lock() }\n", "passes lock by value"},
		"a test of it":      {"a_" + other + "_test.go", "package a\n\nimport \"testing\"\n\nfunc Testa(t *testing.T) {}\n", "malformed name"},
		"its own formatter": {"a_" + other + ".go", "package a\n\nimport \"fmt\"\n\nfunc f(s string, a ...any) { fmt.Printf(s, a...) }\n\nfunc F() { f(\"%s\") }\n", "call has 0 args"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, map[string]string{"a.go": "package a\n", c.name: c.text})
			var said strings.Builder
			err := check(&said, dir, other)
			if (err == nil) != (c.want == "") || !strings.Contains(said.String(), c.want) {
				t.Errorf("error %v, said %s", err, &said)
			}
			if c.want != "" && !strings.Contains(said.String(), c.name+":") {
				t.Errorf("does not name %s: %s", c.name, &said)
			}
		})
	}
}

// The analyzers are those of this version's go vet.
func TestTheAnalyzersAreThoseOfVet(t *testing.T) {
	source, err := os.ReadFile(filepath.Join(runtime.GOROOT(), "src", "cmd", "vet", "main.go"))
	if err != nil {
		t.Skip("this Go has no sources:", err)
	}
	var want, got []string
	for _, m := range regexp.MustCompile(`"golang.org/x/tools/go/analysis/passes/(\w+)"`).FindAllStringSubmatch(string(source), -1) {
		want = append(want, m[1])
	}
	ours, err := os.ReadFile("suite.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^\t(\w+)\.Analyzer,$`).FindAllStringSubmatch(string(ours), -1) {
		got = append(got, m[1])
	}
	slices.Sort(want)
	slices.Sort(got)
	if len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("analyzers %q, go vet has %q", got, want)
	}
}
