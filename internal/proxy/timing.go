package proxy

import "time"

// timing is where the time of a request goes.
type timing struct {
	begin    time.Time
	received time.Duration // until its body was there, as fast as the caller sends
	waiting  time.Time     // since when; zero: not now
	resumed  time.Time     // when it went on last
	waited   time.Duration // for heads, and for a place at one
	overhead time.Duration // until its answer began, without waited
	known    bool          // overhead is
}

// wait notes that the request waits for others, resume that it goes on.
func (t *timing) wait(at time.Time) { t.waiting = at }

func (t *timing) resume(at time.Time) {
	t.waited += at.Sub(t.waiting)
	t.waiting, t.resumed = time.Time{}, at
}

// answers notes that the answer begins, while the head is waited for or not.
func (t *timing) answers(at time.Time) {
	if t.known {
		return
	}
	t.known = true
	if !t.waiting.IsZero() {
		at = t.waiting
	}
	t.overhead = max(at.Sub(t.begin)-t.waited, 0)
}

// elsewhere is the part of the time until then that the service did not take: heads,
// the caller, and all that comes after the header of the answer.
func (t *timing) elsewhere(until time.Time) time.Duration {
	return until.Sub(t.begin) - max(t.overhead-t.received, 0)
}
