package strategy

import (
	"math"
	"slices"
	"time"

	"headway/internal/fleet"
)

// Term is a part of a head's cost.
type Term struct {
	Name  string
	Value float64
	Unit  string // "": none
}

// Explainer is a Strategy whose costs are made of terms.
type Explainer interface {
	Strategy
	// Terms are those of head i of the tier.
	Terms(in *Input, i int) []Term
}

// Terms are those of head i of the tier by a strategy, nil where its cost is not
// made of any.
func Terms(s Strategy, in *Input, i int) []Term {
	if by, ok := s.(byScore); ok {
		s = by.Strategy
	}
	if e, ok := s.(Explainer); ok {
		return e.Terms(in, i)
	}
	return nil
}

// weighed is what strategies that count tokens know of a head for a request.
type weighed struct {
	slower   float64 // how many times as long as the pool it takes
	ahead    float64 // weight of the prompts before this one, in tokens
	uncached float64 // weight of what of this prompt the head has not cached, in tokens
	prompt   float64 // weight of the whole prompt, in tokens
	requests float64 // there, running and waiting
	kv       float64 // the part of its KV cache that is used with this prompt
	weight   float64
	kappa    float64 // the mean predicted wait of the tier in s, within its limit
	least    float64 // requests / weight of the least loaded head of the tier that takes the request
}

func (h weighed) terms() []Term {
	return []Term{
		{"slower", h.slower, ""}, {"ahead", h.ahead, "tokens"}, {"uncached", h.uncached, "tokens"},
		{"requests", h.requests, ""}, {"kv", h.kv, ""}, {"kappa", h.kappa, ""}, {"weight", h.weight, ""},
	}
}

// weighing is what is known of a tier for a request.
type weighing struct {
	r      *fleet.Ranked
	pace   *Pace
	list   []*headPace
	own    bool    // our own counts of all heads are valid
	tokens float64 // of the prompt
	prompt float64 // their weight
	share  float64 // our part of all requests; see others
	beyond float64 // requests beyond ours, the mean of the heads that report
	wait   float64 // weight of the prompts of those
	each   float64 // weight of the prompts ahead for each request of ours, in tokens
	kappa  float64
	counts bool // requests are rounded at random, so that heads that differ by less than one share the traffic
	least  float64
}

// wants is what a strategy that counts tokens wants to know of a tier.
type wants struct {
	waitLimit float64 // up to which the mean predicted wait counts, in s
	counts    bool    // that requests are whole, and what weighed.least is
}

// weigh looks at all heads of the tier.
func weigh(in *Input, what wants) (w weighing) {
	in.RecallPrompt()
	w.r, w.pace = &in.Tier().Ranked, in.Recalled.Pace
	w.list, w.tokens = w.pace.list(), in.Tokens()
	w.prompt = w.pace.Weigh(w.tokens, w.tokens)
	usual := w.pace.usual()
	in.burdens = slices.Grow(in.burdens[:0], len(w.r.Lives))[:len(w.r.Lives)]
	w.own = true
	wait, ahead, requests, reports := 0., 0., 0., 0.
	for i, l := range w.r.Lives {
		b := &in.burdens[i]
		*b = l.Burden(w.tokens, usual)
		requests += b.Requests
		ahead += b.Ahead
		wait += w.pace.slower(w.list, w.r.Heads[i].Number) * b.Ahead
		w.own = w.own && l.OwnCounts()
		if b.Beyond >= 0 {
			reports++
			w.beyond += b.Beyond
			w.wait += b.Waiting
		}
	}
	n := float64(len(w.r.Lives))
	if w.share = 1; reports > 0 {
		w.beyond, w.wait = w.beyond/reports, w.wait/reports
		if w.own && w.beyond > 0 {
			w.share = (requests + assumedOwn) / (requests + assumedOwn + w.beyond*n)
		}
	}
	w.each = ahead / max(requests, 1)
	w.kappa = min((wait/n+w.wait)*w.pace.perToken(), what.waitLimit)
	if w.counts = what.counts; w.counts {
		w.least = w.leastLoaded(in)
	}
	return w
}

// leastLoaded is the least of requests / weight of the heads that take the request. One
// that does not says nothing of how loaded the others are.
func (w *weighing) leastLoaded(in *Input) float64 {
	least := math.Inf(1)
	for i, h := range w.r.Heads {
		if in.Takes(h) {
			at := w.at(in, i)
			least = min(least, at.requests/at.weight)
		}
	}
	return least
}

// coster is a strategy whose cost is made of what is weighed.
type coster interface {
	wants() wants
	cost(weighed) float64
}

// scoreWeighed is Score of a coster.
func scoreWeighed[S coster](s S, in *Input, scores []float64) {
	w := weigh(in, s.wants())
	for i, h := range w.r.Heads {
		if scores[i] = math.Inf(1); in.Takes(h) {
			scores[i] = s.cost(w.at(in, i))
		}
	}
}

// chooseWeighed is Choose of a coster: the heads of the least costs, where our own
// counts say what heads have to do. Where only reports do, between two reports all
// who choose the least would choose the same head.
func chooseWeighed[S coster](s S, in *Input, picks []Pick) int {
	w := weigh(in, s.wants())
	if !w.own && len(picks) > 1 {
		if n := chooseOfFew(s, in, &w, picks); n > 0 {
			return n
		}
	}
	best := rank(len(picks))
	for i, h := range w.r.Heads {
		if !in.Takes(h) {
			continue
		}
		if cost := s.cost(w.at(in, i)); best.wants(cost) {
			best.add(&in.Rand, i, cost)
		}
	}
	return Fill(in, w.r.Heads, picks, best.write(w.r.Heads, picks))
}

// chooseOfFew chooses the best of two random heads and the one that has most of the
// prompt. The older the reports are, the more it leaves to chance.
func chooseOfFew[S coster](s S, in *Input, w *weighing, picks []Pick) int {
	var few [3]int
	n, most := 0, w.tokens
	for range 2 {
		if h := drawLarge(in, w.r, picks[:n]); h != nil {
			few[n] = slices.Index(w.r.Heads, h)
			picks[n] = Pick{Head: h}
			n++
		}
	}
	if n < 2 {
		return 0
	}
	warm := -1
	for i, h := range w.r.Heads {
		if uncached := in.Uncached(h, w.tokens); uncached < most && in.Takes(h) {
			warm, most = i, uncached
		}
	}
	oldest := time.Duration(0)
	for i := range n {
		_, at := reported(w.r.Lives[few[i]], 0)
		oldest = max(oldest, in.Now.Sub(at))
		picks[i].Cost = s.cost(w.at(in, few[i]))
	}
	chance := in.Rand.Float64() >= math.Exp(-float64(oldest)/float64(reportLifetime))
	if !chance && picks[1].Cost < picks[0].Cost || chance && in.Rand.Uint64()&1 == 0 {
		picks[0], picks[1] = picks[1], picks[0]
	}
	if warm >= 0 && w.r.Heads[warm] != picks[0].Head {
		if cost := s.cost(w.at(in, warm)); cost < picks[0].Cost {
			n = lead(picks, n, w.r.Heads[warm])
			picks[0].Cost = cost
		}
	}
	return Fill(in, w.r.Heads, picks, n)
}

// at is what is known of head i.
func (w *weighing) at(in *Input, i int) weighed {
	h, b := w.r.Heads[i], &in.burdens[i]
	beyond, waiting := b.Beyond, b.Waiting
	switch {
	case beyond < 0: // it does not say, and has what the others have
		beyond, waiting = w.beyond, w.wait
	case w.own && w.beyond > 0: // the older the report is, the more what the others have
		trust := trustIn(h.Live.Beyond(), in.clock)
		beyond, waiting = w.beyond+(beyond-w.beyond)*trust, w.wait+(waiting-w.wait)*trust
	}
	slowStart := h.Live.SlowStart(in.Now)
	requests := b.Requests + w.share*beyond + slowStart
	if w.counts {
		requests = math.Floor(requests + in.Rand.Float64())
	}
	return weighed{
		slower: w.pace.slower(w.list, h.Number), ahead: b.Ahead + w.share*waiting + slowStart*w.each,
		uncached: w.pace.Weigh(w.tokens, in.Uncached(h, w.tokens)),
		requests: requests, kv: b.KV, weight: h.Weight, kappa: w.kappa, prompt: w.prompt, least: w.least,
	}
}
