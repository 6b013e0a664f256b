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
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	only := flag.String("only", "", "only the figures whose name holds this text")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := measure(ctx, os.Stdout, *only)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "routing:", err)
		os.Exit(1)
	}
}

func measure(ctx context.Context, w io.Writer, only string) error {
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
	var list []figure
	for _, f := range figures() {
		if strings.Contains(f.what, only) {
			list = append(list, f)
		}
	}
	if err := l.all(func() {
		for _, f := range list {
			f.value(l)
		}
	}); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FIGURE\tAT\tGOAL\tIS\t")
	for _, f := range list {
		for i, v := range f.value(l) {
			verdict := "reached"
			if !f.reached(i, v) {
				verdict = "missed"
			}
			sign := "≤"
			if f.least {
				sign = "≥"
			}
			fmt.Fprintf(t, "%s\t%s\t%s %v\t%.3f\t%s\n", f.what, f.at[i], sign, f.goals[i], v, verdict)
		}
	}
	return t.Flush()
}
