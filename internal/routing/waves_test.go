package routing_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"headway/internal/strategy"
)

// A thousand policies, each of a hundred aliases, hold no more memory than the
// one in force.
func TestAThousandPoliciesLeaveOne(t *testing.T) {
	w := newWorld(t, nil)
	w.head("a", "us", nil)
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what lay in a pool
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	apply := func(from, to int) {
		for revision := from; revision < to; revision++ {
			var aliases []string
			for i := range 100 {
				aliases = append(aliases, fmt.Sprintf("alias-%d-%d: m", revision, i))
			}
			w.policy("default_strategy: round_robin\naliases: {" + strings.Join(aliases, ", ") + "}")
			w.decide(strategy.Request{ModelType: fmt.Sprintf("alias-%d-99", revision)})
		}
	}
	apply(0, 100)
	before := heap()
	apply(100, 1000)
	const margin = 4 << 20 // less than 5 KB for each of the 900; one takes over 10 KB
	if after := heap(); after > before+margin {
		t.Errorf("900 policies leave %d bytes: %d before, %d after", after-before, before, after)
	}
	if got := w.router.Policy().Revision; got != 1000 {
		t.Errorf("revision %d is in force", got)
	}
}
