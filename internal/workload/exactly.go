package workload

import "time"

// Known is a request of which all is known.
type Known struct {
	Row
	Region string
}

// exact is a Source of requests as they came.
type exact struct {
	requests []Known
	next     int
	seed     uint64
}

// Exactly is a Source of requests at their own times, by which they are sorted.
func Exactly(requests []Known, seed uint64) Source { return &exact{requests: requests, seed: seed} }

func (e *exact) Next() (a Arrival, ok bool) {
	if e.next == len(e.requests) {
		return a, false
	}
	r := &e.requests[e.next]
	e.next++
	return Arrival{
		At: r.At, Input: r.Input, Output: r.Output, Region: r.Region, Session: r.Session,
		key: mix(uint64(e.next), e.seed), blocks: r.Blocks,
	}, true
}

func (*exact) Ended(*Arrival, time.Duration) []Arrival { return nil }
