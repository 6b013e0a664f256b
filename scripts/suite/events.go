package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

type event struct {
	Action     string
	Package    string
	ImportPath string // of a build
	Test       string
	Output     string
}

// suite is the state after the events so far.
type suite struct {
	out            io.Writer
	packages       map[string]*pkg
	passed, failed int
	skipped        []skipped
	broken         int      // packages that failed
	crashed        []string // those of them in which the race detector did, and no test
}

// pkg holds the output of tests until they end.
type pkg struct {
	order []string // of the tests, "" for the package itself
	text  map[string][]string
	ended map[string]string // action
}

type skipped struct{ pkg, test, reason string }

func (s *suite) read(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil { //nolint:forbidigo // go test's own
			fmt.Fprintln(s.out, lines.Text()) // not of go test -json
			continue
		}
		s.take(e)
	}
	return lines.Err()
}

func (s *suite) take(e event) {
	if e.Package == "" {
		fmt.Fprint(s.out, e.Output) // of the compiler
		return
	}
	p := s.packages[e.Package]
	if p == nil {
		p = &pkg{text: map[string][]string{}, ended: map[string]string{}}
		s.packages[e.Package] = p
	}
	switch e.Action {
	case "output":
		if p.text[e.Test] == nil {
			p.order = append(p.order, e.Test)
		}
		p.text[e.Test] = append(p.text[e.Test], e.Output)
	case "pass", "fail", "skip":
		p.ended[e.Test] = e.Action
		if e.Test == "" {
			s.finish(e.Package, e.Action)
			return
		}
		s.count(e, p)
	}
}

func (s *suite) count(e event, p *pkg) {
	top := !strings.Contains(e.Test, "/")
	switch {
	case e.Action == "skip":
		s.skipped = append(s.skipped, skipped{e.Package, e.Test, reason(p.text[e.Test])})
	case e.Action == "fail" && top:
		s.failed++
	case e.Action == "pass" && top:
		s.passed++
	}
	if e.Action != "fail" {
		p.text[e.Test] = p.text[e.Test][:0]
	}
}

// finish prints a package's line and, if it failed, all output but that of
// passed tests. A test without an end is the cause.
func (s *suite) finish(name, action string) {
	p := s.packages[name]
	delete(s.packages, name)
	if action == "fail" {
		s.broken++
		if p.crashed() {
			s.crashed = append(s.crashed, name)
			s.passed -= p.passed()
			s.skipped = slices.DeleteFunc(s.skipped, func(k skipped) bool { return k.pkg == name })
		}
		for _, test := range p.order {
			if test != "" {
				fmt.Fprint(s.out, strings.Join(p.text[test], ""))
			}
		}
		fmt.Fprint(s.out, strings.Join(p.text[""], ""))
		return
	}
	for _, line := range p.text[""] {
		if line != "PASS\n" && strings.Contains(line, name) {
			fmt.Fprint(s.out, line)
		}
	}
}

// crashed reports whether the runtime of the race detector gave up, and not a test. It
// does so now and then in processes of many goroutines, on a check of its own.
func (p *pkg) crashed() bool {
	said := false
	for test, text := range p.text {
		if p.ended[test] == "fail" && test != "" && !slices.ContainsFunc(text, crash) {
			return false
		}
		said = said || slices.ContainsFunc(text, crash)
	}
	return said
}

// crash reports whether a line is the last word of that runtime. Faults of Go's own code
// begin with "panic:" or "fatal error:".
func crash(line string) bool {
	return strings.HasPrefix(line, "ThreadSanitizer: CHECK failed") || strings.HasPrefix(line, "SIGSEGV: segmentation violation")
}

// passed counts the tests that passed.
func (p *pkg) passed() (n int) {
	for test, action := range p.ended {
		if action == "pass" && test != "" && !strings.Contains(test, "/") {
			n++
		}
	}
	return n
}

// reason is what a skipped test printed, without the file and line.
func reason(text []string) string {
	var said []string
	for _, line := range text {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "===") || strings.HasPrefix(line, "---") {
			continue
		}
		if _, after, found := strings.Cut(line, ".go:"); found {
			if _, words, found := strings.Cut(after, ": "); found {
				line = words
			}
		}
		said = append(said, line)
	}
	if len(said) == 0 {
		return "no reason is given"
	}
	return strings.Join(said, " ")
}
