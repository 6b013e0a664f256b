package main

import (
	"math"
	"time"

	"headway/internal/sim"
	"headway/internal/strategy"
	"headway/internal/workload"
)

// oracle takes the head where the first token of the request comes first, by looking
// into the heads: the queue, the cache and the batch as they are; of equals any. It is
// greedy: it does not look at what comes after, so a rule that does may be better.
func oracle(f *sim.Fleet, a *workload.Arrival) (head int) {
	least, draw := time.Duration(math.MaxInt64), uint64(0)
	for i := range f.Heads() {
		at, ok := f.Foresee(i, a)
		d := strategy.Mix(uint64(a.At), uint64(i))
		if ok && (at < least || at == least && d > draw) {
			head, least, draw = i, at, d
		}
	}
	return head
}
