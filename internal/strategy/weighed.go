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
		{"slower", h.slower, ""},
		{"ahead", h.ahead, "tokens"},
		{"uncached", h.uncached, "tokens"},
		{"requests", h.requests, ""},
		{"kv", h.kv, ""},
		{"kappa", h.kappa, ""},
		{"weight", h.weight, ""},
	}
}

// weighing is what is known of a tier for a request.
type weighing struct {
	r      *fleet.Ranked
	among  []int32 // where those of the heads stand that are compared; nil: all
	pace   *Pace
	list   []*headPace
	own    bool    // our own counts of all heads are valid
	tokens float64 // of the prompt
	usual  float64 // those of a prompt of the pool
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

// len is how many heads are compared.
func (w *weighing) len() int {
	if w.among == nil {
		return len(w.r.Heads)
	}
	return len(w.among)
}

// place is where number j of those stands.
func (w *weighing) place(j int) int {
	if w.among == nil {
		return j
	}
	return int(w.among[j])
}

// weigh looks at those heads of the tier that stand at these places; nil: at all.
func weigh(in *Input, what wants, among []int32) (w weighing) {
	in.RecallPrompt()
	w.r, w.pace = &in.Tier().Ranked, in.Recalled.Pace
	w.list, w.tokens = w.pace.list(), in.Tokens()
	w.prompt = w.pace.Weigh(w.tokens, w.tokens)
	w.usual, w.among = w.pace.usual(), among
	in.burdens = slices.Grow(in.burdens[:0], w.len())[:w.len()]
	w.own = true
	wait, ahead, requests, reports := 0., 0., 0., 0.
	for j := range in.burdens {
		i, b := w.place(j), &in.burdens[j]
		l := w.r.Lives[i]
		*b = l.Burden(w.tokens, w.usual)
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
	n := float64(w.len())
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
	for j := range w.len() {
		if in.Takes(w.r.Heads[w.place(j)]) {
			at := w.at(in, j)
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
	w := weigh(in, s.wants(), nil)
	for i, h := range w.r.Heads {
		if scores[i] = math.Inf(1); in.Takes(h) {
			scores[i] = s.cost(w.at(in, i))
		}
	}
}

// chooseWeighed is Choose of a coster: the heads of the least costs, in a large tier of
// some, unless none of those takes the request.
func chooseWeighed[S coster](s S, in *Input, picks []Pick) int {
	if in.spills() {
		return 0
	}
	if r := &in.Tier().Ranked; r.Places != nil {
		if n := chooseAmong(s, in, in.some(r), picks); n > 0 {
			return n
		}
	}
	return chooseAmong(s, in, nil, picks)
}

// Of a large tier so many heads are compared: a random one of each of as many equal
// parts, and those that have most of the prompt cached. The best of 64 is among the best
// 5 of a hundred with a probability of 0.96, and routers do not choose the same.
const (
	drawn   = 64
	warmest = 32
)

// some are the places of these heads.
func (in *Input) some(r *fleet.Ranked) []int32 {
	in.RecallPrompt()
	in.among = in.among[:0]
	for k := range drawn {
		from, to := k*len(r.Heads)/drawn, (k+1)*len(r.Heads)/drawn
		in.among = append(in.among, int32(from+in.Rand.IntN(to-from)))
	}
	if !in.Recalled.Prompt || !in.Recalled.Pace.Trusted() {
		return in.among
	}
	in.warm = in.found.Most(in.warm[:0], warmest, in.Rand.Uint64())
	for _, number := range in.warm {
		if int(number) >= len(r.Places) {
			continue
		}
		if at := r.Places[number]; at >= 0 && !slices.Contains(in.among[:drawn], at) {
			in.among = append(in.among, at)
		}
	}
	return in.among
}

// chooseAmong chooses the heads of the least costs, where our own counts say what heads
// have to do. Where only reports do, between two reports all who choose the least would
// choose the same head.
func chooseAmong[S coster](s S, in *Input, among []int32, picks []Pick) int {
	w := weigh(in, s.wants(), among)
	if !w.own && len(picks) > 1 {
		if n := chooseOfFew(s, in, &w, picks); n > 0 {
			return n
		}
	}
	best := rank(len(picks))
	for j := range w.len() {
		i := w.place(j)
		if !in.Takes(w.r.Heads[i]) {
			continue
		}
		if cost := s.cost(w.at(in, j)); best.wants(cost) {
			best.add(&in.Rand, i, cost)
		}
	}
	if best.n == 0 && among != nil {
		return 0
	}
	return Fill(in, w.r.Heads, picks, best.write(w.r.Heads, picks))
}

// chooseOfFew chooses the best of two random heads and the one that has most of the
// prompt. The older the reports are, the more it leaves to chance.
func chooseOfFew[S coster](s S, in *Input, w *weighing, picks []Pick) int {
	n, most := 0, w.tokens
	for range 2 {
		if h := drawLarge(in, w.r, picks[:n]); h != nil {
			picks[n] = Pick{Head: h}
			n++
		}
	}
	if n < 2 {
		return 0
	}
	var warm *fleet.Head
	for j := range w.len() {
		h := w.r.Heads[w.place(j)]
		if uncached := in.Uncached(h, w.tokens); uncached < most && in.Takes(h) {
			warm, most = h, uncached
		}
	}
	oldest := time.Duration(0)
	for i := range n {
		h := picks[i].Head
		_, at := reported(h.Live, 0)
		oldest = max(oldest, in.Now.Sub(at))
		picks[i].Cost = s.cost(w.of(in, h))
	}
	chance := in.Rand.Float64() >= math.Exp(-float64(oldest)/float64(reportLifetime))
	if !chance && picks[1].Cost < picks[0].Cost || chance && in.Rand.Uint64()&1 == 0 {
		picks[0], picks[1] = picks[1], picks[0]
	}
	if warm != nil && warm != picks[0].Head {
		if cost := s.cost(w.of(in, warm)); cost < picks[0].Cost {
			n = lead(picks, n, warm)
			picks[0].Cost = cost
		}
	}
	return Fill(in, w.r.Heads, picks, n)
}

// at is what is known of number j of the heads.
func (w *weighing) at(in *Input, j int) weighed {
	return w.weighed(in, w.r.Heads[w.place(j)], &in.burdens[j])
}

// of is what is known of any head of the tier.
func (w *weighing) of(in *Input, h *fleet.Head) weighed {
	b := h.Live.Burden(w.tokens, w.usual)
	return w.weighed(in, h, &b)
}

func (w *weighing) weighed(in *Input, h *fleet.Head, b *fleet.Burden) weighed {
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
