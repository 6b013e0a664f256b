package routing

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/fleet"
	"headway/internal/strategy"
)

// BenchmarkCount is all that is counted: of a decision the look-up of its
// candidates, its strategy, model type and region, and its duration; of its end
// the result and the time to the first token. An atomic addition is the base.
func BenchmarkCount(b *testing.B) {
	m := newMetrics(prometheus.NewRegistry(), &Router{cache: newCandidateCache(nil)}, strategy.NewKnown(strategy.KnownOptions{Blocks: 1}).Sessions)
	set := new(candidates)
	d := &Decision{Strategy: "random", ModelType: "m", Head: &fleet.Head{Spec: fleet.Spec{Region: "r"}}}
	b.Run("decision", func(b *testing.B) {
		for b.Loop() {
			m.candidates.count(true)
			d.stats = m.decided(set, d)
			m.duration.observe(800 * time.Nanosecond)
		}
	})
	b.Run("end", func(b *testing.B) {
		o := Outcome{Result: ResultOK, TTFT: 120}
		for b.Loop() {
			m.ended(d, &o, false)
		}
	})
	b.Run("addition", func(b *testing.B) {
		var n atomic.Uint64
		for b.Loop() {
			n.Add(1)
		}
	})
}
