package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The programs that sections load are parts of this binary.
func TestMain(m *testing.M) {
	if len(os.Args) < 3 || os.Args[1] != as {
		os.Exit(m.Run())
	}
	if os.Args[2] == serviceAs {
		if err := serveProfiled(os.Args[4], os.Args[5:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	target := ""
	if len(os.Args) == 5 {
		target = os.Args[4]
	}
	fmt.Fprintln(os.Stderr, serveAs(os.Args[2], target))
	os.Exit(1)
}

// Each section of the data plane runs once, with few requests.
func TestEachFigureOfTheDataPlaneIsMeasured(t *testing.T) {
	t.Chdir("..")
	program, err := build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	*binary = program
	for _, s := range dataPlane(scale{whole: 24, streams: 24, paced: 4, prompts: 24, many: 4, open: 4, pace: 50}) {
		t.Run(s.name, func(t *testing.T) {
			got, err := s.measured(t.Context(), 1)
			if err != nil {
				t.Fatal(err)
			}
			if err := report(t.Output(), s, got); err != nil {
				t.Error(err)
			}
		})
	}
}

// The compiler gets what go tool pprof reads, of the service at work.
func TestAProfileIsOfTheService(t *testing.T) {
	file := filepath.Join(t.TempDir(), "serve.pgo")
	if err := profile(t.Context(), file, 2000); err != nil {
		t.Fatal(err)
	}
	said, err := exec.CommandContext(t.Context(), "go", "tool", "pprof", "-raw", file).CombinedOutput()
	if err != nil || !strings.Contains(string(said), "headway/internal/proxy.(*Proxy).Serve") {
		t.Errorf("%v: %s", err, said)
	}
}

var benchmark = regexp.MustCompile(`(?m)^func Benchmark(\w+)\(b \*testing\.B\)`)

// A run takes minutes until it misses a benchmark that has moved.
func TestEachFigureHasItsBenchmark(t *testing.T) {
	for _, s := range sections() {
		if s.run != nil {
			continue
		}
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
