package httpapi

import (
	"sync"
	"time"
)

// deadline is the time limit of a connection's reads or of its writes. It is set
// there only while something waits: net/http moves its limits ten times for each
// request, and setting one takes 0.4 µs.
type deadline struct {
	set   func(time.Time) error // at the connection
	slack time.Duration         // by which a limit may be later than asked for, so that it is set once in that time

	mu      sync.Mutex
	want    time.Time
	has     time.Time // that is set
	waiting int       // reads or writes
}

// move changes the limit, for what waits too.
func (d *deadline) move(t time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.want = t
	if d.waiting == 0 {
		return nil
	}
	return d.apply()
}

// begin is called before a read or a write. If it returns nil, end is called after it.
func (d *deadline) begin() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.apply(); err != nil {
		return err
	}
	d.waiting++
	return nil
}

func (d *deadline) end() {
	d.mu.Lock()
	d.waiting--
	d.mu.Unlock()
}

func (d *deadline) apply() error {
	if d.want.IsZero() || d.has.IsZero() {
		if d.has.Equal(d.want) {
			return nil
		}
	} else if late := d.has.Sub(d.want); late >= 0 && late <= d.slack {
		return nil
	}
	if d.has = d.want; !d.want.IsZero() {
		d.has = d.want.Add(d.slack)
	}
	return d.set(d.has)
}
