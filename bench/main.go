// Command bench measures what Headway promises, each figure beside its base in
// the same run, and prints a table. Trust the ratios: absolute times vary on a
// shared machine. A missed figure is marked, and the exit code stays 0.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	rounds := flag.Int("rounds", 3, "rounds of each benchmark; the median counts")
	short := flag.Duration("time", 300*time.Millisecond, "time of one benchmark in one round")
	only := flag.String("only", "", "a regular expression on section names")
	part := flag.String(as[1:], "", "be a part of a measurement, for this program itself")
	target := flag.String("target", "", "where that part sends requests, or what it writes")
	profileTo := flag.String("profile", "", "measure no figure, and write to this file where the service's processor time goes, for the compiler")
	flag.Parse()
	if *part == serviceAs {
		if err := serveProfiled(*target, flag.Args()); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if *part != "" {
		fmt.Fprintln(os.Stderr, "bench:", serveAs(*part, *target))
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	var err error
	if *profileTo != "" {
		err = profile(ctx, *profileTo, profiled)
	} else {
		err = run(ctx, *rounds, *short, *only)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// section is a set of benchmarks of one package that run together.
type section struct {
	name    string
	pkg     string
	bench   string                                       // regular expression for go test -bench
	run     func(context.Context, *world, results) error // in place of pkg and bench: one round
	figures []figure
}

// figure is one line of the table, with or without a limit.
type figure struct {
	what  string
	bench string  // name without the Benchmark prefix and the -N suffix
	base  string  // benchmark that it is divided by, "" for none
	unit  string  // ns/op, allocs/op or a unit that the benchmark reports
	scale float64 // printed = measured × scale
	shown string  // unit as printed
	limit float64 // 0: none
	least bool    // limit is a minimum

	may    bool    // be missing: the program is not installed
	allocs float64 // the most allocations; 0: any number
}

func run(ctx context.Context, rounds int, short time.Duration, only string) error {
	want, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("--only: %w", err)
	}
	fmt.Printf("%s, %d processors, %d rounds, medians\n", runtime.Version(), runtime.NumCPU(), rounds)
	for _, s := range sections() {
		if !want.MatchString(s.name) {
			continue
		}
		fmt.Printf("\n%s\n", s.name)
		measured, err := s.measure(ctx, rounds, short)
		if err != nil {
			return err
		}
		if err := report(os.Stdout, s, measured); err != nil {
			return err
		}
	}
	if !want.MatchString(restartSection) {
		return nil
	}
	fmt.Printf("\n%s\n", restartSection)
	return restart(ctx, 100_000)
}

// results are the measured values by benchmark and unit, one per round.
type results map[string]map[string][]float64

var procSuffix = regexp.MustCompile(`-\d+$`)

// measure runs all benchmarks of a section once per round, so that noise
// affects the base as well.
func (s *section) measure(ctx context.Context, rounds int, short time.Duration) (results, error) {
	if s.run != nil {
		return s.measured(ctx, rounds)
	}
	got := results{}
	for range rounds {
		cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", s.bench,
			"-benchtime", short.String(), "-benchmem", s.pkg)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
		}
		parse(got, bytes.NewReader(out))
	}
	return got, nil
}

func parse(got results, out io.Reader) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := procSuffix.ReplaceAllString(strings.TrimPrefix(fields[0], "Benchmark"), "")
		if got[name] == nil {
			got[name] = map[string][]float64{}
		}
		for i := 2; i+1 < len(fields); i += 2 {
			if v, err := strconv.ParseFloat(fields[i], 64); err == nil {
				got[name][fields[i+1]] = append(got[name][fields[i+1]], v)
			}
		}
	}
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

func (r results) value(bench, unit string) (float64, error) {
	values := r[bench][unit]
	if len(values) == 0 {
		return 0, fmt.Errorf("no benchmark %s measured %s", bench, unit)
	}
	return median(values), nil
}

func report(w io.Writer, s section, r results) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight|tabwriter.TabIndent)
	fmt.Fprintln(t, "figure\tmeasured\tto reach\t× base\tallocations\t\t")
	var errs []error
	for _, f := range s.figures {
		if f.may && (r[f.bench] == nil || f.base != "" && r[f.base] == nil) {
			fmt.Fprintf(t, "%s\tnot installed\t\t\t\t\t\n", f.what)
			continue
		}
		v, err := r.value(f.bench, f.unit)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		ratio, mark, reach, allocs := "", "", "", ""
		if f.base != "" {
			times, err := r.ratio(f.bench, f.base, f.unit)
			errs = append(errs, err)
			ratio = fmt.Sprintf("%.2f", times)
			if f.shown == "× base" {
				v = times
			}
		}
		v *= f.scale
		if f.limit > 0 {
			sign := "≤"
			ok := v <= f.limit
			if f.least {
				sign, ok = "≥", v >= f.limit
			}
			reach = fmt.Sprintf("%s %g", sign, f.limit)
			if mark = "reached"; !ok {
				mark = "NOT REACHED"
			}
		}
		if n, err := r.value(f.bench, "allocs/op"); err == nil {
			allocs = fmt.Sprintf("%g", n)
			if f.allocs > 0 && n > f.allocs {
				mark = "NOT REACHED"
			}
		}
		fmt.Fprintf(t, "%s\t%.3g %s\t%s\t%s\t%s\t%s\t\n", f.what, v, f.shown, reach, ratio, allocs, mark)
	}
	return errors.Join(append(errs, t.Flush())...)
}

// ratio is the median of the ratios within each round.
func (r results) ratio(bench, base, unit string) (float64, error) {
	ours, theirs := r[bench][unit], r[base][unit]
	if len(ours) == 0 || len(ours) != len(theirs) {
		return 0, fmt.Errorf("%s and %s measured %d and %d times %s", bench, base, len(ours), len(theirs), unit)
	}
	ratios := make([]float64, len(ours))
	for i := range ours {
		ratios[i] = ours[i] / theirs[i]
	}
	return median(ratios), nil
}
