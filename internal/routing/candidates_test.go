package routing_test

import (
	"fmt"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"headway/internal/fleet"
	"headway/internal/policy"
	"headway/internal/routing"
	"headway/internal/strategy"
)

// aTick is longer than the router takes to notice what is past.
const aTick = time.Second

// What is remembered of a pool must not keep it in memory once a head of it has
// changed, although no request has the same criteria again.
func TestCandidatesOfThePastAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		lease := w.head("flapping", "eu", nil)
		for i := range 7 {
			w.head(fmt.Sprintf("head-%d", i), "eu", func(s *fleet.Spec) { s.Labels = map[string]string{"n": strconv.Itoa(i)} })
		}
		var pools []weak.Pointer[fleet.Pool]
		for i := range 7 {
			w.report("flapping", lease, []fleet.Status{fleet.StatusDegraded, fleet.StatusActive}[i%2])
			pools = append(pools, weak.Make(w.fleet.Snapshot().Pools["m"]))
			w.decide(strategy.Request{Labels: map[string]string{"n": strconv.Itoa(i)}})
		}
		time.Sleep(aTick)
		runtime.GC()
		for i, p := range pools[:len(pools)-1] {
			if p.Value() != nil {
				t.Errorf("pool %d of %d is in memory still", i+1, len(pools))
			}
		}
		if pools[len(pools)-1].Value() == nil {
			t.Error("the pool in use is gone")
		}
	})
}

// Rotation goes on where it was although the candidates were forgotten.
func TestForgottenCandidatesKeepTheirTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		for _, id := range []string{"a", "b", "c"} {
			w.head(id, "eu", nil)
		}
		lease := w.head("flapping", "us", nil)
		taken := map[string]int{}
		const rounds = 10
		for i := range 3 * rounds {
			d := w.decide(strategy.Request{Strategy: "round_robin", Region: "eu", RegionMode: strategy.RegionRequire})
			taken[d.Head.ID]++
			w.report("flapping", lease, []fleet.Status{fleet.StatusDegraded, fleet.StatusActive}[i%2])
			time.Sleep(aTick)
		}
		for _, id := range []string{"a", "b", "c"} {
			if taken[id] != rounds {
				t.Fatalf("each of a, b and c is to be taken %d times; taken were %v", rounds, taken)
			}
		}
	})
}

// Callers choose the labels, so what is kept for their sake has a bound in
// memory and not only in number.
func TestCandidatesByLabelsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // no head goes silent meanwhile
		w := newWorld(t, nil)
		const heads, labels = 1200, 10
		all := map[string]string{}
		for i := range labels {
			all["l"+strconv.Itoa(i)] = "1"
		}
		w.fillWith(heads, func(s *fleet.Spec) { s.Labels = all })
		for subset := range 1 << labels {
			want := map[string]string{}
			for i := range labels {
				if subset>>i&1 == 1 {
					want["l"+strconv.Itoa(i)] = "1"
				}
			}
			w.decide(strategy.Request{Labels: want})
		}
		held, limit := routing.CopiedPlaces(w.router)
		if held > limit || held < limit-heads {
			t.Errorf("%d places are held; at most %d may be, and one set fewer is enough", held, limit)
		}
	})
}

// A rule that requires the request's region serves no request without one.
func TestARuleThatRequiresARegionFailsClosed(t *testing.T) {
	w := newWorld(t, nil)
	w.head("a", "eu", nil)
	policy, faults := policy.Compile(policy.Document{
		DefaultStrategy: "random",
		Rules:           []policy.Rule{{Strategy: "random", RegionMode: "require"}},
		CallerMay:       []string{"explain"},
	})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	w.decide(strategy.Request{}) // a decision to replay
	if replay := w.router.Replay(policy); replay.Failed != 1 {
		t.Errorf("of a decision without a region the replay says %+v; want it to fail", replay)
	}
}
