package strategy

import (
	"math"
	"math/bits"

	"headway/internal/fleet"
	"headway/internal/strict"
)

var sessionAffinitySpec = Spec{
	Name:    "session_affinity",
	Summary: "The same head for the same session, so that its cache is warm, unless that head has more than its share; requests without a session go by least_loaded.",
	Formula: "argmax hash(session, h)^(1/weight_h) over heads with requests < max(floor, ⌈bound · (Σ requests + 1) · capacity_h / Σ capacity⌉); requests = in_flight + beyond, capacity = max_in_flight · weight",
	Use:     "For conversations whose state or cache is at one head and of whose prompts nothing is known: it needs no more than a session's name. It loses to [`adaptive`](#adaptive) where prompts are known: a busy head keeps its sessions up to the bound although another would be sooner, and what different sessions have in common is not used.",
	Parameters: []Parameter{
		{
			Name: "bound", Kind: KindNumber, Default: 1.25, Min: 1, Max: 100,
			Summary: "How many times its fair share of requests a head may have before sessions go elsewhere.",
		},
		{
			Name: "floor", Kind: KindNumber, Default: 4.0, Min: 0, Max: 1e6, Unit: "requests",
			Summary: "A head may have this many requests regardless of its share. So a quiet fleet keeps its sessions together.",
		},
	},
	New: func(v Values, _ Build) (Strategy, []strict.Fault) {
		return sessionAffinity{bound: v.Number("bound"), floor: v.Number("floor")}, nil
	},
}

// sessionAffinity is weighted rendezvous hashing (Thaler and Ravishankar, 1998)
// with bounded loads (Mirrokni, Thorup and Zadimoghaddam, 2018): a head that
// comes or goes moves only its own sessions.
type sessionAffinity struct{ bound, floor float64 }

// allowance is how many requests a head may have and take a session.
type allowance struct {
	others
	perCapacity float64 // requests for each unit of capacity · weight, before rounding up
	fair        float64 // the same without the bound
	floor       float64
}

func (s sessionAffinity) Choose(in *Input, picks []Pick) int {
	session, ok := in.Session()
	if !ok {
		return leastLoaded{}.Choose(in, picks)
	}
	r := &in.Tier().Ranked
	allowed := s.allowance(in, r)
	n := allowed.nearest(in, r, session, picks)
	if n == 0 { // no head within the bound has a place
		return leastLoaded{}.Choose(in, picks)
	}
	h := in.Remembered()
	if h != nil && h != picks[0].Head && in.Available(h) && allowed.takes(h.Live, 1/h.Capacity(), h.MaxInFlight) {
		n = lead(picks, n, h)
	}
	return Fill(in, r.Heads, picks, n)
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

func (s sessionAffinity) allowance(in *Input, r *fleet.Ranked) allowance {
	total := newSums()
	known := 0. // by heads whose reports are gone by, beyond our own count
	for i, l := range r.Lives {
		inFlight, exact := l.Exact()
		total.add(inFlight, l.Beyond())
		if !exact && !l.OwnCounts() {
			requests, _ := reported(l, r.Limits[i])
			known += requests - float64(inFlight) - l.Beyond().Requests()
		}
	}
	mean, share := total.othersOf(r)
	fair := max(float64(total.own)+mean*r.Capacity+known+1, 1) / r.Capacity
	return allowance{others: in.others(mean, share), perCapacity: s.bound * fair, fair: fair, floor: s.floor}
}

// takes reports whether a head is within its allowance.
func (a *allowance) takes(l *fleet.Live, perLoad float64, limit int64) bool {
	inFlight, exact := l.Exact()
	most := max(a.floor, math.Ceil(a.perCapacity/perLoad))
	b := l.Beyond()
	if !exact && !l.OwnCounts() {
		fair := a.fair / perLoad
		requests, _ := reported(l, limit)
		return fair+(requests-fair)*trustIn(b, a.clock) < most
	}
	requests := float64(inFlight)
	if a.mean != 0 || b.Matters() {
		requests += a.at(b, perLoad)
	}
	return requests < most
}

// hashPair hashes a session with a head (the multiplication of wyhash), equal on
// every machine. Both words are well mixed.
func hashPair(session, head uint64) uint64 {
	hi, lo := bits.Mul64(session^0xa0761d6478bd642f, head^0xe7037ed1a0b428db)
	return hi ^ lo
}

// distance is -ln(u)/weight with u = hash(session, h) in (0, 1]: the head with
// the least takes the session. With equal weights it is 1-u, in the same order.
func distance(hash uint64, weight float64, even bool) float64 {
	u := float64(hash>>11+1) / (1 << 53)
	if even {
		return 1 - u
	}
	return -math.Log(u) / weight
}

// nearest writes into picks the available heads within the bound that are nearest
// to the session.
func (a *allowance) nearest(in *Input, r *fleet.Ranked, session uint64, picks []Pick) int {
	if r.MinWeight != r.MaxWeight {
		best := rank(len(picks))
		for i, h := range r.Heads {
			cost := distance(hashPair(session, r.Hashes[i]), h.Weight, false)
			if cost <= best.worst && in.fits(r, i) && a.takes(r.Lives[i], r.PerLoad[i], r.Limits[i]) && best.wants(cost) {
				best.add(&in.Rand, i, cost)
			}
		}
		return best.write(r.Heads, picks)
	}
	// Few heads are above the first floor, and nearly always enough.
	const enough = 12
	if n := uint64(len(r.Heads)); n > 2*enough {
		if n := a.nearestAbove(in, r, session, math.MaxUint64/n*(n-enough), picks); n == len(picks) {
			return n
		}
	}
	return a.nearestAbove(in, r, session, 0, picks)
}

// nearestAbove is nearest among the heads whose hash with the session is at
// least floor, if all weights are equal.
func (a *allowance) nearestAbove(in *Input, r *fleet.Ranked, session, floor uint64, picks []Pick) int {
	best := rank(len(picks))
	for i, hash := range r.Hashes {
		x := hashPair(session, hash)
		if x < floor || !in.fits(r, i) || !a.takes(r.Lives[i], r.PerLoad[i], r.Limits[i]) {
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

func (s sessionAffinity) Score(in *Input, scores []float64) {
	if session, ok := in.Session(); ok {
		r := &in.Tier().Ranked
		allowed := s.allowance(in, r)
		for i, h := range r.Heads {
			scores[i] = math.Inf(1)
			if in.fits(r, i) && allowed.takes(h.Live, r.PerLoad[i], r.Limits[i]) {
				scores[i] = distance(hashPair(session, h.Hash), h.Weight, r.MinWeight == r.MaxWeight)
			}
		}
		return
	}
	leastLoaded{}.Score(in, scores)
}
