package routing

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"headway/internal/fleet"
)

// Each reservation ends when its own time has run out and no later than a tick
// after, also where the ring has dropped others meanwhile.
func TestEachReservationEndsInItsTime(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	head := &fleet.Head{Live: new(fleet.Live)}
	rapid.Check(t, func(rt *rapid.T) {
		const size = 16
		r := newReservations(size)
		now := start
		all := map[*Decision]time.Time{} // open ones, and when they end
		end := func(d *Decision) {
			if due, open := all[d]; !open || now.Before(due) {
				rt.Fatalf("%v after the start a reservation was ended that lasts until %v (open %v)", now.Sub(start), due.Sub(start), open)
			}
			r.finish(d, &Outcome{Result: ResultExpired})
			delete(all, d)
		}
		times := rapid.OneOf(rapid.IntRange(1, 2000), rapid.IntRange(1, 1_000_000))
		rt.Repeat(map[string]func(*rapid.T){
			"decide": func(rt *rapid.T) {
				d := &Decision{Head: head, At: now, ttl: 1}
				d.lasts.Store(int64(times.Draw(rt, "ms")) * int64(time.Millisecond))
				if old := r.add(d); old != nil && old.end.Load() == nil {
					r.finish(old, &evicted)
					delete(all, old)
				}
				all[d] = d.ExpiresAt()
			},
			"renew": func(rt *rapid.T) {
				for d := range all {
					d.renew(now.Add(time.Duration(times.Draw(rt, "ms")) * time.Millisecond))
					all[d] = d.ExpiresAt()
					break
				}
			},
			"finish": func(*rapid.T) {
				for d := range all {
					r.finish(d, &Outcome{Result: ResultOK})
					delete(all, d)
					break
				}
			},
			"": func(rt *rapid.T) {
				now = now.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 250, 400, 5000, 300_000}).Draw(rt, "pass")) * time.Millisecond)
				r.expire(now, end)
				for d, due := range all {
					if now.Sub(due) > expiryTick {
						rt.Fatalf("a reservation is open %v after its end, %v after it was made", now.Sub(due), now.Sub(d.At))
					}
				}
				if int(r.open.Load()) != len(all) {
					rt.Fatalf("%d are counted as open, %d are", r.open.Load(), len(all))
				}
			},
		})
	})
}

// Looking for what has run out costs each reservation the same, however many
// there are that last longer.
func TestLongReservationsAreNotLookedAtAgainAndAgain(t *testing.T) {
	r := newReservations(1 << 12)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	head := &fleet.Head{Live: new(fleet.Live)}
	for range 1 << 12 {
		d := &Decision{Head: head, At: now, ttl: 1}
		d.lasts.Store(int64(time.Hour))
		r.add(d)
	}
	r.expire(now, func(*Decision) {})
	visited := 0
	for range 4 * 60 { // a minute
		now = now.Add(expiryTick)
		visited += len(chain(&r.wheel, r.wheel.at+1))
		r.expire(now, func(*Decision) { t.Error("ended before its time") })
	}
	if visited > 8<<12 { // when they are twice as old, from one tick on
		t.Errorf("in a minute %d looks at %d reservations of an hour", visited, 1<<12)
	}
}

// However the first token, the silence and the end of a reservation come, what its prompt
// weighs is given back once.
func TestWhatAPromptWeighsIsGivenBackOnce(t *testing.T) {
	first := func(d *Decision) {
		if pending, is := d.begins(time.Second); is {
			d.Head.Live.Answers(pending, false)
		}
	}
	finish := func(d *Decision) { newReservations(1).finish(d, &Outcome{Result: ResultOK}) }
	for name, come := range map[string][]func(*Decision){
		"end":                         {finish},
		"silence, end":                {(*Decision).silence, finish},
		"silence, first token, end":   {(*Decision).silence, first, finish},
		"silence twice, end":          {(*Decision).silence, (*Decision).silence, finish},
		"first token, silence, end":   {first, (*Decision).silence, finish},
		"first token, end":            {first, finish},
		"end, first token, silence":   {finish, first, (*Decision).silence},
		"silence, end, a first token": {(*Decision).silence, finish, first},
	} {
		live := new(fleet.Live)
		d := &Decision{Head: &fleet.Head{Live: live}, work: fleet.Work{Tokens: 7, Pending: 7}}
		live.TryAcquire(0, d.work)
		for _, f := range come {
			f(d)
		}
		if live.OwnPending() != 0 || live.InFlight() != 0 {
			t.Errorf("%s: %d tokens are pending, and %d requests in flight", name, live.OwnPending(), live.InFlight())
		}
	}
}

// What was placed before a request that begins to be answered is not ahead any more, but
// for what may be computed together with it; and at a head whose first tokens are seen
// nothing is for much longer than was expected.
func TestWhenNoSignOfLifeIsWaitedFor(t *testing.T) {
	placed := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		began    time.Duration // of the request placed then after this one; 0: none began
		seen     bool
		expected float32
		after    time.Duration
		want     bool
	}{
		"a later one began":               {time.Second, false, 100, 2 * time.Second, true},
		"one that came with it began":     {50 * time.Millisecond, false, 100, 2 * time.Second, false},
		"none began":                      {0, false, 100, time.Hour, false},
		"none began, where some are seen": {0, true, 1000, 7 * time.Second, true},
		"it is early":                     {0, true, 1000, 6 * time.Second, false},
		"nothing is known":                {0, true, float32(math.NaN()), 5 * time.Second, true},
	} {
		live := new(fleet.Live)
		if c.began != 0 {
			live.Began(placed.Add(c.began))
		}
		if c.seen {
			live.Answers(0, false)
		}
		d := &Decision{Head: &fleet.Head{Live: live}, At: placed, predicted: c.expected}
		if is := d.silentNow(placed.Add(c.after)); is != c.want {
			t.Errorf("%s: %v, want %v", name, is, c.want)
		}
	}
}

func chain(w *wheel, tick int64) (slots []int) {
	for i := w.first[tick&(spokes-1)]; i > 0; i = w.next[i-1] {
		slots = append(slots, int(i-1))
	}
	return slots
}

// The end of a reservation that came otherwise gives way to a true outcome, once.
func TestOnlyTheFirstOutcomeIsRecorded(t *testing.T) {
	r := newReservations(1)
	head := &fleet.Head{Live: new(fleet.Live)}
	take := func() *Decision {
		head.Live.TryAcquire(0, fleet.Work{})
		d := &Decision{Head: head}
		r.add(d)
		return d
	}
	finish := func(d *Decision, result Result, counts, late bool, recorded Result) {
		t.Helper()
		if c, l := r.finish(d, &Outcome{Result: result}); c != counts || l != late {
			t.Errorf("%v: counts %v, late %v; want %v, %v", result, c, l, counts, late)
		}
		if o, _ := d.Outcome(); o.Result != recorded || head.Live.InFlight() != 0 || r.open.Load() != 0 {
			t.Errorf("%v: recorded is %v, %d in flight, %d open; want %v", result, o.Result, head.Live.InFlight(), r.open.Load(), recorded)
		}
	}
	d := take()
	finish(d, ResultOK, true, false, ResultOK)
	finish(d, ResultError, false, false, ResultOK)
	finish(d, ResultExpired, false, false, ResultOK)
	for _, end := range []Result{ResultExpired, ResultEvicted} {
		d = take()
		finish(d, end, true, false, end)
		finish(d, ResultExpired, false, false, end)
		finish(d, ResultCancelled, true, true, ResultCancelled)
		finish(d, ResultOK, false, false, ResultCancelled)
	}
}

// A slot that a newer decision takes leaves its place among those that end with
// the older one.
func TestANewerDecisionTakesTheSlotOutOfTheOldersPlace(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := newReservations(2)
	head := &fleet.Head{Live: new(fleet.Live)}
	ended := map[*Decision]bool{}
	end := func(d *Decision) { ended[d] = true; r.finish(d, &Outcome{Result: ResultExpired}) }
	add := func(at, lasts time.Duration) *Decision {
		d := &Decision{Head: head, At: start.Add(at), ttl: 1}
		d.lasts.Store(int64(lasts))
		if old := r.add(d); old != nil {
			r.finish(old, &evicted)
		}
		r.expire(start.Add(at), end)
		return d
	}
	first := add(0, time.Second)
	second := add(0, 10*time.Second)
	first.renew(start.Add(10 * time.Second))
	r.expire(start.Add(2*time.Second), end) // now both end at once, the first before the second
	third := add(2*time.Second, time.Minute)
	r.expire(start.Add(11*time.Second), end)
	if !ended[second] || ended[third] {
		t.Errorf("after its time the second ended: %v; the third: %v", ended[second], ended[third])
	}
}
