package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// report prints the share by room, unnoticed changes, and faults of the set.
func report(out io.Writer, o options, results []result, missing []string) error {
	type count struct{ total, noticed, hung, invalid int }
	byRoom := map[string]*count{}
	var rooms []string
	all := &count{}
	for _, r := range results {
		if byRoom[r.room] == nil {
			byRoom[r.room] = &count{}
			rooms = append(rooms, r.room)
		}
		for _, n := range []*count{byRoom[r.room], all} {
			n.total++
			switch r.outcome {
			case noticed:
				n.noticed++
			case hung:
				n.noticed++
				n.hung++
			case invalid:
				n.invalid++
			case survived:
			}
		}
	}
	slices.Sort(rooms)
	share := func(n *count) int { return 100 * n.noticed / n.total }

	var errs []error
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nroom\tnoticed\tshare\tby a hang\terrors")
	for _, room := range rooms {
		n := byRoom[room]
		fmt.Fprintf(t, "%s\t%d/%d\t%d %%\t%d\t%d\n", room, n.noticed, n.total, share(n), n.hung, n.invalid)
		if o.only == "" && share(n) < o.minShare {
			errs = append(errs, fmt.Errorf("%s: %d of %d changes were noticed; %d %% is the least", room, n.noticed, n.total, o.minShare))
		}
	}
	fmt.Fprintf(t, "all\t%d/%d\t%d %%\t%d\t%d\n", all.noticed, all.total, share(all), all.hung, all.invalid)
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
	if o.whole() && all.total < o.minTotal {
		errs = append(errs, fmt.Errorf("%d changes; %d is the least", all.total, o.minTotal))
	}
	if len(missing) > 0 {
		errs = append(errs, fmt.Errorf("no changes in mutants/ for internal/ %s", strings.Join(missing, ", ")))
	}
	return errors.Join(errs...)
}
