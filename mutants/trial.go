package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// outcome is the result of one change.
type outcome int

const (
	noticed  outcome = iota // a named test failed
	hung                    // a named test did not end in its time
	survived                // all named tests passed, or none is named
	invalid                 // the entry says nothing about the tests
)

type result struct {
	change
	outcome outcome
	why     string
}

// trial runs the changes, each in a test binary of its own.
type trial struct {
	options
	dir string // for binaries and overlays

	base map[test]time.Duration // what the tests take without any change

	mu   sync.Mutex // guards out and done
	out  io.Writer
	done int
}

// all runs the tests without a change first: a test that is missing, skipped or
// failing would notice everything or nothing.
func (t *trial) all(ctx context.Context, chosen changes) ([]result, error) {
	began := time.Now()
	broken, err := t.unchanged(ctx, chosen)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(t.out, "%d changes; their tests pass without them (%s)\n", len(chosen), time.Since(began).Round(time.Second))
	results := make([]result, len(chosen))
	t.each(len(chosen), func(i int) {
		c, start := chosen[i], time.Now()
		r := result{change: c}
		if reason := broken[c.tests]; reason != "" {
			r.outcome, r.why = invalid, reason
		} else {
			r.outcome, r.why = t.try(ctx, i, c)
		}
		results[i] = r
		t.say(len(chosen), r, time.Since(start))
	})
	return results, ctx.Err()
}

// each calls work for 0 to n-1, at most so many at once as there are workers.
func (t *trial) each(n int, work func(i int)) {
	slots := make(chan struct{}, max(1, t.workers))
	var working sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		working.Go(func() { work(i); <-slots })
	}
	working.Wait()
}

func (t *trial) say(total int, r result, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done++
	words := map[outcome]string{noticed: "noticed", hung: "noticed by a hang", survived: "NOT NOTICED", invalid: "ERROR"}
	fmt.Fprintf(t.out, "%3d/%d %s: %s: %s (%s)", t.done, total, r.room, r.title, words[r.outcome], took.Round(100*time.Millisecond))
	if r.why != "" {
		fmt.Fprintf(t.out, ": %s", r.why)
	}
	fmt.Fprintln(t.out)
}

// unchanged runs all named tests of a package in one binary without a change,
// and returns the faults by set of tests.
func (t *trial) unchanged(ctx context.Context, chosen changes) (map[test]string, error) {
	wanted := map[string][]test{}
	for _, c := range chosen {
		if c.unnoticed == "" && !slices.Contains(wanted[c.tests.pkg], c.tests) {
			wanted[c.tests.pkg] = append(wanted[c.tests.pkg], c.tests)
		}
	}
	packages := slices.Sorted(maps.Keys(wanted))
	broken := map[test]string{}
	errs := make([]error, len(packages))
	t.each(len(packages), func(i int) {
		pkg := packages[i]
		binary := filepath.Join(t.dir, fmt.Sprintf("unchanged-%d.test", i))
		defer func() { _ = os.Remove(binary) }()
		if out, err := t.compile(ctx, pkg, "", binary); err != nil {
			errs[i] = fmt.Errorf("%s does not compile without a change: %w\n%s", pkg, err, out)
			return
		}
		names := make([]string, 0, len(wanted[pkg]))
		for _, w := range wanted[pkg] {
			names = append(names, w.names)
		}
		// Failures show in the output; the set of each change is judged alone.
		out, _, _ := t.start(ctx, test{pkg, strings.Join(names, "|")}, binary, "", 10*time.Minute)
		took := passed(out)
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, w := range wanted[pkg] {
			for name := range strings.SplitSeq(w.names, "|") {
				if d, ok := took[top(name)]; ok {
					t.base[w] += d
				} else {
					broken[w] = fmt.Sprintf("%s does not pass without the change: it fails, is skipped, or %s has no such test%s", name, pkg, failing(out, top(name)))
				}
			}
		}
	})
	return broken, errors.Join(errs...)
}

var passLine = regexp.MustCompile(`(?m)^--- PASS: (\w+) \(([0-9.]+)s\)$`)

func passed(out []byte) map[string]time.Duration {
	took := map[string]time.Duration{}
	for _, m := range passLine.FindAllSubmatch(out, -1) {
		seconds, err := strconv.ParseFloat(string(m[2]), 64)
		if err == nil {
			took[string(m[1])] = time.Duration(seconds * float64(time.Second))
		}
	}
	return took
}

// failing is the output of a failed test, shortened.
func failing(out []byte, name string) string {
	_, rest, found := bytes.Cut(out, []byte("\n=== RUN   "+name+"\n"))
	if !found {
		return ""
	}
	return "\n" + string(rest[:min(len(rest), 2000)])
}

func (t *trial) try(ctx context.Context, i int, c change) (outcome, string) {
	text, err := c.apply(t.root)
	if err != nil {
		return invalid, err.Error()
	}
	changed := filepath.Join(t.dir, fmt.Sprintf("%d.go", i))
	overlay := filepath.Join(t.dir, fmt.Sprintf("%d.json", i))
	binary := filepath.Join(t.dir, fmt.Sprintf("%d.test", i))
	defer func() { _ = os.Remove(binary) }()
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(t.root, filepath.FromSlash(c.file)): changed}})
	if err == nil {
		err = errors.Join(os.WriteFile(changed, text, 0o600), os.WriteFile(overlay, replace, 0o600))
	}
	if err != nil {
		return invalid, err.Error()
	}
	if out, err := t.compile(ctx, c.tests.pkg, overlay, binary); err != nil {
		return invalid, "with the change it does not compile:\n" + string(out)
	}
	if c.unnoticed != "" {
		return survived, c.unnoticed
	}
	out, late, err := t.start(ctx, c.tests, binary, overlay, max(t.least, 10*t.base[c.tests]))
	switch {
	case late:
		return hung, ""
	case err == nil:
		return survived, "passed: " + c.tests.names
	case !bytes.Contains(out, []byte("--- FAIL: ")) && !bytes.Contains(out, []byte("panic: ")) && !bytes.Contains(out, []byte("fatal error: ")):
		return invalid, fmt.Sprintf("the tests ended without a failure of their own: %v\n%s", err, out)
	}
	return noticed, ""
}

func (t *trial) compile(ctx context.Context, pkg, overlay, binary string) ([]byte, error) {
	args := []string{"test", "-c", "-vet=off", "-ldflags=-s -w", "-o", binary}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir = t.root
	return cmd.CombinedOutput()
}

// start runs tests of a binary in their package's directory. A test that builds
// gets the change through GOFLAGS. The process group ends with the test, or
// with the timeout.
func (t *trial) start(ctx context.Context, what test, binary, overlay string, limit time.Duration) (out []byte, late bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.v", "-test.failfast="+strconv.FormatBool(overlay != ""), "-test.run", what.pattern())
	cmd.Dir = filepath.Join(t.root, filepath.FromSlash(what.pkg))
	cmd.Env = os.Environ()
	if overlay != "" {
		cmd.Env = append(cmd.Env, "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -overlay="+overlay))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	group := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel, cmd.WaitDelay = group, 5*time.Second
	var kept tail
	cmd.Stdout, cmd.Stderr = &kept, &kept
	if err = cmd.Start(); err != nil {
		return nil, false, err
	}
	err = cmd.Wait()
	_ = group() // what the tests left running
	return kept.text, errors.Is(ctx.Err(), context.DeadlineExceeded), err
}

// tail bounds the output of a test, which a change may make endless.
type tail struct{ text []byte }

func (w *tail) Write(p []byte) (int, error) {
	const most = 4 << 20
	w.text = append(w.text, p...)
	if len(w.text) > 2*most {
		w.text = slices.Clone(w.text[len(w.text)-most:])
	}
	return len(p), nil
}
