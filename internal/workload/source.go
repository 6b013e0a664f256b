package workload

import "time"

// Source is where requests come from. It is used by one goroutine.
type Source interface {
	// Next is the next request that comes by the clock; false: there is no more.
	// Times never decrease.
	Next() (Arrival, bool)
	// Ended returns the requests that follow on the end of another, such as the
	// next turn of an agent, with the times at which they come.
	Ended(a *Arrival, at time.Duration) []Arrival
}

// replay is a Source of the first requests of a workload.
type replay struct {
	from *Workload
	left int
}

func (r *replay) Next() (a Arrival, ok bool) {
	if r.left == 0 {
		return a, false
	}
	r.left--
	return r.from.Next(), true
}

func (*replay) Ended(*Arrival, time.Duration) []Arrival { return nil }
