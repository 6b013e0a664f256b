package strategy

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"headway/internal/fleet"
	"headway/internal/strict"
)

// plain makes a strategy with its defaults.
func plain(name string, _ map[string]any) (Strategy, []strict.Fault) {
	spec := specs[slices.IndexFunc(specs, func(s Spec) bool { return s.Name == name })]
	values := Values{}
	for _, p := range spec.Parameters {
		if p.Default != nil {
			values[p.Name] = p.Default
		}
	}
	return spec.New(values, plain)
}

func chooser(t rapid.TB, name string) Chooser {
	t.Helper()
	s, faults := plain(name, nil)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return ChooserOf(s)
}

// scored is a strategy without its Choose.
type scored struct{ s Strategy }

func (s scored) Score(in *Input, scores []float64) { s.s.Score(in, scores) }

// head is what a test says of a head.
type head struct {
	weight          float64
	limit, inFlight int
}

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// tier makes a tier of heads whose outcomes are reported and that report nothing.
func tier(region string, distance float64, heads []head) Tier {
	var joined []fleet.Step
	for i, h := range heads {
		live, id := new(fleet.Live), fmt.Sprintf("%s-%d", region, i)
		live.ForgetReport()
		live.ReportedLate()
		for range h.inFlight {
			live.TryAcquire(0, fleet.Work{})
		}
		joined = append(joined, fleet.Step{Next: &fleet.Head{
			Spec:   fleet.Spec{ID: id, ModelTypes: []string{"m"}, Region: region, Weight: h.weight, MaxInFlight: int64(h.limit)},
			Status: fleet.StatusActive, Health: fleet.HealthFresh, Hash: fleet.HashID(id), Instance: uint64(i + 1), Live: live,
		}})
	}
	snapshot, _ := new(fleet.Snapshot).With(joined)
	return Tier{Ranked: snapshot.Pools["m"].All.Active, Region: region, Distance: distance, State: NewState(0)}
}

func input(tiers []Tier, req *Request, seed uint64) *Input {
	in := new(Input)
	in.Begin(req, "m", noon, seed, nil, SessionHash(req.SessionKey, "m"))
	in.Tiers = tiers
	return in
}

// costs are the scores of all heads that the strategy chooses from.
func costs(s Strategy, across bool, in *Input) map[string]float64 {
	all := map[string]float64{}
	for in.At = range in.Tiers {
		scores := make([]float64, len(in.Heads()))
		s.Score(in, scores)
		for i, h := range in.Heads() {
			all[h.ID] = scores[i]
		}
		if !across {
			break
		}
	}
	in.At = 0
	return all
}

// best are the heads of the least cost.
func best(costs map[string]float64) []string {
	least := math.Inf(1)
	for _, c := range costs {
		least = min(least, c)
	}
	var ids []string
	for id, c := range costs {
		if c == least && !math.IsInf(c, 1) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// The manual has a paragraph on each strategy that says where it loses.
func TestEachStrategySaysWhenItLoses(t *testing.T) {
	for _, s := range specs {
		if s.Summary == "" || s.Formula == "" || !strings.Contains(s.Use, " loses ") {
			t.Errorf("%s: summary %q, formula %q, use %q", s.Name, s.Summary, s.Formula, s.Use)
		}
	}
}

// Choose takes the heads that Score says are best, each of those that are equal,
// and none that is not available. A strategy without a Choose is served alike.
func TestChooseTakesWhatScoresBest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) head {
			return head{
				weight:   rapid.SampledFrom([]float64{1, 1, 2, 0.5}).Draw(t, "weight"),
				limit:    rapid.IntRange(0, 4).Draw(t, "limit"),
				inFlight: rapid.IntRange(0, 4).Draw(t, "in flight"),
			}
		}), 1, 6)
		tiers := []Tier{tier("us", 0, draw.Draw(t, "near")), tier("eu", 80, draw.Draw(t, "far"))}
		req := &Request{SessionKey: rapid.SampledFrom([]string{"", "ada", "bob"}).Draw(t, "session")}
		if rapid.Bool().Draw(t, "exclude") {
			req.Exclude = []string{"us-0"}
		}
		for i := range specs {
			spec, s := &specs[i], chooser(t, specs[i].Name)
			costs := costs(s, spec.AcrossRegions, input(tiers, req, 1))
			want, choosers := best(costs), map[string]Chooser{spec.Name: s}
			if !spec.AcrossRegions { // those look beyond the scores of one tier
				choosers[spec.Name+" by its scores"] = ChooserOf(scored{s})
			}
			for name, s := range choosers {
				check(t, name, s, costs, want, tiers, req)
			}
		}
	})
}

func check(t *rapid.T, name string, s Chooser, costs map[string]float64, want []string, tiers []Tier, req *Request) {
	available := map[string]bool{}
	for i := range tiers {
		for _, h := range tiers[i].Heads {
			if _, scored := costs[h.ID]; scored && input(tiers, req, 1).Available(h) {
				available[h.ID] = true
			}
		}
	}
	chosen := map[string]bool{}
	for seed := range uint64(200) {
		var picks [1 + MaxAlternatives]Pick
		n := s.Choose(input(tiers, req, seed), picks[:])
		if n != min(len(available), len(picks)) {
			t.Fatalf("%s chose %d heads of %v", name, n, costs)
		}
		seen := map[string]bool{}
		for _, p := range picks[:n] {
			if !available[p.Head.ID] || seen[p.Head.ID] {
				t.Fatalf("%s chose %s, seen before: %v, of %v", name, p.Head.ID, seen[p.Head.ID], costs)
			}
			seen[p.Head.ID] = true
		}
		switch {
		case len(want) == 0: // none is the best
			return
		case slices.Contains([]string{"power_of_two", "latency", "peak_ewma"}, name): // of any two
			if n > 1 && costs[picks[1].Head.ID] < costs[picks[0].Head.ID] {
				t.Fatalf("%s chose %s before %s of %v", name, picks[0].Head.ID, picks[1].Head.ID, costs)
			}
			return
		}
		chosen[picks[0].Head.ID] = true
	}
	var got []string
	for id := range chosen {
		if math.IsNaN(costs[id]) { // it does not compare
			return
		}
		got = append(got, id)
	}
	slices.Sort(got)
	if name == "geo_preferred" { // of regions that cost the same, the nearer is taken
		want = slices.DeleteFunc(slices.Clone(want), func(id string) bool { return !chosen[id] })
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%s chose %v, of %v the best are %v", name, got, costs, want)
	}
}

// Strategies that draw or rotate choose each head as often as they should.
func TestChooseTakesEachHeadAsOftenAsItShould(t *testing.T) {
	weighted := []head{{weight: 1}, {weight: 2}, {weight: 5}, {weight: 8, limit: 1, inFlight: 1}}
	loaded := []head{{weight: 1, inFlight: 3}, {weight: 1}, {weight: 1, inFlight: 1}, {weight: 1, inFlight: 2}}
	for name, c := range map[string]struct {
		heads []head
		want  []float64
	}{
		"round_robin":          {loaded, []float64{1. / 4, 1. / 4, 1. / 4, 1. / 4}},
		"random":               {weighted, []float64{1. / 8, 2. / 8, 5. / 8, 0}},
		"weighted_round_robin": {weighted, []float64{1. / 8, 2. / 8, 5. / 8, 0}},
		// Of n(n-1) ordered pairs of four, the least is in 6, the next leads 4 …
		"power_of_two": {loaded, []float64{0, 6. / 12, 4. / 12, 2. / 12}},
	} {
		s, tiers := chooser(t, name), []Tier{tier("us", 0, c.heads)}
		const draws = 80_000
		times := map[string]int{}
		for seed := range uint64(draws) {
			var picks [1]Pick
			s.Choose(input(tiers, &Request{}, Mix(seed, 1)), picks[:])
			times[picks[0].Head.ID]++
		}
		for i, want := range c.want {
			if got := float64(times[fmt.Sprintf("us-%d", i)]) / draws; math.Abs(got-want) > 0.01 {
				t.Errorf("%s took head %d in %.3f of its choices; want %.3f", name, i, got, want)
			}
		}
	}
}
