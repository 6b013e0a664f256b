package fleet

import (
	"testing"

	"pgregory.net/rapid"
)

// unsureHead is a head whose requests begin to be answered in order.
func unsureHead() *Live {
	l := new(Live)
	for range 100 {
		l.Pass(l.Place(), 0, 1)
	}
	return l
}

// ask places an unsure prompt.
func ask(l *Live, pending int32, clock uint32, rate float64) Place {
	l.TryAcquire(0, Work{Tokens: pending, Pending: pending})
	return l.Ask(pending, clock, rate)
}

// An unsure prompt is ahead until a request after it begins to be answered.
func TestASignOfLifePassesWhatCameBefore(t *testing.T) {
	l := unsureHead()
	ask(l, 500, 1, 0)
	sign := l.Place()
	own := ask(l, 300, 1, 0)
	is := func(when string, want int64) {
		t.Helper()
		if n := l.OwnPending(); n != want || l.Own().Pending != want {
			t.Errorf("%s %d tokens are pending, want %d", when, n, want)
		}
	}
	is("at first", 800)
	l.Pass(sign, 0, 1)
	is("after a sign of what came between", 300)
	if n := l.Skipped(); n != 1 {
		t.Errorf("%d signs skipped a prompt, want 1", n)
	}
	l.Pass(own, 300, 1)
	l.GiveUp(300)
	l.Answers(300, false)
	is("after its own", 0)
	if n := l.Skipped(); n != 1 {
		t.Errorf("%d signs skipped a prompt, want still 1", n)
	}
	ask(l, 700, 1, 0)
	is("after another", 700)
}

// Where requests begin to be answered in any order, one passes nothing.
func TestOutOfOrderNothingIsPassed(t *testing.T) {
	l := unsureHead()
	early := l.Place()
	ask(l, 500, 1, 0)
	late := l.Place()
	l.Pass(late, 0, 1)
	l.Pass(early, 0, 1)
	l.Pass(early, 0, 1)
	if n := l.OwnPending(); n != 500 {
		t.Errorf("%d tokens are pending, want 500", n)
	}
	for range 100 {
		l.Pass(late, 0, 1)
	}
	if n := l.OwnPending(); n != 0 {
		t.Errorf("in order again %d tokens are pending, want none", n)
	}
}

// By the clock a head passes what it would have computed, after the time in which a sign
// is awaited.
func TestWithoutSignsTheClockCounts(t *testing.T) {
	l, rate := new(Live), 10.
	ask(l, 30_000, 1000, rate)
	for clock, want := range map[uint32]int64{1000: 30_000, 1000 + patience: 30_000, 2000 + patience: 20_000, 5000 + patience: 0} {
		if n := l.OwnPendingAt(clock, rate); n != want {
			t.Errorf("after %d ms %d tokens are pending, want %d", clock-1000, n, want)
		}
	}
	ask(l, 1000, 90_000, rate)
	if n := l.OwnPendingAt(90_000, rate); n != 1000 {
		t.Errorf("after a rest %d tokens are pending, want the 1,000 that came", n)
	}
}

// What is ahead is never below nothing, never more than is pending, and nothing at the end.
func TestAheadIsPartOfWhatIsPending(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		type request struct {
			place  Place
			w      Work
			unsure bool
		}
		l, clock, open := unsureHead(), uint32(1000), []request(nil)
		rate := rapid.Float64Range(0, 100).Draw(rt, "rate")
		for range rapid.IntRange(1, 200).Draw(rt, "steps") {
			clock += uint32(rapid.IntRange(0, 4000).Draw(rt, "ms"))
			if len(open) == 0 || rapid.Bool().Draw(rt, "place") {
				q := request{w: Work{Pending: rapid.Int32Range(1, 1<<24).Draw(rt, "tokens")}, unsure: rapid.Bool().Draw(rt, "unsure")}
				l.TryAcquire(0, q.w)
				if q.place = l.Place(); q.unsure {
					q.place = l.Ask(q.w.Pending, clock, rate)
				}
				open = append(open, q)
			} else {
				i := rapid.IntRange(0, len(open)-1).Draw(rt, "which")
				q, own := open[i], int32(0)
				if q.unsure {
					own = q.w.Pending
				}
				open = append(open[:i], open[i+1:]...)
				sign := rapid.Bool().Draw(rt, "sign")
				if sign {
					l.Pass(q.place, own, clock)
				}
				l.GiveUp(own)
				if sign {
					l.Release(q.w)
				} else {
					l.Expire(q.w)
				}
			}
			pending, sure := int64(0), int64(0)
			for _, q := range open {
				pending += int64(q.w.Pending)
				if !q.unsure {
					sure += int64(q.w.Pending)
				}
			}
			if n := l.OwnPendingAt(clock, rate); n < sure || n > pending {
				rt.Fatalf("%d tokens are ahead of %d to %d", n, sure, pending)
			}
		}
		for _, q := range open {
			if q.unsure {
				l.GiveUp(q.w.Pending)
			}
			l.Expire(q.w)
		}
		if n := l.OwnPending(); n != 0 {
			rt.Fatalf("%d tokens are ahead of no request", n)
		}
	})
}
