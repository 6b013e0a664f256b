package httpapi

import (
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// A limit ends what waits when it is moved and what begins to wait later, and is
// set only where something waits.
func TestADeadlineIsSetWhereSomethingWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer func() { _, _ = ours.Close(), theirs.Close() }()
		sets := 0
		d := deadline{slack: time.Second, set: func(at time.Time) error { sets++; return ours.SetReadDeadline(at) }}
		start := time.Now()
		read := func() (time.Duration, error) {
			begin := time.Now()
			if err := d.begin(); err != nil {
				return 0, err
			}
			defer d.end()
			_, err := ours.Read(make([]byte, 1))
			return time.Since(begin), err
		}
		for _, after := range []time.Duration{time.Hour, 0, time.Minute, 5 * time.Second} {
			if err := d.move(start.Add(after)); err != nil || sets != 0 {
				t.Fatalf("%v, set %d times while nothing waits", err, sets)
			}
		}
		if took, err := read(); !errors.Is(err, os.ErrDeadlineExceeded) || took != 6*time.Second || sets != 1 {
			t.Errorf("ended after %s with %v, set %d times", took, err, sets)
		}
		// What waits without a limit is ended by one that has passed.
		if err := d.move(time.Time{}); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(3*time.Second, func() {
			if err := d.move(time.Unix(1, 0)); err != nil {
				t.Error(err)
			}
		})
		if took, err := read(); !errors.Is(err, os.ErrDeadlineExceeded) || took != 3*time.Second {
			t.Errorf("ended after %s with %v", took, err)
		}
		if took, err := read(); !errors.Is(err, os.ErrDeadlineExceeded) || took != 0 {
			t.Errorf("a limit that has passed: ended after %s with %v", took, err)
		}
		// One that is moved a little is not set again.
		sets = 0
		for i := range 4 {
			_ = d.move(time.Now().Add(time.Minute + time.Duration(i)*time.Second/4))
			if err := d.begin(); err != nil {
				t.Fatal(err)
			}
			d.end()
		}
		if sets != 1 {
			t.Errorf("set %d times", sets)
		}
	})
}
