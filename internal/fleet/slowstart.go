package fleet

import "time"

type slowStart struct {
	since  time.Time
	window time.Duration
	bias   float64 // requests in flight that the pool had on average
}

// StartSlowly counts the head's load for more for a while: for bias requests
// more at since, for none after the window.
func (l *Live) StartSlowly(since time.Time, window time.Duration, bias float64) {
	l.start.Store(&slowStart{since, window, bias})
	l.settle()
}

// SlowStart is the number of requests to add to a new head's count at now: its
// pool's mean when it joined, falling linearly to 0 over the slow-start
// window. Without it a head that joins idle draws all new traffic at once.
func (l *Live) SlowStart(now time.Time) float64 {
	s := l.start.Load()
	if s == nil {
		return 0
	}
	left := s.window - now.Sub(s.since)
	if left <= 0 {
		if l.start.CompareAndSwap(s, nil) {
			l.settle()
		}
		return 0
	}
	return s.bias * float64(left) / float64(s.window)
}

// SlowStartEnds is when SlowStart is 0 again, the zero time if it is.
func (l *Live) SlowStartEnds() time.Time {
	if s := l.start.Load(); s != nil {
		return s.since.Add(s.window)
	}
	return time.Time{}
}
