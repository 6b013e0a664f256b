package strategy

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"headway/internal/fleet"
)

// engineLike plays prompts at heads of a pool, one after the other at each, as an engine
// of these times would: a fixed part, tokens, attention, and noise.
type engineLike struct {
	random *rand.Rand
	pace   *Pace
	heads  []*fleet.Head
	slower []float64
	now    []time.Time
}

func newEngineLike(slower ...float64) *engineLike {
	e := &engineLike{random: rand.New(rand.NewPCG(1, 2)), pace: newPace(), slower: slower}
	for i := range slower {
		e.heads = append(e.heads, &fleet.Head{Number: i, Instance: uint64(i + 1), Live: new(fleet.Live)})
		e.now = append(e.now, noon)
	}
	return e
}

func (e *engineLike) play(prompts int) {
	for range prompts {
		i := e.random.IntN(len(e.heads))
		h := e.heads[i]
		tokens := 500 + e.random.ExpFloat64()*4000
		fresh := tokens * (0.1 + 0.9*e.random.Float64())
		w := fleet.Work{Tokens: int32(tokens), New: int32(fresh), Pending: int32(fresh)}
		h.Live.TryAcquire(0, w)
		e.pace.placed(h, w, e.now[i])
		took := e.slower[i] * (0.015 + fresh*6e-5 + 5e-9*fresh*(tokens-fresh/2)) * math.Exp(0.3*e.random.NormFloat64())
		e.now[i] = e.now[i].Add(time.Duration(took * float64(time.Second)))
		h.Live.Answers(w.Pending, false)
		e.pace.firstToken(h, w, time.Hour, e.now[i])
		h.Live.Release(fleet.Work{Tokens: w.Tokens})
		e.now[i] = e.now[i].Add(time.Duration(e.random.ExpFloat64() * float64(100*time.Millisecond)))
	}
}

// together plays so many prompts that a head computes at once.
func (e *engineLike) together(i, prompts int) {
	h, took := e.heads[i], 0.003
	var all []fleet.Work
	for range prompts {
		tokens := int32(50 + e.random.ExpFloat64()*100)
		w := fleet.Work{Tokens: tokens, New: tokens, Pending: tokens}
		h.Live.TryAcquire(0, w)
		e.pace.placed(h, w, e.now[i])
		took += 6e-5 * float64(tokens)
		all = append(all, w)
	}
	took *= e.slower[i] * math.Exp(0.1*e.random.NormFloat64())
	e.now[i] = e.now[i].Add(time.Duration(took * float64(time.Second)))
	for k, w := range all {
		h.Live.Answers(w.Pending, false)
		e.pace.firstToken(h, w, time.Hour, e.now[i].Add(time.Duration(k)*50*time.Microsecond))
		h.Live.Release(fleet.Work{Tokens: w.Tokens})
	}
	e.now[i] = e.now[i].Add(10 * time.Millisecond)
}

// Prompts that a head computes at once took their time together: a head that has more of
// them is not faster for it.
func TestPromptsThatAreComputedTogetherAreOneSample(t *testing.T) {
	for _, slower := range [][]float64{{1, 1, 1, 1}, {1, 1, 2, 2}} {
		e := newEngineLike(slower...)
		for range 400 {
			for i := range e.heads {
				e.together(i, 1+e.random.IntN(1+6*(i%2)))
			}
		}
		for i, h := range e.heads {
			if s := e.pace.Slower(h) / e.pace.Slower(e.heads[0]) / slower[i]; s < 0.85 || s > 1.15 {
				t.Errorf("of heads that take %v times as long, with about %d prompts at once head %d is taken to be %.2f times as slow as head 0",
					slower, 1+3*(i%2), i, e.pace.Slower(h)/e.pace.Slower(e.heads[0]))
			}
		}
	}
}

// Heads that are equal stay equal, however different their prompts: only what differs
// by more than chance counts.
func TestEqualHeadsStayEqual(t *testing.T) {
	e := newEngineLike(1, 1, 1, 1, 1, 1, 1, 1)
	for range 20 {
		e.play(200)
		for i, h := range e.heads {
			if s := e.pace.Slower(h); s < 0.95 || s > 1.05 {
				t.Fatalf("head %d of equal ones is taken to be %.3f times as slow", i, s)
			}
		}
	}
}

func TestSpeedsAreLearned(t *testing.T) {
	e := newEngineLike(1.6, 1.6, 1, 1, 0.64, 0.64)
	e.play(1500)
	for i, h := range e.heads {
		if ratio := e.pace.Slower(h) / e.pace.Slower(e.heads[2]) / e.slower[i]; ratio < 0.85 || ratio > 1.15 {
			t.Errorf("head %d is taken to be %.2f times as slow as head 2, and is %.2f", i, e.pace.Slower(h)/e.pace.Slower(e.heads[2]), e.slower[i])
		}
	}
	// A head that becomes slow is known to be, and later that it is well again.
	e.slower[2] = 4
	e.play(600)
	if s := e.pace.Slower(e.heads[2]) / e.pace.Slower(e.heads[3]); s < 2.5 {
		t.Errorf("a head that takes four times as long as before is taken to be %.2f times as slow", s)
	}
	e.slower[2] = 1
	e.play(3000)
	if s := e.pace.Slower(e.heads[2]) / e.pace.Slower(e.heads[3]); s > 1.2 {
		t.Errorf("a head that is as fast as before is taken to be %.2f times as slow", s)
	}
	// Another epoch may be another machine.
	e.heads[0].Instance = 99
	e.play(1)
	e.pace.firstToken(e.heads[0], fleet.Work{Tokens: 10, New: 10, Pending: 10}, time.Hour, e.now[0])
	if s := e.pace.Slower(e.heads[0]); s != 1 {
		t.Errorf("a head in a new epoch is taken to be %.2f times as slow", s)
	}
	late := *e.heads[1]
	late.Instance = 1 // an epoch before that of head 1, which is 2
	was := e.pace.Slower(e.heads[1])
	e.pace.firstToken(&late, fleet.Work{Tokens: 10, New: 10, Pending: 10}, time.Hour, e.now[1].Add(time.Hour))
	if s := e.pace.Slower(e.heads[1]); s != was {
		t.Errorf("what comes late of an epoch that is over changes %.2f to %.2f", was, s)
	}
}

// What is known of how fast heads are lasts where others join.
func TestSpeedsLastWhereHeadsJoin(t *testing.T) {
	e := newEngineLike(2, 1, 1)
	e.play(600)
	was := e.pace.Slower(e.heads[0])
	e.pace.placed(&fleet.Head{Number: 1000, Live: new(fleet.Live)}, fleet.Work{}, noon)
	if is := e.pace.Slower(e.heads[0]); is != was || is < 1.2 {
		t.Errorf("a head takes %.2f times as long as others, and %.2f times before another joined", is, was)
	}
}

// The prediction is the time that prompts take.
func TestTheTimeToTheFirstTokenIsPredicted(t *testing.T) {
	e := newEngineLike(1, 1, 1)
	if p := e.pace.predict(e.heads[0], 1000, 0); !math.IsNaN(p) {
		t.Errorf("before any prompt %v ms are predicted", p)
	}
	e.play(1000)
	for _, tokens := range []float64{1000, 4000, 12000} {
		want := 1000 * (0.015 + tokens*6e-5 + 5e-9*tokens*tokens/2) * math.Exp(0.3*0.3/2)
		got := e.pace.predict(e.heads[0], e.pace.Weigh(tokens, tokens), 0)
		if got < 0.8*want || got > 1.2*want {
			t.Errorf("%.0f ms are predicted for %v tokens, want about %.0f", got, tokens, want)
		}
	}
}

func TestWhatIsPromisedIsComparedWithWhatIsThere(t *testing.T) {
	p, h := newPace(), &fleet.Head{Live: new(fleet.Live)}
	w := fleet.Work{Tokens: 1000, New: 100}
	for range 100 {
		p.delivered(h, w, 900)
	}
	if !p.Trusted() || p.Delivered() != 1 {
		t.Fatalf("all of what was promised was there: trusted %v, delivered %v", p.Trusted(), p.Delivered())
	}
	n := 0
	for ; p.Trusted() && n < 200; n++ {
		p.delivered(h, w, 0)
	}
	if p.Trusted() || n > 150 {
		t.Fatalf("after %d prompts of which nothing was there: trusted %v", n, p.Trusted())
	}
	for ; !p.Trusted() && n < 400; n++ {
		p.delivered(h, w, 900)
	}
	if !p.Trusted() {
		t.Error("it is there again, and not trusted")
	}

	fresh := newPace()
	for n = 0; fresh.Trusted() && n < 100; n++ {
		fresh.delivered(h, w, 0)
	}
	if fresh.Trusted() || n < 20 {
		t.Errorf("distrusted after %d prompts (%v), want some tens", n, !fresh.Trusted())
	}
	for range 1000 {
		p.delivered(h, fleet.Work{Tokens: 100, New: 90}, 0)
	}
	if !p.Trusted() {
		t.Error("ten tokens that were not there say something")
	}
}

func TestAnEmptiedCacheIsNoticed(t *testing.T) {
	p, h := newPace(), &fleet.Head{Number: 3, Live: new(fleet.Live)}
	w := fleet.Work{Tokens: 1000, New: 100}
	for _, c := range []struct {
		cached int64
		empty  bool
	}{{900, false}, {0, false}, {0, false}, {16, false}, {0, false}, {0, false}, {0, true}, {0, false}} {
		if empty := p.delivered(h, w, c.cached); empty != c.empty {
			t.Errorf("with %d of 900 cached: empty is %v", c.cached, empty)
		}
	}
}

// Heads report the cache of the accelerator alone: what further tiers hold is learned,
// and so is that an engine keeps less.
func TestTheSizeOfCachesIsLearned(t *testing.T) {
	p, h := newPace(), &fleet.Head{Live: new(fleet.Live)}
	for range 60 {
		p.delivered(h, fleet.Work{Tokens: 10_000, New: 9000}, 9000)
	}
	times, corrected := p.Holds()
	if times < 3 || corrected != 60 || p.cache(h) != times*usualCache {
		t.Errorf("caches hold %v times what they report after %d corrections", times, corrected)
	}
	other := newPace()
	other.HeardHolds(times, corrected)
	if got, _ := other.Holds(); got != times {
		t.Errorf("another router takes it for %v", got)
	}
	other.HeardHolds(1, 3)
	if got, _ := other.Holds(); got != times {
		t.Errorf("the word of a router that knows less is taken: %v", got)
	}
	for range 400 {
		p.delivered(h, fleet.Work{Tokens: 10_000, New: 1000}, 4000)
	}
	if less, _ := p.Holds(); less >= times/3 {
		t.Errorf("they had less 400 times, and hold %v times what they report", less)
	}
}

// reportedHead is one whose answers come whole, and that reports so many pending tokens.
func reportedHead(pending int64) *fleet.Head {
	h := &fleet.Head{Number: 0, Instance: 1, Live: new(fleet.Live)}
	for range 20 {
		h.Live.TryAcquire(0, fleet.Work{Tokens: 10, Pending: 10})
		h.Live.Answers(10, true)
		h.Live.Release(fleet.Work{Tokens: 10})
	}
	load := fleet.UnknownLoad()
	load.InFlight, load.Queued, load.PendingPromptTokens = 0, 0, pending
	h.Live.TakeReport(&load, noon, 0, time.Second, 0)
	return h
}

// Where no first tokens are seen, a head computes what is ahead of it meanwhile, and
// no more than that.
func TestWhatWasReportedIsComputedMeanwhile(t *testing.T) {
	p := newPace()
	h := reportedHead(0)
	ahead := func(after time.Duration) float64 {
		var b fleet.Burden
		if p.read(&b, h.Live, h.Number, 0, 0, 1, fleet.Clock(noon.Add(after))); !b.Reported {
			t.Fatal("its own counts stand for what is ahead")
		}
		return b.Ahead
	}
	place := func(after time.Duration, tokens int32) {
		w := fleet.Work{Tokens: tokens, New: tokens, Pending: tokens}
		h.Live.TryAcquire(0, w)
		p.placed(h, w, noon.Add(after))
	}
	// 15,000 tokens a second are usual, before any time is known.
	place(0, 15_000)
	place(500*time.Millisecond, 3_000)
	for _, c := range []struct{ after, want float64 }{{0.5, 10_500}, {1, 3_000}, {1.1, 1_500}, {1.3, 0}, {5, 0}} {
		if got := ahead(time.Duration(c.after * float64(time.Second))); math.Abs(got-c.want) > 20 {
			t.Errorf("%.0f tokens are ahead after %v s, want %v", got, c.after, c.want)
		}
	}
	// Time without a prompt does not count for one that comes later.
	place(10*time.Second, 3_000)
	if got := ahead(10 * time.Second); math.Abs(got-3_000) > 20 {
		t.Errorf("%.0f tokens are ahead of the one prompt that just came, want its 3,000", got)
	}
}

// Times to the first token that come with outcomes say how fast heads compute, as far
// as they have no wait in them.
func TestReportedTimesSayHowFastHeadsAre(t *testing.T) {
	p := newPace()
	random := rand.New(rand.NewPCG(3, 4))
	for range 400 {
		tokens := 200 + random.Float64()*4000
		wait := max(0, random.NormFloat64())
		after := time.Duration((wait + tokens/40e3) * float64(time.Second))
		p.learnRate(fleet.Work{Tokens: int32(2 * tokens), New: int32(2 * tokens)}, int64(tokens), after)
	}
	if rate := 1 / p.perToken(); rate < 25e3 || rate > 41e3 {
		t.Errorf("heads of 40,000 tokens a second are taken to compute %.0f", rate)
	}
}

// Each prompt takes some time of its own, however much of it is cached.
func TestEachPromptWeighsSomething(t *testing.T) {
	p := newPace()
	if w := p.Weigh(1000, 0); w != usualBase/usualToken {
		t.Errorf("a prompt without a new token weighs %v", w)
	}
	e := newEngineLike(1, 1, 1)
	e.play(1000) // 15 ms and 60 µs a token
	if w := e.pace.Weigh(1000, 0); w < 100 || w > 400 {
		t.Errorf("a prompt without a new token weighs %v tokens, want about 250", w)
	}
}

// Where heads take no longer for more tokens, nothing is ahead for long, and costs are
// numbers.
func TestNothingWaitsWhereTokensTakeNoTime(t *testing.T) {
	p := newPace()
	p.model.Store(&paceModel{rest: 0.2})
	h := reportedHead(0)
	w := fleet.Work{Tokens: 1000, New: 1000, Pending: 1000}
	for range 2 { // in the same millisecond
		h.Live.TryAcquire(0, w)
		p.placed(h, w, noon)
	}
	var b fleet.Burden
	if p.read(&b, h.Live, h.Number, 0, 0, 1, fleet.Clock(noon)); b.Ahead != 0 {
		t.Errorf("%v tokens are ahead", b.Ahead)
	}
}

// A time that cannot be counts as one that can.
func TestImpossibleTimesCountLittle(t *testing.T) {
	p := newPace()
	w := fleet.Work{Tokens: 1000, New: 1000}
	for range 200 {
		p.learnRate(w, fleet.Unknown, 100*time.Millisecond)
	}
	p.learnRate(w, fleet.Unknown, time.Nanosecond)
	if rate := 1 / p.perToken(); rate > 20e3 {
		t.Errorf("after one time of a nanosecond heads of 10,000 tokens a second are taken to compute %.0f", rate)
	}
}

// A prompt that was placed just now is expected to wait for what is ahead, and to be
// computed itself: as it was expected before it was placed.
func TestWhatIsExpectedOfAPlacedPromptHasThePrompt(t *testing.T) {
	k := NewKnown(KnownOptions{Blocks: 1})
	p := k.Pace("m")
	p.model.Store(&paceModel{token: 1e-4})
	h := reportedHead(0)
	for i := range 4 {
		in := Input{Request: &Request{ModelType: "m", InputTokens: 10_000}, memory: k, ModelType: "m", Now: noon, clock: fleet.Clock(noon)}
		in.RecallPrompt()
		before := in.See(h).Predicted
		w := in.Work(h)
		h.Live.TryAcquire(0, w)
		after := in.Predict(h, w)
		p.placed(h, w, noon)
		if want := float64(i+1) * 1000; math.Abs(before-want) > 1 || math.Abs(after-want) > 1 {
			t.Errorf("prompt %d is expected after %.0f ms, once placed after %.0f, want %.0f", i, before, after, want)
		}
	}
}

// A head that takes twice as long has the more left, and what many placed at once is
// all noted.
func TestWhatIsLeftIsLeftBySlowHeadsLonger(t *testing.T) {
	p := newPace()
	h := reportedHead(0)
	p.head(h.Number)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 500 {
				w := fleet.Work{Tokens: 30, New: 30, Pending: 30}
				h.Live.TryAcquire(0, w)
				p.placed(h, w, noon)
			}
		})
	}
	all.Wait()
	ahead := func(after time.Duration) float64 {
		var b fleet.Burden
		p.read(&b, h.Live, h.Number, 0, 0, 1, fleet.Clock(noon.Add(after)))
		return b.Ahead
	}
	if got := ahead(0); got != 120_000 {
		t.Errorf("%.0f tokens are ahead of the 120,000 placed", got)
	}
	usual := 120_000 - ahead(time.Second)
	p.speeds()[h.Number].Store(math.Float64bits(2))
	if slow := 120_000 - ahead(time.Second); math.Abs(slow-usual/2) > 1 {
		t.Errorf("a head that takes twice as long computes %.0f tokens in the time in which others compute %.0f", slow, usual)
	}
}
