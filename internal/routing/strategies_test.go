package routing_test

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"headway/internal/fleet"
	"headway/internal/routing"
	"headway/internal/strategy"
)

// For each fleet and request, what a strategy chooses may serve it, no
// head is named twice, and a request is refused only when no head may serve it.
func TestEveryStrategyChoosesWhatMayServe(t *testing.T) {
	for _, spec := range strategy.Specs() {
		t.Run(spec.Name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				w := newWorld(t, nil)
				w.randomFleet(rt)
				for range rapid.IntRange(1, 30).Draw(rt, "decisions") {
					w.decideAndHold(rt, spec.Name)
				}
			})
		})
	}
}

var someRegions = []string{"us", "eu", "ap"}

// randomFleet registers up to eight heads and lets them report.
func (w *world) randomFleet(rt *rapid.T) {
	for i := range rapid.IntRange(1, 8).Draw(rt, "heads") {
		id := fmt.Sprintf("h%d", i)
		lease := w.head(id, rapid.SampledFrom(someRegions).Draw(rt, "region"), func(s *fleet.Spec) {
			s.Weight = rapid.SampledFrom([]float64{1, 1, 3, 0.01, 1000}).Draw(rt, "weight")
			s.MaxInFlight = rapid.Int64Range(0, 4).Draw(rt, "max_in_flight")
		})
		w.report(id, lease, rapid.SampledFrom([]fleet.Status{
			fleet.StatusActive, fleet.StatusActive, fleet.StatusActive, fleet.StatusDegraded, fleet.StatusDraining,
		}).Draw(rt, "status"))
	}
}

// decideAndHold decides on a random request and checks the answer against the
// fleet as it was.
func (w *world) decideAndHold(rt *rapid.T, name string) {
	req := strategy.Request{
		ModelType: "m", Strategy: name,
		Region:     rapid.SampledFrom(append([]string{"", "mars"}, someRegions...)).Draw(rt, "asked"),
		RegionMode: rapid.SampledFrom([]strategy.RegionMode{strategy.RegionPrefer, strategy.RegionRequire}).Draw(rt, "mode"),
		SessionKey: rapid.SampledFrom([]string{"", "s1", "s2"}).Draw(rt, "session"),
		Exclude:    rapid.SliceOfN(rapid.SampledFrom([]string{"h0", "h1", "h2"}), 0, 2).Draw(rt, "exclude"),
	}
	var may []*fleet.Head
	for _, h := range w.fleet.Snapshot().Pools["m"].All.Heads {
		if h.Routable() && (req.RegionMode == strategy.RegionPrefer || h.Region == req.Region) &&
			!slices.Contains(req.Exclude, h.ID) && (h.MaxInFlight == 0 || h.Live.InFlight() < h.MaxInFlight) {
			may = append(may, h)
		}
	}
	d, err := w.router.Decide(&req)
	if err != nil {
		if len(may) > 0 {
			rt.Fatalf("refused (%v), and %d heads may serve it", err, len(may))
		}
		return
	}
	named := map[*fleet.Head]bool{}
	for _, h := range append([]*fleet.Head{d.Head}, heads(d.Alternatives())...) {
		if named[h] || !slices.Contains(may, h) {
			rt.Fatalf("%s: named twice, or it may not serve %+v", h.ID, req)
		}
		named[h] = true
	}
	if want := min(len(may)-1, strategy.MaxAlternatives); len(d.Alternatives()) != want {
		rt.Fatalf("%d alternatives of %d heads that may serve, want %d", len(d.Alternatives()), len(may), want)
	}
	if d.Head.Status == fleet.StatusDegraded && w.active(may, d.Head.Region) {
		rt.Fatalf("degraded %s was chosen, and an active one of its region may serve", d.Head.ID)
	}
}

func heads(picks []strategy.Pick) (list []*fleet.Head) {
	for _, p := range picks {
		list = append(list, p.Head)
	}
	return list
}

func (w *world) active(may []*fleet.Head, region string) bool {
	return slices.ContainsFunc(may, func(h *fleet.Head) bool { return h.Status == fleet.StatusActive && h.Region == region })
}

// A decision allocates itself and nothing else: what the collector has to do
// for it is what other routers spend most of their time on.
func TestADecisionIsOneAllocation(t *testing.T) {
	if routing.RaceEnabled {
		t.Skip("the race detector lets pools forget")
	}
	if size := reflect.TypeFor[routing.Decision]().Size(); size > 256 {
		t.Errorf("a decision has %d bytes; beyond 256 the allocator takes the next size, for each of them", size)
	}
	w := newWorld(t, nil)
	w.fill(100)
	hashes := make([]uint64, 30)
	for i := range hashes {
		hashes[i] = uint64(i + 1)
	}
	for _, spec := range strategy.Specs() {
		for name, req := range map[string]strategy.Request{
			"plain":  {ModelType: "m", Strategy: spec.Name},
			"all":    {ModelType: "m", Strategy: spec.Name, Region: "region-1", SessionKey: "s", Exclude: []string{"head-00001"}},
			"prompt": {ModelType: "m", Strategy: spec.Name, PrefixHashes: hashes, PromptBytes: 32 << 10, InputTokens: 8000},
		} {
			w.decide(req) // the candidates are remembered from here on
			n := testing.AllocsPerRun(1000, func() {
				if _, err := w.router.Decide(&req); err != nil {
					t.Fatal(err)
				}
			})
			if n > 1 {
				t.Errorf("%s, %s: %v allocations", spec.Name, name, n)
			}
		}
	}
}
