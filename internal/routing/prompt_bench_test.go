package routing_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"headway/internal/prefix"
	"headway/internal/strategy"
)

// text is a random text of so many tokens, which begins as all do.
func text(tokens, common int) []byte {
	t := make([]byte, 4*tokens)
	for i := range t[4*common:] {
		t[4*common+i] = byte(rand.Uint32())
	}
	return t
}

// must decides, and allocates nothing beside what that does.
func (w *world) must(b *testing.B, req *strategy.Request) {
	if _, err := w.router.Decide(req); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkDecidePrompt is Decide for prompts of 8,000 tokens of which each session has
// its own, at heads that have been given many.
func BenchmarkDecidePrompt(b *testing.B) {
	chains := make([][]uint64, 4096)
	for i := range chains {
		var c prefix.Chain
		c.Reset(nil)
		_, _ = c.Write(text(8000, 2000))
		chains[i] = c.Hashes
	}
	for _, n := range []int{64, 10000} {
		w := newWorld(b, nil)
		w.fill(n)
		for _, name := range []string{"adaptive", "least_loaded"} {
			b.Run(fmt.Sprintf("%s/heads=%d", name, n), func(b *testing.B) {
				req := &strategy.Request{ModelType: "m", Strategy: name, PromptBytes: 32000, InputTokens: 8000}
				b.ReportAllocs()
				for i := range b.N {
					req.PrefixHashes = chains[i%len(chains)]
					w.must(b, req)
				}
			})
		}
	}
}

// BenchmarkDecideLongPrompt is Decide for a prompt of 100,000 tokens, with the hashes of
// its text.
func BenchmarkDecideLongPrompt(b *testing.B) {
	w := newWorld(b, nil)
	w.fill(64)
	long, req := text(100_000, 0), &strategy.Request{ModelType: "m", PromptBytes: 400_000, InputTokens: 100_000}
	var c prefix.Chain
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		long[200_000+i%1000]++
		c.Reset(c.Hashes[:0])
		_, _ = c.Write(long)
		req.PrefixHashes = c.Hashes
		w.must(b, req)
	}
}

// stream decides for prompts of 2,000 tokens, one after the other.
type stream struct {
	*world

	b      *testing.B
	req    strategy.Request
	common int // blocks that all have
}

func newStream(b *testing.B) *stream {
	w := newWorld(b, nil)
	w.fill(64)
	var c prefix.Chain
	c.Reset(nil)
	_, _ = c.Write(text(2000, 0))
	return &stream{world: w, b: b, req: strategy.Request{ModelType: "m", PrefixHashes: c.Hashes, PromptBytes: 8000, InputTokens: 2000}}
}

// times are those of so many decisions, sorted.
func (s *stream) times(n int) []time.Duration {
	took := make([]time.Duration, n)
	for i := range took {
		s.another()
		began := time.Now()
		s.must(s.b, &s.req)
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return took
}

// another makes another prompt of the last one.
func (s *stream) another() {
	for j := s.common; j < len(s.req.PrefixHashes); j++ {
		s.req.PrefixHashes[j] = rand.Uint64()
	}
}

// skip decides so many times.
func (s *stream) skip(n int) {
	for range n {
		s.another()
		s.must(s.b, &s.req)
	}
}

func heap() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// Decisions until the ring of the recent ones is full, and those that are compared.
const warmUp, measured = 200_000, 10_000

// over is how many times as long as before a share of the decisions takes at most.
func over(after, before []time.Duration, share float64) float64 {
	at := int(share * measured)
	return float64(after[at]) / float64(before[at])
}

// BenchmarkDecideMillionPrompts is what a million prompts leave of which no two have
// anything in common: how much longer decisions take, and how much memory.
func BenchmarkDecideMillionPrompts(b *testing.B) {
	for range b.N {
		s := newStream(b)
		s.skip(warmUp)
		held, first := heap(), s.times(measured)
		s.skip(1_000_000 - 2*measured)
		last := s.times(measured)
		b.ReportMetric(over(last, first, 0.99), "×p99")
		b.ReportMetric((heap()-held)/(1<<20), "MiB")
		runtime.KeepAlive(s)
	}
}

// BenchmarkDecideSharedPrompts is how much longer decisions take after 100,000 prompts
// that share all but the last block, and than for prompts that share nothing.
func BenchmarkDecideSharedPrompts(b *testing.B) {
	for range b.N {
		s := newStream(b)
		s.skip(warmUp)
		distinct := s.times(measured)
		s.common = len(s.req.PrefixHashes) - 1
		s.skip(measured) // each head has what they share
		first := s.times(measured)
		s.skip(100_000 - 3*measured)
		last := s.times(measured)
		b.ReportMetric(over(last, first, 0.5), "×first")
		b.ReportMetric(over(last, distinct, 0.5), "×distinct")
	}
}
