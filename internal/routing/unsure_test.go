package routing_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/fleet"
	"headway/internal/routing"
	"headway/internal/strategy"
)

// unsureTokens are those of the mean prompt of these tests, which takes 100 ms.
const unsureTokens = 1000

// Decisions of which no caller ever says more are not ahead for as long as their
// reservations last: what is expected of the others stays true, and once they come no
// more nothing is ahead.
func TestDecisionsWithoutASignOfLifeAreNotAheadForLong(t *testing.T) {
	for name, sent := range map[string]bool{"sent": true, "never sent": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				caller(w)
				free := map[string]time.Time{}
				for _, id := range []string{"a", "b", "c"} {
					w.head(id, "us", nil)
					free[id] = time.Now()
				}
				random := rand.New(rand.NewPCG(1, 2))
				decide := func(held bool) *routing.Decision {
					return w.decide(strategy.Request{InputTokens: unsureTokens/2 + random.Int64N(unsureTokens), Held: held})
				}
				answers := func(d *routing.Decision) time.Duration { // prompts are computed one after the other
					id, took := d.Head.ID, time.Duration(d.Work().Tokens)*(100*time.Millisecond/unsureTokens)
					free[id] = free[id].Add(max(time.Since(free[id]), 0) + took)
					return time.Until(free[id])
				}
				off, observed := 0., 0.
				for i := range 1200 { // a minute
					time.Sleep(50 * time.Millisecond)
					if i >= 200 && i%3 == 0 {
						if d := decide(false); sent {
							answers(d)
						}
					}
					if i%4 == 3 {
						continue
					}
					d := decide(true)
					after := answers(d)
					if n := w.live(d.Head.ID).OwnPending(); n > 15*unsureTokens {
						t.Fatalf("%d tokens are ahead with request %d, which begins to be answered after %v", n, i, after)
					}
					if i > 200 {
						observed += after.Seconds()
						off += math.Abs(d.Predicted()/1000 - after.Seconds())
					}
					time.AfterFunc(after, func() {
						w.router.Begun(d)
						w.router.End(d, routing.Outcome{Result: routing.ResultOK, CachedTokens: fleet.Unknown})
					})
				}
				if off > observed {
					t.Errorf("what is expected is off by %.2f of what is observed", off/observed)
				}
				time.Sleep(8 * time.Second)
				for _, id := range []string{"a", "b", "c"} {
					d := decide(true)
					if !(d.Predicted() < 200) || d.Head.Live.InFlight() < 2 {
						t.Errorf("%s: %.0f ms are expected of %d requests without a sign of life", id, d.Predicted(), d.Head.Live.InFlight())
					}
					w.router.End(d, routing.Outcome{Result: routing.ResultCancelled})
				}
				time.Sleep(3 * time.Minute)
				synctest.Wait()
				for _, id := range []string{"a", "b", "c"} {
					if n := w.live(id).OwnPending(); n != 0 || w.live(id).InFlight() != 0 {
						t.Errorf("at the end %d tokens are pending at %s", n, id)
					}
				}
			})
		})
	}
}

// Where no request gives a sign of life and no head reports, the clock says what is
// ahead.
func TestTheClockPassesWhatGivesNoSignOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		caller(w)
		w.head("a", "us", nil)
		ahead := func() float64 {
			d := w.decide(strategy.Request{InputTokens: unsureTokens, Explain: true, Reads: true})
			return d.Explanation().Candidates[0].Terms[1].Value
		}
		for range 120 { // a minute, at a seventh of the usual rate
			time.Sleep(500 * time.Millisecond)
			if n := ahead(); n > 20*unsureTokens {
				t.Fatalf("%.0f tokens are ahead", n)
			}
		}
		if n := ahead(); n < unsureTokens {
			t.Errorf("%.0f tokens are ahead of what comes right after another", n)
		}
		time.Sleep(10 * time.Second)
		if n := ahead(); n != 0 {
			t.Errorf("%.0f tokens are ahead after 10 s", n)
		}
	})
}
