package strategy

import (
	"math"
	"testing"
	"time"

	"headway/internal/fleet"
)

// An estimate is the mean of what was observed and of what is assumed, each by its
// weight; what is old has little, and what another instance took has none.
func TestObservedTimesFade(t *testing.T) {
	p := newPace()
	fast, slow := &fleet.Head{Number: 0, Instance: 1}, &fleet.Head{Number: 1, Instance: 2}
	if got := p.likelyFirst(p.list(), slow, 4, 0.2, noon); got != 0 {
		t.Fatalf("%v s where nothing is known", got)
	}
	for range 96 {
		p.answered(fast, 100*time.Millisecond, 0, noon)
	}
	for range 4 {
		p.answered(slow, time.Second, 0, noon)
	}
	mean := (96*0.1 + 4*1) / 100
	first := func(h *fleet.Head, after time.Duration) float64 {
		return p.likelyFirst(p.list(), h, 4, 0.2, noon.Add(after))
	}
	near := func(what string, got, want float64) {
		if math.Abs(got-want) > 1e-9 {
			t.Errorf("%s: %v s, want %v", what, got, want)
		}
	}
	near("new", first(slow, 0), (4*1+4*0.8*mean)/8)
	w := math.Exp(-1)
	near("after 10 s", first(slow, 10*time.Second), (4*w*1+4*0.8*mean)/(4*w+4))
	if s, f := first(slow, 2*time.Minute), first(fast, 2*time.Minute); math.Abs(s/f-1) > 0.01 {
		t.Errorf("after two minutes %v s and %v s, want no difference", s, f)
	}
	p.answered(&fleet.Head{Number: 1, Instance: 1}, time.Hour, time.Hour, noon)
	near("what comes late of the instance before", first(slow, 0), (4*1+4*0.8*mean)/8)
	near("another instance", first(&fleet.Head{Number: 1, Instance: 3}, 0), 0.8*mean)
}

// A peak is noted at once and goes back slowly.
func TestAPeakGoesBackSlowly(t *testing.T) {
	p := newPace()
	h := &fleet.Head{Number: 3, Instance: 1}
	at := noon
	peak := func() float64 { return p.likelyPeak(p.list(), h, at) }
	p.answered(h, 0, 100*time.Millisecond, at)
	p.answered(h, 0, 2*time.Second, at)
	if got := peak(); got != 2 {
		t.Fatalf("peak %v s after a request of 2 s", got)
	}
	at = at.Add(time.Second)
	p.answered(h, 0, 100*time.Millisecond, at)
	if got, w := peak(), math.Exp(-0.1); math.Abs(got-(2*w+0.1*(1-w))) > 1e-9 {
		t.Errorf("peak %v s a second later", got)
	}
	at = at.Add(time.Hour)
	other := &fleet.Head{Number: 4, Instance: 2}
	p.answered(other, 0, 3*time.Second, at)
	if got := peak(); got != 1.5 {
		t.Errorf("peak %v s an hour later, want half the mean", got)
	}
	if got := p.likelyPeak(p.list(), &fleet.Head{Number: 3, Instance: 3}, at); got != 1.5 {
		t.Errorf("peak %v s of another instance, want half the mean", got)
	}
}
