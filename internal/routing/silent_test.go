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

// silentTokens are those of the mean prompt of these tests, which takes 100 ms.
const silentTokens = 1000

// Decisions of which no caller ever says more are not ahead for as long as their
// reservations last: what is expected of the others stays near to what
// comes, and once they come no more nothing is ahead. What a prompt weighs in tokens is
// the fit's, so that times are compared.
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
					return w.decide(strategy.Request{InputTokens: silentTokens/2 + random.Int64N(silentTokens), Held: held})
				}
				answers := func(d *routing.Decision) time.Duration { // prompts are computed one after the other
					id, took := d.Head.ID, time.Duration(d.Work().Tokens)*(100*time.Millisecond/silentTokens)
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
					if i > 200 {
						observed += after.Seconds()
						off += math.Abs(d.Predicted()/1000 - after.Seconds())
					}
					time.AfterFunc(after, func() {
						w.router.Begun(d)
						w.router.End(d, routing.Outcome{Result: routing.ResultOK, CachedTokens: fleet.Unknown})
					})
				}
				if off > 3*observed {
					t.Errorf("what is expected is off by %.2f of what is observed", off/observed)
				}
				time.Sleep(20 * time.Second)
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
