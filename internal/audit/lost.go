package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// lostSuffix names a file that holds the number of queued records, so that the
// next start knows how many a crash lost.
const lostSuffix = ".waiting"

type ledger struct {
	o      *Options
	before uint64 // that the last process lost, and that are not in the trail yet
	kept   uint64 // in the file
}

func (l *ledger) places() []string {
	places := []string{l.o.Path + lostSuffix}
	if l.o.SideDir != "" {
		places = append(places, sidePath(l.o.SideDir, l.o.Path, lostSuffix))
	}
	return places
}

func (l *ledger) open() {
	for _, file := range l.places() {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // most often there is none
		}
		if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32); err == nil {
			l.before = max(l.before, n)
		}
	}
	l.kept = l.before
}

func (l *ledger) keep(waiting int) error {
	n := l.before + uint64(waiting)
	if n == l.kept {
		return nil
	}
	_, err := l.o.keep(lostSuffix, fmt.Appendf(nil, "%d\n", n))
	if err == nil {
		l.kept = n
	}
	return err
}

func (l *ledger) clear() error {
	if l.kept == 0 {
		return nil
	}
	l.before, l.kept = 0, 0
	var errs []error
	for _, file := range l.places() {
		if err := os.Remove(file); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
