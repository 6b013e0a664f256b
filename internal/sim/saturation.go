package sim

import (
	"context"
	"math"
	"slices"
	"time"

	"headway/internal/engine"
	"headway/internal/workload"
)

// Rates are searched for down to searchNear of themselves, and below mostRate a second.
const (
	searchNear = 0.01
	mostRate   = 1e5
)

// kept is the part of the requests that a rate must keep: answered as soon as they come
// for saturation, within the objectives for carried.
const kept = 0.95

// highest finds the highest rate at which keeps is true, by doubling and bisection from
// a guess; 0: none from a thousandth of the guess on.
func highest(guess float64, keeps func(rate float64) (bool, error)) (float64, error) {
	low, high := 0., math.Inf(1)
	for rate := guess; high-low > searchNear*low || low == 0; {
		ok, err := keeps(rate)
		if err != nil {
			return 0, err
		}
		if ok {
			low = rate
		} else {
			high = rate
		}
		switch {
		case math.IsInf(high, 1):
			if rate *= 1.5; rate > mostRate {
				return low, nil
			}
		case low == 0:
			if rate /= 1.5; rate < guess/1000 {
				return 0, nil
			}
		default:
			rate = (low + high) / 2
		}
	}
	return low, nil
}

// guess is the rate at which the prompts alone would keep the heads busy, if nothing
// was cached, as a rule of thumb to begin with.
func guess(t *workload.Traffic, o *Options, play workload.Play) (float64, error) {
	play.Rate = 1
	source, err := t.Play(play)
	if err != nil {
		return 0, err
	}
	const sample = 500
	busy, n := time.Duration(0), 0
	for a, ok := source.Next(); ok && n < sample; a, ok = source.Next() {
		p := &o.Heads[n%len(o.Heads)].Profile
		busy += p.Prefill(min(a.Input, p.MaxContext)) + time.Duration(a.Output)*time.Millisecond
		n++
	}
	return float64(len(o.Heads)) / (busy.Seconds()/float64(max(n, 1)) + 1e-6), nil
}

// unloaded is how many requests of a source an unlimited fleet would have answered by
// the time the last one comes by the clock, each as an idle head with an empty cache
// does, and that time.
func unloaded(source workload.Source, p *engine.Profile) (answered int, last time.Duration) {
	var due events
	var ends []time.Duration
	var come func(workload.Arrival)
	come = func(a workload.Arrival) {
		end := a.At + p.Prefill(min(a.Input, p.MaxContext)) + p.Decode(a.Input, a.Output)
		due.add(end, func() {
			ends = append(ends, end)
			for _, next := range source.Ended(&a, end) {
				due.add(max(next.At, end), func() { come(next) })
			}
		})
	}
	var arrive func()
	arrive = func() {
		if a, ok := source.Next(); ok {
			last = a.At
			due.add(a.At, func() { come(a); arrive() })
		}
	}
	arrive()
	for due.len() > 0 {
		due.next().do()
	}
	answered, _ = slices.BinarySearch(ends, last+1)
	return answered, last
}

// searching is a search for a rate.
type searching struct {
	traffic *workload.Traffic
	setup   func(rate float64) (*Setup, error)
}

// saturation is the highest rate at which the setup's policy keeps up: by the time the
// last request comes by the clock it has answered kept of what an unlimited fleet would
// have. Above it the queue grows for as long as requests come.
func (s *searching) saturation(ctx context.Context) (float64, error) {
	return s.search(ctx, func(m *Measured, setup *Setup) (bool, error) {
		again, err := s.traffic.Play(setup.play)
		if err != nil {
			return false, err
		}
		most, last := unloaded(again, &setup.Heads[0].Profile)
		return float64(m.answeredBy(last)) >= kept*float64(most), nil
	})
}

// carried is the highest rate at which kept of the requests are within the objectives.
func (s *searching) carried(ctx context.Context) (float64, error) {
	return s.search(ctx, func(m *Measured, _ *Setup) (bool, error) { return m.Goodput() >= kept, nil })
}

func (s *searching) search(ctx context.Context, keeps func(*Measured, *Setup) (bool, error)) (float64, error) {
	first, err := s.setup(1)
	if err != nil {
		return 0, err
	}
	begin, err := guess(s.traffic, &first.Options, first.play)
	if err != nil {
		return 0, err
	}
	return highest(begin, func(rate float64) (bool, error) {
		setup, err := s.setup(rate)
		if err != nil {
			return false, err
		}
		m, err := Run(ctx, setup.Options)
		if err != nil {
			return false, err
		}
		return keeps(m, setup)
	})
}
