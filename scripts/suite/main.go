// Command suite runs go test with its arguments and prints its output. At the
// end it counts, and names each skipped test, the reason, and how to install a
// missing program. In CI an unlisted skip fails the run. Packages in which the race
// detector itself crashed run a second time.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
)

func main() {
	list := flag.String("skips", "", "file of the tests that may be skipped")
	strict := flag.Bool("strict", os.Getenv("CI") == "true", "fail when a test that is not on the list is skipped")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, *list, *strict, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "make test:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, list string, strict bool, args []string) error {
	allowed, err := readSkips(list)
	if err != nil {
		return err
	}
	s := &suite{out: &shared{w: out}, packages: map[string]*pkg{}}
	err = s.test(ctx, args)
	if again := s.crashed; len(again) > 0 && len(again) == s.broken {
		fmt.Fprintf(s.out, "The race detector crashed, and no test failed, in %s: once more.\n", strings.Join(again, ", "))
		s.crashed, s.broken = nil, 0
		args = slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return strings.HasPrefix(arg, ".") })
		err = s.test(ctx, append(args, again...))
	}
	if err != nil {
		s.summary()
		return fmt.Errorf("%w; what failed is above", err)
	}
	unlisted := s.report(allowed)
	if len(unlisted) > 0 && strict {
		return fmt.Errorf("skipped, and not in %s with a reason: %s", list, strings.Join(unlisted, ", "))
	}
	return nil
}

// test runs go test with the arguments.
func (s *suite) test(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = s.out
	events, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	read := s.read(events)
	return errors.Join(read, cmd.Wait())
}

// shared allows concurrent writes of go test's output and errors.
type shared struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

type skip struct{ pkg, test string }

// readSkips reads lines of a package path, a test and the reason.
func readSkips(name string) (map[skip]bool, error) {
	allowed := map[skip]bool{}
	if name == "" {
		return allowed, nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 4 {
			return nil, fmt.Errorf("%s:%d: want a package, a test and the reason in words: %q", name, n, line)
		}
		allowed[skip{fields[0], fields[1]}] = true
	}
	return allowed, lines.Err()
}

// report names the skipped tests, and returns the unlisted ones.
func (s *suite) report(allowed map[skip]bool) (unlisted []string) {
	var missing []string
	for _, k := range s.skipped {
		_, short, _ := strings.Cut(k.pkg, "/")
		fmt.Fprintf(s.out, "skipped: %s in %s: %s\n", k.test, short, k.reason)
		top, _, _ := strings.Cut(k.test, "/")
		if !allowed[skip{short, top}] {
			unlisted = append(unlisted, short+" "+top)
		}
		for _, m := range debian.FindAllStringSubmatch(k.reason, -1) {
			missing = append(missing, strings.Fields(m[1])...)
		}
	}
	slices.Sort(missing)
	if missing = slices.Compact(missing); len(missing) > 0 {
		fmt.Fprintf(s.out, "skipped tests need programs; get them with: apt-get install -y --no-install-recommends %s\n", strings.Join(missing, " "))
	}
	s.summary()
	return slices.Compact(unlisted)
}

// debian matches the packages in a reason.
var debian = regexp.MustCompile(`apt-get install (?:-\S+ )*((?:[a-z0-9][a-z0-9.+-]*(?: |$))+)`)

// summary prints the last line, which programs read too.
func (s *suite) summary() {
	fmt.Fprintf(s.out, "tests: %d passed, %d failed, %d skipped\n", s.passed, s.failed, len(s.skipped))
}
