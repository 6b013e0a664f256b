package strategy

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"headway/internal/fleet"
)

// queueLike plays prompts at heads of a pool that come at random times: one after the
// other at each, or in a head that is parallel each as if it were alone.
type queueLike struct {
	*engineLike
	parallel []bool
	at       time.Time
	each     time.Duration // between two prompts at a head, on average
	first    time.Duration // of a parallel head
	sooner   time.Duration // for each token, at one
	waits    []waiting     // for their first tokens
}

type waiting struct {
	head     int
	came, at time.Time
	work     fleet.Work
}

func newQueueLike(seed uint64, parallel ...bool) *queueLike {
	q := &queueLike{newEngineLike(make([]float64, len(parallel))...), parallel, noon, 350 * time.Millisecond, time.Second, 0, nil}
	q.random = rand.New(rand.NewPCG(seed, 1))
	return q
}

// play plays so many prompts.
func (q *queueLike) play(prompts int) {
	for range prompts {
		q.at = q.at.Add(time.Duration(q.random.ExpFloat64() * float64(q.each) / float64(len(q.heads))))
		for len(q.waits) > 0 && q.waits[0].at.Before(q.at) {
			q.begin()
		}
		i := q.random.IntN(len(q.heads))
		h, fresh := q.heads[i], int32(500+q.random.ExpFloat64()*3000)
		w := waiting{i, q.at, q.at, fleet.Work{Tokens: fresh, New: fresh, Pending: fresh}}
		h.Live.TryAcquire(0, w.work)
		q.pace.placed(h, w.work, q.at)
		took := float64(q.first - time.Duration(fresh)*q.sooner)
		if !q.parallel[i] {
			if q.now[i].After(w.at) {
				w.at = q.now[i]
			}
			took = (0.015 + float64(fresh)*6e-5) * float64(time.Second)
		}
		w.at = w.at.Add(time.Duration(took * math.Exp(0.3*q.random.NormFloat64())))
		q.now[i] = w.at
		place, _ := slices.BinarySearchFunc(q.waits, w, func(a, b waiting) int { return a.at.Compare(b.at) })
		q.waits = slices.Insert(q.waits, place, w)
	}
}

// begin has the next first token come.
func (q *queueLike) begin() {
	w := q.waits[0]
	q.waits = q.waits[1:]
	h := q.heads[w.head]
	h.Live.Answers(w.work.Pending, false)
	q.pace.firstToken(h, w.work, w.at.Sub(w.came), w.at)
	h.Live.Release(fleet.Work{Tokens: w.work.Tokens})
}

// found is which heads are taken to compute prompts in parallel.
func (q *queueLike) found() (found []bool) {
	for _, h := range q.heads {
		found = append(found, q.pace.parallelAt(h))
	}
	return found
}

// Heads that compute prompts one after the other are never taken for others, however busy
// they are.
func TestQueuesAreNotTakenForParallel(t *testing.T) {
	for seed := range uint64(2) {
		for _, each := range []time.Duration{250, 400, 3000} { // 230 take a prompt
			q := newQueueLike(seed, false, false, false, false)
			q.each = each * time.Millisecond
			for range 30 {
				q.play(100)
				if found := q.found(); slices.Contains(found, true) {
					t.Fatalf("seed %d, a prompt each %v: %v", seed, q.each, found)
				}
			}
		}
	}
}

func TestParallelHeadsAreFound(t *testing.T) {
	for seed := range uint64(2) {
		for _, each := range []time.Duration{20, 100, 500} {
			q := newQueueLike(seed, true, true, true, true)
			q.each = each * time.Millisecond
			q.play(int(4 * 300 * time.Second / q.each))
			if found := q.found(); slices.Contains(found, false) {
				t.Errorf("seed %d, a prompt each %v: %v", seed, q.each, found)
			}
			if p := q.pace.predict(q.heads[0], 1000, 0); p < 800 || p > 1300 {
				t.Errorf("seed %d, a prompt each %v: a first token is expected after %.0f ms, and comes after a second", seed, q.each, p)
			}
		}
	}
}

// How long parallel heads take is known also where long prompts begin no later than
// short ones, and tokens explain nothing.
func TestParallelHeadsNeedNoTimeForTokens(t *testing.T) {
	q := newQueueLike(1, true, true)
	q.sooner = 20 * time.Microsecond
	q.play(6000)
	if p := q.pace.predict(q.heads[0], 1000, 0); !(p > 850 && p < 1150) {
		t.Errorf("a first token is expected after %.0f ms, and comes after some 960", p)
	}
}

// known is whether the speed of a head is.
func (q *queueLike) known(head int) bool {
	_, known := q.pace.speed(q.heads[head])
	return known
}

// What was learned of a head by the measure of another kind says nothing of it, and
// what was learned beside a pool of another kind nothing either.
func TestWhatAnotherMeasureSaidIsForgotten(t *testing.T) {
	q := newQueueLike(1, false, true, false, false)
	for q.play(100); !q.found()[1]; q.play(1) {
		if !q.known(1) {
			t.Fatal("nothing was learned of the head as a queue")
		}
	}
	if q.known(1) || !q.known(0) {
		t.Errorf("as it is found to be parallel its speed is known: %v, that of another: %v", q.known(1), q.known(0))
	}
	q.play(3000)
	for i := range q.parallel {
		q.parallel[i] = true
	}
	if slower := q.pace.Slower(q.heads[1]); slower < 2 {
		t.Fatalf("beside queues the hosted head is taken to be %.1f times as slow", slower)
	}
	for range 20_000 { // until the pool is found to be of another kind
		if q.play(1); q.pace.parallel {
			break
		}
	}
	if !q.found()[1] || q.known(1) {
		t.Errorf("as the pool is found to be parallel (%v) the speed of a head is known that was so before: %v, %.1f times as slow", q.found(), q.known(1), q.pace.Slower(q.heads[1]))
	}
}

// A head with the number of a hosted one may be a queue.
func TestAKindIsThatOfAHeadNotOfItsNumber(t *testing.T) {
	q := newQueueLike(1, false, true, false, false)
	q.play(6000)
	next := &fleet.Head{Number: 1, Instance: 9, Live: new(fleet.Live)}
	if !q.pace.keep(q.heads) || !q.pace.parallelAt(q.heads[1]) {
		t.Fatal("the hosted head is not found, or forgotten while it is there")
	}
	if q.pace.keep([]*fleet.Head{next}); q.pace.parallelAt(next) {
		t.Error("a new head is taken to be hosted, as the one before it was")
	}
}

// A hosted API beside engines is found for what it is, and they for what they are; what
// becomes an engine is found again.
func TestAParallelHeadIsFoundAmongQueues(t *testing.T) {
	for seed := range uint64(2) {
		q := newQueueLike(seed, false, true, false, false)
		q.play(6000)
		if found := q.found(); !slices.Equal(found, q.parallel) {
			t.Errorf("seed %d: %v", seed, found)
		}
		if slower := q.pace.Slower(q.heads[1]) / q.pace.Slower(q.heads[0]); slower < 3 || slower > 7 {
			t.Errorf("seed %d: a head that takes a second is taken to be %.1f times as slow as those that take 0.23 s", seed, slower)
		}
		q.parallel[1] = false
		q.play(15_000)
		if found := q.found(); slices.Contains(found, true) {
			t.Errorf("seed %d: none is parallel any more: %v", seed, found)
		}
	}
}

// followed has a head compute a prompt of 1,000 tokens, which takes it 0.1 s, with so much
// ahead on which it has worked so long, and that comes so long after.
func followed(d *delay, now *int64, ahead float64, worked, first time.Duration) {
	d.follow(*now, ahead, int64(worked))
	d.learn(*now, first, 1000, 0.1)
	*now += int64(time.Second)
}

// saysParallel is what is known of a head that is not taken to be parallel.
func saysParallel(d *delay) bool {
	var e evidence
	e.add(d)
	return e.parallel(false, poolSure)
}

func TestAFewRequestsSayNothingOfDelays(t *testing.T) {
	var d delay
	now, n := int64(1), 0
	for range 200 {
		followed(&d, &now, 0, 0, 100*time.Millisecond)
	}
	for ; n < 100 && !saysParallel(&d); n++ {
		followed(&d, &now, 10_000, 0, 100*time.Millisecond)
	}
	if n < 15 || n > 40 {
		t.Errorf("after %d requests that did not wait for the second of work ahead the head is parallel (%v), want some twenty", n, saysParallel(&d))
	}
}

// Of what a head has worked on already only the rest delays.
func TestWhatIsNearlyDoneDelaysLittle(t *testing.T) {
	var d delay
	now := int64(1)
	for i := range 300 {
		followed(&d, &now, 0, 0, 100*time.Millisecond)
		worked := time.Duration(700+i%25*10) * time.Millisecond
		followed(&d, &now, 10_000, worked, 1100*time.Millisecond-worked)
		if saysParallel(&d) {
			t.Fatalf("after %d requests that waited for the rest of the prompt ahead it is taken to delay nothing", i)
		}
	}
}
