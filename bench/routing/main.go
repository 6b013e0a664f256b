// Command routing measures what the strategies promise on simulated fleets, beside the
// rules of other routers, and prints each figure with its goal. Equal code gives equal
// figures.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	only := flag.String("only", "", "only the figures whose name holds this text")
	page := flag.String("write", "", "write the tables into this page, between their marks, and the plots beside it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := measure(ctx, os.Stdout, *only, *page)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "routing:", err)
		os.Exit(1)
	}
}

func measure(ctx context.Context, w io.Writer, only, page string) error {
	dir, err := os.MkdirTemp("", "routing-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	began := time.Now()
	l, err := newLab(ctx, dir, func(text string) { fmt.Fprintf(os.Stderr, "%s (%.0f s)\n", text, time.Since(began).Seconds()) })
	if err != nil {
		return err
	}
	list := slices.DeleteFunc(figures(), func(f figure) bool { return !strings.Contains(f.what, only) })
	if err := l.all(func() {
		values(l, list)
		if page != "" {
			tables(l)
		}
	}); err != nil {
		return err
	}
	rows := values(l, list)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FIGURE\tAT\tGOAL\tIS\t")
	for _, r := range rows {
		fmt.Fprintln(t, strings.Join(r[:], "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, f := range list {
		if f.detail != nil {
			fmt.Fprintf(w, "\n%s:\n  %s\n", f.what, strings.Join(f.detail(l), "\n  "))
		}
	}
	if page == "" {
		return nil
	}
	return write(l, page, rows)
}

// values are the rows of the table of figures: name, load, goal, value, verdict.
func values(l *lab, list []figure) (rows [][5]string) {
	for _, f := range list {
		for i, v := range f.value(l) {
			verdict, sign := "reached", "≤"
			if !f.reached(i, v) {
				verdict = "missed"
			}
			if f.least {
				sign = "≥"
			}
			rows = append(rows, [5]string{f.what, f.at[i], fmt.Sprintf("%s %.2f", sign, f.goals[i]), fmt.Sprintf("%.3f", v), verdict})
		}
	}
	return rows
}
