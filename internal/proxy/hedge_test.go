package proxy

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"headway/internal/fleet"
	"headway/internal/policy"
)

func TestAQuantileNeedsTimesAndForgets(t *testing.T) {
	pools := map[string]*fleet.Pool{"m": {}}
	h := newHedging(prometheus.NewRegistry(), fixed{&fleet.Snapshot{Pools: pools}})
	key, p95 := timesKey{"m", true}, &policy.Hedge{Quantile: 0.95}
	for i := range leastSeen {
		if after, ok := h.after(p95, key); ok {
			t.Fatalf("after %d times it is %s", i, after)
		}
		h.saw(key, time.Duration(i+1)*time.Millisecond)
	}
	if after, ok := h.after(p95, key); !ok || after != 20*time.Millisecond {
		t.Errorf("of 1 to 20 ms it is %s, %t", after, ok)
	}
	for range keptTimes {
		h.saw(key, time.Second)
	}
	if after, _ := h.after(p95, key); after != time.Second {
		t.Errorf("of the latest it is %s", after)
	}
	if _, ok := h.after(p95, timesKey{"m", false}); ok {
		t.Error("streams count with others")
	}
	if after, ok := h.after(&policy.Hedge{AfterMs: 7}, timesKey{"other", false}); !ok || after != 7*time.Millisecond {
		t.Errorf("a fixed time is %s, %t", after, ok)
	}
	for i := range 2 * maxTimes {
		pools[fmt.Sprint(i)] = &fleet.Pool{}
		h.saw(timesKey{fmt.Sprint(i), false}, time.Second)
	}
	if len(h.times) != maxTimes || len(h.times[key].list) != keptTimes || testutil.ToFloat64(h.forgotten) != maxTimes+1 {
		t.Errorf("%d kinds and %d times are kept, %v were refused", len(h.times), len(h.times[key].list), testutil.ToFloat64(h.forgotten))
	}
	for name := range pools { // their heads have gone
		if name != "m" {
			delete(pools, name)
		}
	}
	pools["new"] = &fleet.Pool{}
	h.saw(timesKey{"new", true}, time.Second)
	if len(h.times) != 2 || h.times[key] == nil || testutil.ToFloat64(h.forgotten) != maxTimes+1 {
		t.Errorf("of models that are gone %d are kept", len(h.times))
	}
}

// fixed is a fleet that does not change.
type fixed struct{ snapshot *fleet.Snapshot }

func (f fixed) Snapshot() *fleet.Snapshot { return f.snapshot }
