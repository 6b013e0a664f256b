package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// report prints the share by room, unnoticed changes, and faults of the set.
func report(out io.Writer, o options, results []result, missing []string) error {
	type count [invalid + 1]int // by outcome
	total := func(n *count) int { return n[noticed] + n[hung] + n[survived] + n[invalid] }
	share := func(n *count) int { return 100 * (n[noticed] + n[hung]) / total(n) }
	byRoom, all := map[string]*count{}, &count{}
	for _, r := range results {
		if byRoom[r.room] == nil {
			byRoom[r.room] = &count{}
		}
		byRoom[r.room][r.outcome]++
		all[r.outcome]++
	}

	var errs []error
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nroom\tnoticed\tshare\tby a hang\terrors")
	line := func(room string, n *count) {
		fmt.Fprintf(t, "%s\t%d/%d\t%d %%\t%d\t%d\n", room, n[noticed]+n[hung], total(n), share(n), n[hung], n[invalid])
	}
	for _, room := range slices.Sorted(maps.Keys(byRoom)) {
		n := byRoom[room]
		line(room, n)
		if o.only == "" && share(n) < o.minShare {
			errs = append(errs, fmt.Errorf("%s: %d of %d changes were noticed; %d %% is the least", room, n[noticed]+n[hung], total(n), o.minShare))
		}
	}
	line("all", all)
	if err := t.Flush(); err != nil {
		return err
	}
	for _, r := range results {
		switch r.outcome {
		case survived:
			fmt.Fprintf(out, "not noticed: %s: %s: %s: %s\n", r.at, r.file, r.title, r.why)
		case invalid:
			errs = append(errs, fmt.Errorf("%s: %s: %s", r.at, r.title, r.why))
		case noticed, hung:
		}
	}
	if o.whole() && total(all) < o.minTotal {
		errs = append(errs, fmt.Errorf("%d changes; %d is the least", total(all), o.minTotal))
	}
	if len(missing) > 0 {
		errs = append(errs, fmt.Errorf("no changes in mutants/ for internal/ %s", strings.Join(missing, ", ")))
	}
	return errors.Join(errs...)
}
