package strategy

import (
	"math"
	"sync/atomic"
	"time"

	"headway/internal/fleet"
)

// observedFor is the time after which an observed time has lost 1-1/e of its weight,
// as in Finagle's Peak EWMA.
const observedFor = 10 * time.Second

// leastObserved is the weight of observations below which nothing is known.
const leastObserved = 1e-6

// observed are times that were observed lately, each with a weight that falls with
// its age. One goroutine at a time adds. One that reads meanwhile may see the sums
// without their time, and takes them for a little older or younger than they are.
type observed struct {
	sum  number       // of the times in s, by their weights
	n    number       // of the weights
	last atomic.Int64 // when the last came, in ns after paceZero
}

// number is a float64 that is read while it is written.
type number struct{ bits atomic.Uint64 }

func (n *number) get() float64  { return math.Float64frombits(n.bits.Load()) }
func (n *number) set(v float64) { n.bits.Store(math.Float64bits(v)) }

// times are those of one head.
type times struct {
	instance atomic.Uint64
	firsts   observed // until the first token
	wholes   observed // until the end
	peak     number   // of those until the end, in s: up at once, down with observedFor
}

func fade(age time.Duration) float64 { return math.Exp(-float64(max(age, 0)) / float64(observedFor)) }

// at returns the sum of the times in s and their number by their weights at now.
func (o *observed) at(now time.Time) (sum, n float64) {
	f := fade(o.age(now))
	return o.sum.get() * f, o.n.get() * f
}

func (o *observed) age(now time.Time) time.Duration {
	return now.Sub(paceZero) - time.Duration(o.last.Load())
}

func (o *observed) add(took time.Duration, now time.Time) {
	sum, n := o.at(now)
	o.sum.set(sum + took.Seconds())
	o.n.set(n + 1)
	o.last.Store(max(int64(now.Sub(paceZero)), o.last.Load()))
}

// mean is the mean in s, 0 if nothing is known lately.
func (o *observed) mean(now time.Time) float64 {
	if sum, n := o.at(now); n > leastObserved {
		return sum / n
	}
	return 0
}

// answered notes how long a request took at a head until its first token and until its
// end; 0: unknown, or noted before.
func (p *Pace) answered(h *fleet.Head, first, whole time.Duration, at time.Time) {
	t := &p.head(h.Number).times
	p.mu.Lock()
	defer p.mu.Unlock()
	switch is := t.instance.Load(); {
	case h.Instance < is: // it comes late, of an epoch that is over
		return
	case h.Instance > is:
		for _, n := range [...]*number{&t.firsts.sum, &t.firsts.n, &t.wholes.sum, &t.wholes.n, &t.peak} {
			n.set(0)
		}
		t.instance.Store(h.Instance)
	}
	if first > 0 {
		t.firsts.add(first, at)
		p.firsts.add(first, at)
	}
	if whole > 0 {
		f := fade(t.wholes.age(at))
		t.peak.set(max(whole.Seconds(), t.peak.get()*f+whole.Seconds()*(1-f)))
		t.wholes.add(whole, at)
		p.wholes.add(whole, at)
	}
}

// timesOf are those of the head, nil if none is known.
func (p *Pace) timesOf(list []*headPace, h *fleet.Head) *times {
	if h.Number >= len(list) || list[h.Number].times.instance.Load() != h.Instance {
		return nil
	}
	return &list[h.Number].times
}

// likelyFirst estimates in s how long the head takes until the first token, as if so
// many observations more had been the mean of the pool less a part of it; 0 if nothing
// is known of the pool.
func (p *Pace) likelyFirst(list []*headPace, h *fleet.Head, prior, less float64, now time.Time) float64 {
	mean := p.firsts.mean(now) * (1 - less)
	t := p.timesOf(list, h)
	if t == nil || mean == 0 {
		return mean
	}
	sum, n := t.firsts.at(now)
	return (sum + prior*mean) / (n + prior)
}

// likelyPeak is the peak in s of how long the head took lately, at least half the mean
// of the pool, and that for a head of which nothing is known; 0 if nothing is known of
// the pool.
func (p *Pace) likelyPeak(list []*headPace, h *fleet.Head, now time.Time) float64 {
	least := p.wholes.mean(now) / 2
	if t := p.timesOf(list, h); t != nil && least > 0 {
		return max(t.peak.get()*fade(t.wholes.age(now)), least)
	}
	return least
}
