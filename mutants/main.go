// Command mutants makes one change to the code at a time and runs the tests
// that must notice it. mutants/ROOM.txt has the changes of one package of
// internal/. An overlay passes a change to the compiler, so the tree is never
// written.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// Goals of a whole run.
const (
	minShare = 85  // percent noticed, in each room
	minTotal = 150 // changes in all rooms
)

func main() {
	o := options{minTotal: minTotal, minShare: minShare}
	flag.StringVar(&o.root, "root", ".", "directory of the module")
	flag.StringVar(&o.room, "room", "", "only the changes of this directory of internal/")
	flag.StringVar(&o.only, "only", "", "only changes whose title holds this text")
	flag.IntVar(&o.workers, "workers", min(2, runtime.NumCPU()), "changes that are tried at once")
	flag.DurationVar(&o.least, "limit", 30*time.Second, "time after which a test hangs; ten times what it takes without the change, if that is more")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

type options struct {
	root, room, only   string
	workers            int
	least              time.Duration // of the time limit of one test run
	minTotal, minShare int
}

// whole reports whether all changes run, so that the goals apply.
func (o options) whole() bool { return o.room == "" && o.only == "" }

func run(ctx context.Context, out io.Writer, o options) error {
	root, err := filepath.Abs(o.root)
	if err != nil {
		return err
	}
	o.root = root
	all, err := readAll(root)
	if err != nil {
		return err
	}
	var missing []string
	if o.whole() {
		if missing, err = roomsWithout(root, all); err != nil {
			return err
		}
	}
	chosen := all.of(o)
	if len(chosen) == 0 {
		return fmt.Errorf("no change in mutants/ is of room %q with a title that holds %q", o.room, o.only)
	}
	dir, err := os.MkdirTemp("", "headway-mutants-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	t := &trial{options: o, dir: dir, out: out, base: map[test]time.Duration{}}
	results, err := t.all(ctx, chosen)
	if err != nil {
		return err
	}
	return report(out, o, results, missing)
}
