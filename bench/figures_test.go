package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var benchmark = regexp.MustCompile(`(?m)^func Benchmark(\w+)\(b \*testing\.B\)`)

// A run takes minutes until it misses a benchmark that has moved.
func TestEachFigureHasItsBenchmark(t *testing.T) {
	for _, s := range sections() {
		files, err := filepath.Glob(filepath.Join("..", s.pkg, "*_test.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no tests in %s: %v", s.name, s.pkg, err)
		}
		there := map[string]bool{}
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, found := range benchmark.FindAllStringSubmatch(string(text), -1) {
				there[found[1]] = true
			}
		}
		chosen := regexp.MustCompile(s.bench)
		for _, f := range s.figures {
			for _, of := range []string{f.bench, f.base} {
				name, _, _ := strings.Cut(of, "/")
				if of != "" && (!there[name] || !chosen.MatchString("Benchmark"+name)) {
					t.Errorf("%s: %q needs Benchmark%s of %s, which does not run", s.name, f.what, name, s.pkg)
				}
			}
		}
	}
}
