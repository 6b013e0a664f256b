package engine_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"headway/internal/engine"
)

// For any submissions and cancellations each request ends once, tokens are
// conserved, first tokens come in the order of arrival, memory is never given
// out twice, and the same calls give the same results.
func TestEngineProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, calls := drawProfile(t), drawCalls(t)
		first := runCalls(t, p, calls)
		again := runCalls(t, p, calls)
		if !slices.Equal(first, again) {
			t.Fatal("the same calls gave other results")
		}
	})
}

// The times at which the engine is advanced and looked at change nothing.
func TestAdvancingInOneStepOrInManyIsTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, calls := drawProfile(t), drawCalls(t)
		stops := rapid.SliceOfN(rapid.Int64Range(0, int64(time.Second)), 0, 50).Draw(t, "stops")
		slices.Sort(stops)
		once, counted := tokensOf(t, p, calls, nil)
		often, countedToo := tokensOf(t, p, calls, stops)
		if !slices.Equal(once, often) {
			t.Fatalf("in one step %v\nin many %v", once, often)
		}
		if counted != countedToo {
			t.Fatalf("counted in one step %+v, in many %+v", counted, countedToo)
		}
	})
}

// token is an engine's token, comparable between engines.
type token struct {
	at       time.Duration
	n, order int
	last     bool
}

// tokensOf makes the calls, advancing at the stops, or once at the end.
func tokensOf(t *rapid.T, p engine.Profile, calls []call, stops []int64) (list []token, _ engine.Counters) {
	e := newEngine(t, p)
	order := make(map[*engine.Sequence]int)
	var all []*engine.Sequence
	collect := func(tokens []engine.Token) {
		for _, tk := range tokens {
			list = append(list, token{at: tk.At, n: tk.N, order: order[tk.Sequence], last: tk.Last})
		}
	}
	var now time.Duration
	for _, c := range calls {
		now += c.after
		for len(stops) > 0 && time.Duration(stops[0]) < now {
			e.Load(time.Duration(stops[0]))
			collect(e.Advance(time.Duration(stops[0])))
			stops = stops[1:]
		}
		if c.cancel && len(all) > 0 {
			e.Cancel(now, all[c.pick%len(all)])
			continue
		}
		s, err := e.Submit(now, c.request)
		if err != nil {
			t.Fatal(err)
		}
		order[s] = len(all)
		all = append(all, s)
	}
	for _, stop := range stops {
		collect(e.Advance(time.Duration(stop)))
	}
	collect(e.Advance(now + time.Hour))
	if _, busy := e.Next(); busy {
		t.Fatal("the engine is busy for an hour")
	}
	return list, e.Counters()
}

func drawProfile(t *rapid.T) engine.Profile {
	p := small()
	if rapid.Bool().Draw(t, "tier") {
		p.CPUTokens = 4 * engine.BlockTokens
	}
	return p
}

// call is a request or the cancellation of one.
type call struct {
	after   time.Duration // since the last call
	cancel  bool
	request engine.Request
	pick    int
}

func drawCalls(t *rapid.T) []call {
	return rapid.SliceOfN(rapid.Custom(drawCall), 1, 40).Draw(t, "calls")
}

func drawCall(t *rapid.T) call {
	n := rapid.IntRange(1, 7*engine.BlockTokens).Draw(t, "prompt")
	return call{
		after:  time.Duration(rapid.Int64Range(0, int64(40*time.Millisecond)).Draw(t, "after")),
		cancel: rapid.IntRange(0, 3).Draw(t, "cancel") == 0,
		request: engine.Request{
			PromptTokens: n,
			OutputTokens: rapid.IntRange(1, engine.BlockTokens).Draw(t, "output"),
			Blocks:       blocks(rapid.IntRange(0, 2).Draw(t, "conversation"), n/engine.BlockTokens),
		},
		pick: rapid.IntRange(0, 1000).Draw(t, "pick"),
	}
}

// ledger checks what an engine does against what it was asked.
type ledger struct {
	t         *rapid.T
	e         *engine.Engine
	now       time.Duration
	log       []string
	asked     map[*engine.Sequence]engine.Request
	generated map[*engine.Sequence]int
	order     []*engine.Sequence // alive, by arrival
	finished  int
}

func runCalls(t *rapid.T, p engine.Profile, calls []call) []string {
	l := &ledger{
		t: t, e: newEngine(t, p), asked: make(map[*engine.Sequence]engine.Request),
		generated: make(map[*engine.Sequence]int),
	}
	submitted, canceled := 0, 0
	for _, c := range calls {
		l.until(l.now + c.after)
		if !c.cancel {
			s, err := l.e.Submit(l.now, c.request)
			if err != nil {
				t.Fatal(err)
			}
			submitted++
			l.asked[s] = c.request
			l.order = append(l.order, s)
		} else if len(l.order) > 0 {
			i := c.pick % len(l.order)
			l.e.Cancel(l.now, l.order[i])
			l.e.Cancel(l.now, l.order[i]) // the second time does nothing
			delete(l.asked, l.order[i])
			l.order = slices.Delete(l.order, i, i+1)
			canceled++
		}
	}
	l.until(l.now + time.Hour)
	if _, busy := l.e.Next(); busy || len(l.order) > 0 || l.finished+canceled != submitted {
		t.Fatalf("%d submitted: %d finished, %d canceled, %d left", submitted, l.finished, canceled, len(l.order))
	}
	if got := l.e.Load(l.now); got.Running+got.Waiting+got.PendingPromptTokens != 0 || got.KVUsage != 0 {
		t.Fatalf("an idle engine reports %+v", got)
	}
	if c := l.e.Counters(); c.Finished != uint64(l.finished) || c.Canceled != uint64(canceled) {
		t.Fatalf("counted %+v, want %d finished and %d canceled", c, l.finished, canceled)
	}
	return l.log
}

// until plays the steps up to a time one by one and checks each.
func (l *ledger) until(now time.Duration) {
	for {
		next, busy := l.e.Next()
		if !busy && len(l.order) > 0 {
			l.t.Fatalf("idle with %d sequences alive", len(l.order))
		}
		if !busy || next > now {
			break
		}
		if next <= l.now {
			l.t.Fatalf("a step ends at %v, not after %v", next, l.now)
		}
		l.now = next
		l.step()
	}
	l.now = now
	if tokens := l.e.Advance(now); len(tokens) > 0 {
		l.t.Fatalf("%d tokens between two steps", len(tokens))
	}
}

func (l *ledger) step() {
	position := -1
	for _, tk := range l.e.Advance(l.now) {
		l.token(tk, &position)
	}
	load := l.e.Load(l.now)
	if load.KVUsage < 0 || load.KVUsage > 1 || load.PendingPromptTokens < 0 ||
		!(load.Utilization >= 0 && load.Utilization <= 1) || !(load.TokensPerSecond >= 0) {
		l.t.Fatalf("load %+v", load)
	}
	if err := l.e.CheckMemory(); err != nil {
		l.t.Fatal(err)
	}
	l.log = append(l.log, fmt.Sprintf("%d %+v %+v", l.now, load, l.e.Counters()))
}

// token checks one token; position is the arrival of the last one in the step.
func (l *ledger) token(tk engine.Token, position *int) {
	s := tk.Sequence
	r, ok := l.asked[s]
	if !ok {
		l.t.Fatal("a token for a sequence that is gone")
	}
	at := slices.Index(l.order, s)
	if at <= *position {
		l.t.Fatalf("arrival %d got its token after arrival %d in one step", at, *position)
	}
	*position = at
	l.generated[s]++
	if tk.N == 1 {
		for _, earlier := range l.order[:at] {
			if l.generated[earlier] == 0 {
				l.t.Fatal("a later arrival got its first token before an earlier one")
			}
		}
	}
	if tk.At != l.now || tk.N != l.generated[s] || tk.Last != (tk.N == r.OutputTokens) {
		l.t.Fatalf("token %d of %d at %v: %+v", l.generated[s], r.OutputTokens, l.now, tk)
	}
	if s.Cached() >= r.PromptTokens {
		l.t.Fatalf("%d of %d prompt tokens cached", s.Cached(), r.PromptTokens)
	}
	if tk.Last {
		delete(l.asked, s)
		l.order = slices.DeleteFunc(l.order, func(o *engine.Sequence) bool { return o == s })
		*position = at - 1
		l.finished++
	}
}

func BenchmarkStepOfFullBatch(b *testing.B) {
	p := engine.ProfileNamed("llama8b-h100")
	e, err := engine.New(engine.Options{Profile: p, MaxWaiting: 1000})
	if err != nil {
		b.Fatal(err)
	}
	var now time.Duration
	for b.Loop() {
		if l := e.Load(now); l.Running+l.Waiting < p.MaxSequences {
			for range p.MaxSequences {
				if _, err := e.Submit(now, engine.Request{PromptTokens: 600, OutputTokens: 300, Blocks: blocks(1, 1)}); err != nil {
					b.Fatal(err)
				}
			}
		}
		now, _ = e.Next()
		e.Advance(now)
	}
}
