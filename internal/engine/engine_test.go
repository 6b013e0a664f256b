package engine_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"headway/internal/engine"
)

// small is a head with room for 8 blocks, so that memory runs out early.
func small() engine.Profile {
	return engine.Profile{
		Name: "small", T0: 1, W: 1, B: 0.01, C: 1e-6, E: 1e-5, D: 0.01,
		KVTokens: 8 * engine.BlockTokens, StepTokens: 1024, MaxSequences: 4, MaxContext: 1 << 20,
	}
}

func newEngine(t interface {
	Helper()
	Fatal(args ...any)
}, p engine.Profile,
) *engine.Engine {
	t.Helper()
	e, err := engine.New(engine.Options{Profile: p, MaxWaiting: 1000})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// play steps an engine until it is idle and returns when that is, and all tokens.
func play(e *engine.Engine) (end time.Duration, tokens []engine.Token) {
	for {
		next, busy := e.Next()
		if !busy {
			return end, tokens
		}
		end = next
		tokens = append(tokens, e.Advance(next)...)
	}
}

// blocks makes n chained hashes of a conversation.
func blocks(conversation, n int) []uint64 {
	list := make([]uint64, n)
	for i := range list {
		list[i] = uint64(conversation)<<32 | uint64(i) + 1
	}
	return list
}

func TestStepTakesWhatTheFormulaSays(t *testing.T) {
	p := small()
	e := newEngine(t, p)
	const start = time.Hour
	if _, err := e.Submit(start, engine.Request{PromptTokens: 1500, OutputTokens: 2}); err != nil {
		t.Fatal(err)
	}
	want := []float64{
		p.T0 + p.B*1024 + p.C*1024*512 + p.D,      // first chunk, no context
		p.T0 + p.B*476 + p.C*476*(1024+238) + p.D, // the rest, and the first token
		p.T0 + p.W + p.E*1500 + p.D,               // one decode: the weights take longer
	}
	last := start
	for i, ms := range want {
		next, busy := e.Next()
		if !busy {
			t.Fatalf("step %d: idle", i)
		}
		if got := float64(next-last) / float64(time.Millisecond); !(math.Abs(got-ms) <= 1e-5) {
			t.Errorf("step %d takes %.6f ms, want %.6f", i, got, ms)
		}
		if tokens := e.Advance(next - 1); len(tokens) != 0 {
			t.Errorf("step %d gave %d tokens before its end", i, len(tokens))
		}
		tokens := e.Advance(next)
		if wantTokens := min(i, 1); len(tokens) != wantTokens {
			t.Errorf("step %d gave %d tokens, want %d", i, len(tokens), wantTokens)
		}
		for _, tk := range tokens {
			if tk.At != next || tk.N != i || tk.Last != (i == 2) {
				t.Errorf("step %d gave token %+v at %v", i, tk, next)
			}
		}
		last = next
	}
	if _, busy := e.Next(); busy {
		t.Error("the engine is not idle after the last token")
	}
}

// A saturated engine computes prompts as fast as the system that its profile
// was fitted to.
func TestPrefillThroughputIsTheProfiles(t *testing.T) {
	for name, want := range map[string]float64{
		"qwen32b-h100x2":  15_928,                    // measured by llm-d
		"llama8b-h100":    0.45 * 989e12 / (2 * 8e9), // 45 % of an H100's peak, 2 FLOPs a parameter and token
		"llama70b-h100x2": 1000 / 0.0799,             // the linear term of Preble's fit
	} {
		t.Run(name, func(t *testing.T) {
			p := engine.ProfileNamed(name)
			e := newEngine(t, p)
			const prompts, length = 200, 4000
			for range prompts {
				if _, err := e.Submit(0, engine.Request{PromptTokens: length, OutputTokens: 1}); err != nil {
					t.Fatal(err)
				}
			}
			took, _ := play(e)
			got := prompts * length / took.Seconds()
			if !(math.Abs(got/want-1) <= 0.12) {
				t.Errorf("%.0f prompt tokens a second, want %.0f within 12 %%", got, want)
			}
		})
	}
}

func TestPrefixHitsShortenThePrefill(t *testing.T) {
	p := engine.ProfileNamed("qwen32b-h100x2")
	e := newEngine(t, p)
	var now time.Duration
	ask := func(tokens, shared int) (ttft time.Duration, cached int) {
		began := now
		s, err := e.Submit(now, engine.Request{PromptTokens: tokens, OutputTokens: 1, Blocks: blocks(1, shared)})
		if err != nil {
			t.Fatal(err)
		}
		now, _ = play(e)
		return now - began, s.Cached()
	}
	cold, cached := ask(8192, 16)
	if cached != 0 {
		t.Fatalf("the first prompt found %d tokens in an empty cache", cached)
	}
	warm, cached := ask(8192+512, 16)
	if cached != 8192 {
		t.Errorf("%d of 8192 shared tokens were cached", cached)
	}
	if warm > cold/5 {
		t.Errorf("16 of 17 blocks cached: first token after %v, cold after %v; want under a fifth", warm, cold)
	}
	if _, cached = ask(8192, 16); cached != 15*engine.BlockTokens {
		t.Errorf("a prompt that is cached whole uses %d tokens of it, want all but the last block", cached)
	}
}

func TestEvictedBlocksComeBackFromTheCPUTier(t *testing.T) {
	for _, tier := range []int{0, 64 * engine.BlockTokens} {
		t.Run(fmt.Sprintf("tier of %d", tier), func(t *testing.T) {
			p := small()
			p.CPUTokens, p.LD = tier, 0.001
			e := newEngine(t, p)
			ask := func(conversation int) int {
				s, err := e.Submit(0, engine.Request{
					PromptTokens: 4*engine.BlockTokens + 1, OutputTokens: 1, Blocks: blocks(conversation, 4),
				})
				if err != nil {
					t.Fatal(err)
				}
				play(e)
				return s.Cached()
			}
			for conversation := range 4 { // twice as much as fits
				ask(conversation)
			}
			want := 0
			if tier > 0 {
				want = 4 * engine.BlockTokens
			}
			if got := ask(0); got != want {
				t.Errorf("the first conversation has %d tokens cached, want %d", got, want)
			}
			if loaded := e.Counters().LoadedTokens; loaded != uint64(want) {
				t.Errorf("%d tokens loaded, want %d", loaded, want)
			}
		})
	}
}

func TestTheSequenceAdmittedLastMakesRoom(t *testing.T) {
	p := small()
	e := newEngine(t, p)
	// Two prompts fit, their output does not.
	var order []*engine.Sequence
	for range 2 {
		s, err := e.Submit(0, engine.Request{PromptTokens: 4*engine.BlockTokens - 100, OutputTokens: 200})
		if err != nil {
			t.Fatal(err)
		}
		order = append(order, s)
	}
	var finished []*engine.Sequence
	_, tokens := play(e)
	for _, tk := range tokens {
		if tk.Last {
			finished = append(finished, tk.Sequence)
		}
	}
	if !slices.Equal(finished, order) {
		t.Error("the sequences did not finish in the order of their arrival")
	}
	if c := e.Counters(); c.Preemptions == 0 || c.OutputTokens != 400 {
		t.Errorf("%d preemptions and %d output tokens, want some and 400", c.Preemptions, c.OutputTokens)
	}
}

func TestSubmitRefuses(t *testing.T) {
	p := small()
	e, err := engine.New(engine.Options{Profile: p, MaxWaiting: 1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.Submit(0, engine.Request{PromptTokens: p.KVTokens, OutputTokens: 1})
	if !errors.Is(err, engine.ErrTooLong) {
		t.Errorf("a sequence of one token more than the cache: %v, want ErrTooLong", err)
	}
	_, err = e.Submit(0, engine.Request{PromptTokens: math.MaxInt, OutputTokens: math.MaxInt})
	if !errors.Is(err, engine.ErrTooLong) {
		t.Errorf("an overflowing sequence: %v, want ErrTooLong", err)
	}
	if _, err = e.Submit(0, engine.Request{PromptTokens: 0, OutputTokens: 1}); err == nil {
		t.Error("an empty prompt was accepted")
	}
	if _, err = e.Submit(0, engine.Request{PromptTokens: 1, OutputTokens: 0}); err == nil {
		t.Error("a request for no output was accepted")
	}
	if _, err = e.Submit(0, engine.Request{PromptTokens: p.KVTokens - 1, OutputTokens: 1}); err != nil {
		t.Errorf("a sequence as large as the cache: %v", err)
	}
	if _, err = e.Submit(0, engine.Request{PromptTokens: 1, OutputTokens: 1}); err != nil {
		t.Errorf("the first that has to wait: %v", err)
	}
	if _, err = e.Submit(0, engine.Request{PromptTokens: 1, OutputTokens: 1}); !errors.Is(err, engine.ErrQueueFull) {
		t.Errorf("one more than may wait: %v, want ErrQueueFull", err)
	}
	c := e.Counters()
	if c.RefusedTooLong != 2 || c.RefusedFullWait != 1 {
		t.Errorf("refusals counted: %d too long, %d full; want 2, 1", c.RefusedTooLong, c.RefusedFullWait)
	}
}

func TestProfilesAreRefusedWhenTheyCannotWork(t *testing.T) {
	for name, spoil := range map[string]func(*engine.Profile){
		"negative cost":    func(p *engine.Profile) { p.C = -1 },
		"not a number":     func(p *engine.Profile) { p.B = math.NaN() },
		"free steps":       func(p *engine.Profile) { p.T0, p.W = 0, 0 },
		"no memory":        func(p *engine.Profile) { p.KVTokens = 100 },
		"negative tier":    func(p *engine.Profile) { p.CPUTokens = -1 },
		"no sequences":     func(p *engine.Profile) { p.MaxSequences = 0 },
		"a step too small": func(p *engine.Profile) { p.StepTokens = p.MaxSequences - 1 },
		"context of one":   func(p *engine.Profile) { p.MaxContext = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			p := small()
			spoil(&p)
			if _, err := engine.New(engine.Options{Profile: p, MaxWaiting: 1}); err == nil {
				t.Errorf("accepted: %+v", p)
			}
		})
	}
	if _, err := engine.New(engine.Options{Profile: small()}); err == nil {
		t.Error("an engine in which nothing may wait was accepted")
	}
}
