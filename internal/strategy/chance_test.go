package strategy

import (
	"math"
	"slices"
	"testing"
	"time"

	"headway/internal/fleet"
)

// often is how often the strategy chooses each head of the tier.
func often(s Chooser, here Tier, m Memory, req *Request) []float64 {
	const rounds = 5_000
	in, often := new(Input), make([]float64, len(here.Heads))
	for seed := range uint64(rounds) {
		in.Begin(req, "m", noon, Mix(seed, 1), m, SessionHash(req.SessionKey, "m"))
		in.Tiers = []Tier{here}
		var picks [1 + MaxAlternatives]Pick
		if s.Choose(in, picks[:]) > 0 {
			often[slices.Index(here.Heads, picks[0].Head)]++
		}
	}
	for i := range often {
		often[i] /= rounds
	}
	return often
}

// said is how likely the strategy is said to choose each.
func said(s Chooser, here Tier, m Memory, req *Request) []float64 {
	plainly := Strategy(s)
	if by, ok := s.(byScore); ok {
		plainly = by.Strategy
	}
	in := new(Input)
	in.Begin(req, "m", noon, 7, m, SessionHash(req.SessionKey, "m"))
	in.Tiers = []Tier{here}
	chances, costs := make([]float64, len(here.Heads)), make([]float64, len(here.Heads))
	plainly.Score(in, costs)
	Chances(plainly, in, costs, chances)
	return chances
}

// Where heads are drawn before they are compared, go by their reports, or are counted by
// several routers, no chance is said but a true one.
func TestNoChanceIsSaidThatIsNotTrue(t *testing.T) {
	report := func(h *fleet.Head, requests int64, age time.Duration) {
		load := fleet.UnknownLoad()
		load.InFlight = requests
		h.Live.TakeReport(&load, noon.Add(-age), h.MaxInFlight, time.Second, 1)
	}
	uneven := []head{{1, 8, 0}, {2, 8, 1}, {1, 8, 3}, {1, 8, 5}}
	kinds := map[string]func() Tier{
		"by reports": func() Tier {
			here := tier("us", 0, uneven)
			for i, h := range here.Heads {
				for h.Live.Tracked() {
					h.Live.TryAcquire(0, fleet.Work{})
					h.Live.Expire(fleet.Work{})
				}
				report(h, int64(2*i), time.Second)
			}
			return here
		},
		"of several routers": func() Tier {
			here := tier("us", 0, []head{{1, 8, 1}, {1, 8, 1}, {1, 8, 1}})
			for i, h := range here.Heads {
				report(h, int64(2+i), 0)
			}
			return here
		},
		"large": func() Tier {
			here := large(fleet.LargeRank)[0]
			for _, h := range here.Heads[1:] {
				h.Live.TryAcquire(0, fleet.Work{Tokens: 5000, Pending: 5000})
			}
			return here
		},
	}
	known := map[string][]string{ // to compare nothing, or all heads by what is certain
		"by reports":         {"random", "round_robin", "weighted_round_robin"},
		"of several routers": {"random", "round_robin", "weighted_round_robin", "least_tokens", "adaptive", "slo", "priority_region"},
		"large":              {"random", "round_robin", "weighted_round_robin", "least_loaded", "power_of_two", "latency", "peak_ewma", "model_specific", "session_affinity", "geo_preferred"},
	}
	for kind, made := range kinds {
		for i := range specs {
			name := specs[i].Name
			s, here := chooser(t, name), made()
			chances := said(s, here, nil, &Request{ModelType: "m", InputTokens: 100})
			if unknown := math.IsNaN(chances[0]); unknown == slices.Contains(known[kind], name) {
				t.Errorf("%s, %s: the chances are unknown: %v", name, kind, unknown)
			} else if unknown {
				continue
			}
			for i, got := range often(s, here, nil, &Request{ModelType: "m", InputTokens: 100}) {
				if math.Abs(chances[i]-got) > 0.03 {
					t.Errorf("%s, %s: head %d was chosen %.3f of the time, with a chance of %.3f", name, kind, i, got, chances[i])
				}
			}
		}
	}
}

// The head that served a session is certain to be chosen for it.
func TestASessionIsCertainOfItsHead(t *testing.T) {
	s, here, m, req := chooser(t, "session_affinity"), tier("us", 0, []head{{1, 8, 0}, {1, 8, 0}, {1, 8, 0}}), NewKnown(KnownOptions{}), &Request{ModelType: "m", SessionKey: "ada"}
	for _, h := range here.Heads {
		in := input([]Tier{here}, req, 1)
		in.memory = m
		in.Remembered()
		m.Placed(in, h, fleet.Work{})
		want, chances := often(s, here, m, req), said(s, here, m, req)
		if !slices.Equal(chances, want) {
			t.Errorf("%s served the session: chances of %v, chosen %v", h.ID, chances, want)
		}
	}
}

// What a strategy is said to choose with which chance is what it chooses so often.
func TestChancesAreHowOftenHeadsAreChosen(t *testing.T) {
	fleets := map[string][]head{
		"uneven":       {{1, 8, 0}, {2, 8, 1}, {1, 8, 3}, {1, 8, 5}},
		"alike":        {{1, 8, 2}, {1, 8, 2}, {1, 8, 2}},
		"one is taken": {{1, 2, 2}, {1, 8, 1}, {3, 8, 1}},
		"one":          {{1, 8, 0}},
		"none is free": {{1, 2, 2}, {1, 2, 2}},
	}
	for i := range specs {
		name := specs[i].Name
		for kind, heads := range fleets {
			s, here := chooser(t, name), tier("us", 0, heads)
			chances, sum := said(s, here, nil, &Request{ModelType: "m"}), 0.
			for i, got := range often(s, here, nil, &Request{ModelType: "m"}) {
				sum += chances[i]
				if !(math.Abs(chances[i]-got) <= 0.03) {
					t.Errorf("%s, %s: head %d was chosen %.3f of the time, with a chance of %.3f", name, kind, i, got, chances[i])
				}
			}
			if math.Abs(sum-1) > 1e-9 && (kind != "none is free" || sum != 0) {
				t.Errorf("%s, %s: the chances sum up to %v", name, kind, sum)
			}
		}
	}
}
