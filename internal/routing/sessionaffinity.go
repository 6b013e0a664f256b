package routing

import (
	"math"

	"headway/internal/fleet"
)

var sessionAffinitySpec = Spec{
	Name:    "session_affinity",
	Summary: "The same head for the same session, so that its cache is warm, unless that head has more than its share; requests without a session go by least_loaded.",
	Formula: "argmax hash(session, h)^(1/weight_h) over heads with in_flight < ⌈bound · (total + 1) · weight_h / Σ weight⌉",
	Parameters: []Parameter{{
		Name: "bound", Kind: KindNumber, Default: 1.25, Min: 1, Max: 100,
		Summary: "How many times its fair share of requests in flight a head may have before sessions go elsewhere.",
	}},
	New: func(v Values, _ Build) (Strategy, []fleet.Fault) {
		return sessionAffinity{bound: v.Number("bound")}, nil
	},
}

// sessionAffinity is weighted rendezvous hashing (Thaler and Ravishankar, 1998)
// with bounded loads (Mirrokni, Thorup and Zadimoghaddam, 2018): a head that
// comes or goes moves only its own sessions.
type sessionAffinity struct{ bound float64 }

func (s sessionAffinity) Choose(in *Input, picks []Pick) int {
	session, ok := in.Session()
	if !ok {
		return leastLoaded{}.Choose(in, picks)
	}
	tier := in.Tier()
	scores := in.Scores(len(tier.Heads))
	perWeight := s.score(in, session, scores)
	n := least(in, tier.Heads, scores, picks)
	if n == 0 {
		return 0
	}
	h := in.Remembered()
	if h != nil && h != picks[0].Head && in.Available(h) && float64(h.Live.InFlight()) < math.Ceil(perWeight*h.Weight) {
		n = lead(picks, n, h)
	}
	return n
}

// lead puts h before the n picks there are.
func lead(picks []Pick, n int, h *fleet.Head) int {
	at := 0
	for at < n && picks[at].Head != h {
		at++
	}
	if at == n {
		if n < len(picks) {
			n++
		}
		at = n - 1
	}
	copy(picks[1:at+1], picks[:at])
	picks[0] = Pick{h, 0}
	return n
}

// score writes -ln(u)/weight with u = hash(session, h) in (0, 1]: the head with
// the least takes the session. Heads beyond the bound are not available. It
// returns the bound for a weight of 1, before rounding up.
func (s sessionAffinity) score(in *Input, session uint64, scores []float64) (perWeight float64) {
	r := &in.Tier().Ranked
	total := int64(1)
	for _, l := range r.Lives {
		total += l.InFlight()
	}
	perWeight = s.bound * float64(total) / r.Weight
	even := r.MinWeight == r.MaxWeight
	bound := int64(math.Ceil(perWeight * r.MaxWeight))
	hashes, limits := r.Hashes[:len(scores)], r.Limits[:len(scores)]
	for i, l := range r.Lives[:len(scores)] {
		n := l.InFlight()
		if !even {
			bound = int64(math.Ceil(perWeight * r.Heads[i].Weight))
		}
		if n >= bound || limits[i] > 0 && n >= limits[i] {
			scores[i] = math.Inf(1)
			continue
		}
		u := float64(Mix(session, hashes[i])>>11+1) / (1 << 53)
		if even {
			scores[i] = 1 - u // the same order as the logarithm's, and cheaper
		} else {
			scores[i] = -math.Log(u) / r.Heads[i].Weight
		}
	}
	exclude(in, r, scores)
	return perWeight
}

func (s sessionAffinity) Score(in *Input, scores []float64) {
	if session, ok := in.Session(); ok {
		s.score(in, session, scores)
		return
	}
	leastLoaded{}.Score(in, scores)
}
