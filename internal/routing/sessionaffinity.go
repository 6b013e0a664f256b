package routing

import (
	"math"
	"math/bits"

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
	r := &in.Tier().Ranked
	perWeight := s.perWeight(r)
	n := s.nearest(in, r, session, perWeight, picks)
	if n == 0 { // those within the bound have no place
		return leastLoaded{}.Choose(in, picks)
	}
	h := in.Remembered()
	if h != nil && h != picks[0].Head && in.Available(h) && float64(h.Live.InFlight()) < math.Ceil(perWeight*h.Weight) {
		n = lead(picks, n, h)
	}
	return fill(in, r.Heads, picks, n)
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

// perWeight is how many requests a head of weight 1 may have in flight to take
// a session, before rounding up.
func (s sessionAffinity) perWeight(r *fleet.Ranked) float64 {
	total := int64(1)
	for _, l := range r.Lives {
		total += l.InFlight()
	}
	return s.bound * float64(total) / r.Weight
}

// hashPair hashes a session with a head (the multiplication of wyhash); equal on
// every machine. Both words are well mixed already.
func hashPair(session, head uint64) uint64 {
	hi, lo := bits.Mul64(session^0xa0761d6478bd642f, head^0xe7037ed1a0b428db)
	return hi ^ lo
}

// distance is -ln(u)/weight with u = hash(session, h) in (0, 1]: the head with
// the least takes the session. Where all weights are equal it is 1-u, which
// orders heads alike.
func distance(hash uint64, weight float64, even bool) float64 {
	u := float64(hash>>11+1) / (1 << 53)
	if even {
		return 1 - u
	}
	return -math.Log(u) / weight
}

// nearest writes the available heads within the bound that are nearest to the
// session into picks and returns how many.
func (s sessionAffinity) nearest(in *Input, r *fleet.Ranked, session uint64, perWeight float64, picks []Pick) int {
	if r.MinWeight != r.MaxWeight {
		best := rank(len(picks))
		for i, h := range r.Heads {
			cost := distance(hashPair(session, r.Hashes[i]), h.Weight, false)
			if cost <= best.worst && s.takes(in, r, i, perWeight) && best.wants(cost) {
				best.add(&in.Rand, i, cost)
			}
		}
		return best.write(r.Heads, picks)
	}
	// Few heads are above the first floor, and nearly always enough.
	const enough = 12
	if n := uint64(len(r.Heads)); n > 2*enough {
		if n := s.nearestAbove(in, r, session, math.MaxUint64/n*(n-enough), perWeight, picks); n == len(picks) {
			return n
		}
	}
	return s.nearestAbove(in, r, session, 0, perWeight, picks)
}

// nearestAbove is nearest among the heads whose hash with the session is at
// least floor, if all weights are equal.
func (s sessionAffinity) nearestAbove(in *Input, r *fleet.Ranked, session, floor uint64, perWeight float64, picks []Pick) int {
	best := rank(len(picks))
	bound := int64(math.Ceil(perWeight * r.MaxWeight))
	for i, hash := range r.Hashes {
		x := hashPair(session, hash)
		if x < floor || r.Lives[i].InFlight() >= bound || !in.fits(r, i) {
			continue
		}
		if cost := distance(x, 1, true); best.wants(cost) {
			best.add(&in.Rand, i, cost)
			if best.worst < 1 {
				floor = max(floor, uint64((1-best.worst)*(1<<53)-1)<<11)
			}
		}
	}
	return best.write(r.Heads, picks)
}

// takes reports whether head i of r is available and within the bound.
func (s sessionAffinity) takes(in *Input, r *fleet.Ranked, i int, perWeight float64) bool {
	return r.Lives[i].InFlight() < int64(math.Ceil(perWeight*r.Weights[i])) && in.fits(r, i)
}

func (s sessionAffinity) Score(in *Input, scores []float64) {
	if session, ok := in.Session(); ok {
		r := &in.Tier().Ranked
		perWeight := s.perWeight(r)
		for i, h := range r.Heads {
			scores[i] = math.Inf(1)
			if s.takes(in, r, i, perWeight) {
				scores[i] = distance(hashPair(session, h.Hash), h.Weight, r.MinWeight == r.MaxWeight)
			}
		}
		return
	}
	leastLoaded{}.Score(in, scores)
}
