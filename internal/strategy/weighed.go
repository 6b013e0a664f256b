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
	// Terms are those of head i of the tier, of which Score wrote the costs last: what
	// it weighed for all heads is in the Input, and is not weighed again for each.
	Terms(in *Input, costs []float64, i int) []Term
}

// Terms are those of head i of the tier by a strategy, which wrote these costs last; nil
// where they are not made of any.
func Terms(s Strategy, in *Input, costs []float64, i int) []Term {
	if by, ok := s.(byScore); ok {
		s = by.Strategy
	}
	if e, ok := s.(Explainer); ok {
		return e.Terms(in, costs, i)
	}
	return nil
}

// weighed is what strategies that count tokens know of a head for a request.
type weighed struct {
	fleet.Burden

	slower   float64 // how many times as long as the pool it takes
	ahead    float64 // weight of the prompts before this one, in tokens
	uncached float64 // weight of what of this prompt the head has not cached, in tokens
	requests float64 // there, running and waiting
	weight   float64
}

func (h *weighed) terms(w *weighing) []Term {
	return []Term{
		{"slower", h.slower, ""},
		{"ahead", h.ahead, "tokens"},
		{"uncached", h.uncached, "tokens"},
		{"requests", h.requests, ""},
		{"kv", h.KV, ""},
		{"kappa", w.kappa, ""},
		{"weight", h.weight, ""},
	}
}

// weighing is what is known of a tier for a request.
type weighing struct {
	r      *fleet.Ranked // nil: of none
	among  []int32       // where those of the heads stand that are compared; nil: all
	heads  []weighed     // of those
	pace   *Pace
	speeds speeds
	clock  uint32
	warm   bool    // which heads have the prompt is known, and to be trusted
	own    bool    // our own counts of all heads are valid
	firsts int     // heads whose first tokens are seen, less those where they are not
	tokens float64 // of the prompt
	usual  float64 // those of a prompt of the pool
	prompt float64 // the weight of the whole prompt, in tokens
	share  float64 // our part of all requests; see others
	beyond float64 // requests beyond ours, the mean of the heads that report
	wait   float64 // weight of the prompts of those
	mean   float64 // that of the prompts ahead, by the time that they take
	kv     float64 // the part of the KV cache that is used, the mean of the heads that say
	each   float64 // weight of the prompts ahead for each request of ours, in tokens
	kappa  float64 // the mean predicted wait of the tier in s, within the limit of the strategy
	least  float64 // requests / weight of the least loaded head of the tier that takes the request
	dither uint64  // of requests that are rounded
}

// wants is what a strategy that counts tokens wants to know of a tier.
type wants struct {
	waitLimit float64 // up to which the mean predicted wait counts, in s
	least     bool    // weighing.least, and requests rounded
}

// place is where number j of the heads that are compared stands.
func (w *weighing) place(j int) int {
	if w.among == nil {
		return j
	}
	return int(w.among[j])
}

// Reweigh says that what heads have to do has changed since a strategy weighed them.
func (in *Input) Reweigh() { in.weighing.r = nil }

// weigh looks at those heads of the tier that stand at these places; nil: at all, unless
// a strategy did for this request, since each sees the same of them. What it returns is
// valid until it is called again.
func weigh(in *Input, what wants, among []int32) *weighing {
	in.RecallPrompt()
	w := &in.weighing
	if r := &in.Tier().Ranked; w.r != r || w.among != nil || among != nil {
		w.look(in, r, among)
	}
	w.kappa = min(w.mean*w.pace.perToken(), what.waitLimit)
	if what.least {
		w.dither = in.Rand.Uint64()
		w.leastLoaded(in)
	}
	return w
}

// look reads what the heads have to do, for any strategy.
func (w *weighing) look(in *Input, r *fleet.Ranked, among []int32) {
	pace := in.Recalled.Pace
	*w = weighing{
		r: r, among: among, heads: w.heads, pace: pace, speeds: pace.speeds(), clock: in.clock,
		warm: in.Recalled.Prompt && pace.Trusted(), tokens: in.Tokens(), usual: pace.usual(),
	}
	w.prompt = pace.Weigh(w.tokens, w.tokens)
	n := len(w.r.Heads)
	if among != nil {
		n = len(among)
	}
	w.heads = slices.Grow(w.heads[:0], n)[:n]
	w.sum()
	for j := range w.heads {
		i := w.place(j)
		w.finish(in, &w.heads[j], w.r.Heads[i], w.r.Lives[i], w.r.Numbers[i])
	}
}

// sum reads what each head has to do, and finds what all have.
func (w *weighing) sum() {
	w.own = true
	wait, ahead, requests, reports, caches := 0., 0., 0., 0., 0.
	for j := range w.heads {
		i, h := w.place(j), &w.heads[j]
		own := w.begin(h, w.r.Lives[i], w.r.Numbers[i], w.r.Weights[i])
		w.own = w.own && own
		w.firsts += w.r.Lives[i].FirstTokens()
		requests += h.Requests
		ahead += h.Ahead
		wait += h.slower * h.Ahead
		if h.Beyond >= 0 {
			reports++
			w.beyond += h.Beyond
			w.wait += h.Waiting
		}
		if h.KV >= 0 {
			caches++
			w.kv += h.KV
		}
	}
	w.kv /= max(caches, 1)
	n := float64(len(w.heads))
	if w.share = 1; reports > 0 {
		w.beyond, w.wait = w.beyond/reports, w.wait/reports
		if w.own && w.beyond > 0 {
			w.share = (requests + assumedOwn) / (requests + assumedOwn + w.beyond*n)
		}
	}
	w.each = ahead / max(requests, 1)
	w.mean = wait/n + w.wait
}

// begin reads what a head has to do, and whether our own counts say so.
func (w *weighing) begin(h *weighed, l *fleet.Live, number int32, weight float64) (own bool) {
	h.slower, h.weight = w.speeds.of(int(number)), weight
	return w.pace.read(&h.Burden, l, int(number), 0, w.tokens, w.usual, w.clock)
}

// finish makes of what a head has to do what costs are made of.
func (w *weighing) finish(in *Input, h *weighed, of *fleet.Head, l *fleet.Live, number int32) {
	beyond, waiting := h.Beyond, h.Waiting
	switch {
	case beyond < 0: // it does not say, and has what the others have
		beyond, waiting = w.beyond, w.wait
	case w.own && w.beyond > 0: // the older the report is, the more what the others have
		trust := trustIn(l.Beyond(), in.clock)
		beyond, waiting = w.beyond+(beyond-w.beyond)*trust, w.wait+(waiting-w.wait)*trust
	}
	h.requests, h.ahead = h.Requests+w.share*beyond, h.Ahead+w.share*waiting
	if h.KV < 0 {
		h.KV = w.kv
	}
	if slowStart := l.SlowStart(in.Now); slowStart > 0 {
		h.requests += slowStart
		if w.firsts <= 0 { // else it has as much ahead as we sent, and more with each choice
			h.ahead += slowStart * w.each
		}
	}
	if h.uncached = w.prompt; w.warm && in.found.Knows(int(number)) {
		h.uncached = w.pace.Weigh(w.tokens, in.Uncached(of, w.tokens))
	}
}

// leastLoaded finds the least of requests / weight of the heads that take the request.
// One that does not says nothing of how loaded the others are.
func (w *weighing) leastLoaded(in *Input) {
	w.least = math.Inf(1)
	for j := range w.heads {
		if h := &w.heads[j]; in.takesAt(w.r, w.place(j)) {
			w.least = min(w.least, w.dithered(h.requests)/h.weight)
		}
	}
}

// dithered rounds requests up or down at random, so that heads that differ by less than
// one share the traffic.
func (w *weighing) dithered(requests float64) float64 {
	w.dither += 0x9e3779b97f4a7c15
	return float64(int64(requests + float64(w.dither>>11)/(1<<53)))
}

// coster is a strategy whose cost is made of what is weighed.
type coster interface {
	wants() wants
	cost(w *weighing, h *weighed) float64
}

// scoreWeighed is Score of a coster.
func scoreWeighed[S coster](s S, in *Input, scores []float64) {
	w := weigh(in, s.wants(), nil)
	for i := range w.heads {
		if scores[i] = math.Inf(1); in.takesAt(w.r, i) {
			scores[i] = s.cost(w, &w.heads[i])
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
		if n := chooseOfFew(s, in, w, picks); n > 0 {
			return n
		}
	}
	best := rank(len(picks))
	for j := range w.heads {
		i := w.place(j)
		if !in.takesAt(w.r, i) {
			continue
		}
		if cost := s.cost(w, &w.heads[j]); best.wants(cost) {
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
	for j := range w.heads {
		h := w.r.Heads[w.place(j)]
		if uncached := in.Uncached(h, w.tokens); uncached < most && in.Takes(h) {
			warm, most = h, uncached
		}
	}
	var row weighed
	oldest := time.Duration(0)
	for i := range n {
		h := picks[i].Head
		_, at := reported(h.Live, 0)
		oldest = max(oldest, in.Now.Sub(at))
		picks[i].Cost = s.cost(w, w.of(in, h, &row))
	}
	chance := in.Rand.Float64() >= math.Exp(-float64(oldest)/float64(reportLifetime))
	if !chance && picks[1].Cost < picks[0].Cost || chance && in.Rand.Uint64()&1 == 0 {
		picks[0], picks[1] = picks[1], picks[0]
	}
	if warm != nil && warm != picks[0].Head {
		if cost := s.cost(w, w.of(in, warm, &row)); cost < picks[0].Cost {
			n = lead(picks, n, warm)
			picks[0].Cost = cost
		}
	}
	return Fill(in, w.r.Heads, picks, n)
}

// of writes what is known of any head of the tier.
func (w *weighing) of(in *Input, of *fleet.Head, h *weighed) *weighed {
	w.begin(h, of.Live, int32(of.Number), of.Weight)
	w.finish(in, h, of, of.Live, int32(of.Number))
	return h
}
