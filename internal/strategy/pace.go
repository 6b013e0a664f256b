package strategy

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"headway/internal/fleet"
)

// Pace is what is known of how fast the heads of a model type compute prompts.
//
// What is measured is the time in which a head was busy with prompts: from the first
// token before this one, or from when the prompt came to a head that had none
// ahead. Unlike the time to the first token it has no wait in it, so that a busy head is
// not taken for a slow one. Where prompts are computed in parallel it is the time to the
// first token, which has none either; see delay. Prompts that are computed at once took it
// together; see step. It is explained by the tokens that were computed, the attention over their context, and the tokens of what is decoded beside
// them, with least squares over all heads of the pool that forget. A head's speed is the
// ratio of what it took to what the pool takes for the same; of those ratios only as much
// counts as they differ by more than chance.
type Pace struct {
	heads  atomic.Pointer[[]*headPace] // by number
	slower atomic.Pointer[speeds]      // likewise
	model  atomic.Pointer[paceModel]   // nil: nothing is known yet
	tokens atomic.Uint64               // of a prompt, the mean, as bits
	caches caches
	rate   number   // tokens a second that heads compute, by times to the first token that were reported with the outcome; 0: none was
	firsts observed // at all heads, and so are
	wholes observed

	mu       sync.Mutex
	fit      leastSquares
	parallel bool      // prompts are computed in parallel, unless more is known of a head
	together float64   // prompts of a step, the mean
	looked   time.Time // when speeds were last compared
}

// paceModel is how long the heads of the pool take: the coefficients of the fit, in s.
type paceModel struct {
	each      float64 // tokens that each prompt weighs beside its own
	rest      float64 // for a prompt, beyond those
	token     float64 // for each token computed
	attention float64 // tokens for each pair of a token and one that it attends to
	beside    float64 // for each token at the head
}

// headPace is what is known of one head.
type headPace struct {
	left  atomic.Uint64 // where first tokens are not seen: a leftover
	mark  atomic.Int64  // until when its time is accounted for, in ns after paceZero
	delay delay
	times times

	step      step // that is not over, as far as is known
	instance  uint64
	took      float64 // s, decayed sums
	predicted float64
	n         float64
	residual  float64 // of squares
	at        time.Time
}

// speeds are how many times as long as the pool heads take, as bits, by their numbers.
// 0: as long. They stand beside one another since each decision reads many. Who writes
// one holds Pace.mu.
type speeds []atomic.Uint64

// of is how many times as long as the pool the head of a number takes.
func (s speeds) of(number int) float64 {
	if number < len(s) {
		if bits := s[number].Load(); bits != 0 {
			return math.Float64frombits(bits)
		}
	}
	return 1
}

// Constants of what is learned. The half-lives were chosen in the simulation: long
// enough that chance shrinks to a few percent, short enough that a head that slows
// down is known within a minute.
const (
	paceSamples = 100.              // half-life of a head's ratio
	paceTime    = 120 * time.Second // the same, while none comes
	paceEvery   = 100 * time.Millisecond
	leastRatio  = 0.2
	mostRatio   = 5.
	usualPrompt = 1024.     // tokens, before any prompt is known
	usualToken  = 1. / 15e3 // s, before any time is known
	usualBase   = 0.02      // s, for each prompt
	mostEach    = 1024.     // tokens that a prompt weighs beside its own
)

var paceZero = time.Unix(0, 0)

func newPace() *Pace {
	p := new(Pace)
	p.heads.Store(new([]*headPace))
	p.slower.Store(new(speeds))
	p.fit.init()
	p.together = 1
	return p
}

// usual is the mean length of a prompt in tokens.
func (p *Pace) usual() float64 {
	if p == nil {
		return usualPrompt
	}
	if bits := p.tokens.Load(); bits != 0 {
		return math.Float64frombits(bits)
	}
	return usualPrompt
}

// perToken is how many seconds a head of the pool takes for a token.
func (p *Pace) perToken() float64 {
	if p != nil {
		if m := p.model.Load(); m != nil {
			return m.token
		}
		if rate := p.rate.get(); rate > 0 {
			return 1 / rate
		}
	}
	return usualToken
}

// Weigh is what computing the last tokens of a prompt weighs, in tokens without
// attention: each attends to all before it, and each prompt takes some time of its own.
func (p *Pace) Weigh(tokens, uncached float64) float64 {
	if p != nil {
		if m := p.model.Load(); m != nil {
			return m.each + uncached + m.attention*uncached*(tokens-uncached/2)
		}
	}
	return usualBase/usualToken + uncached
}

// predict is the time to the first token in ms with so much ahead, the prompt
// itself in it, and so many tokens at the head; NaN: nothing is known yet.
func (p *Pace) predict(h *fleet.Head, ahead, tokens float64) float64 {
	if p == nil || p.model.Load() == nil {
		return math.NaN()
	}
	m := p.model.Load()
	return 1000 * p.Slower(h) * (m.rest + m.token*ahead + m.beside*tokens)
}

// Alone is the time to the first token in ms at a head of the pool's usual speed that
// has no other request and nothing of the prompt cached, whose tokens may be 0: as
// many as usual. NaN: nothing is known yet.
func (p *Pace) Alone(tokens float64) float64 {
	m := p.model.Load()
	if m == nil {
		return math.NaN()
	}
	if tokens == 0 {
		tokens = p.usual()
	}
	return 1000 * (m.rest + m.token*p.Weigh(tokens, tokens) + m.beside*tokens)
}

// Slower is how many times as long as the pool the head takes, 1 while it is not
// known to differ by more than chance.
func (p *Pace) Slower(h *fleet.Head) float64 { return p.speeds().of(h.Number) }

// speed is how fast the head is, 1 as fast as the pool, and whether enough was seen of it.
func (p *Pace) speed(h *fleet.Head) (speed float64, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.list()
	if h.Number >= len(list) || list[h.Number].instance != h.Instance || list[h.Number].n < leastSamples {
		return 0, false
	}
	return 1 / p.Slower(h), true
}

// speeds are those of the heads.
func (p *Pace) speeds() speeds {
	if p == nil {
		return nil
	}
	return *p.slower.Load()
}

// burden is what delays a prompt of so many tokens at the head, and what is there beside
// it; so much of what is ahead came just now.
func (p *Pace) burden(h *fleet.Head, fresh, tokens, usual float64, clock uint32) (b fleet.Burden) {
	p.read(&b, h.Live, h.Number, fresh, tokens, usual, clock)
	if p.parallelAt(h) {
		b.Ahead, b.Waiting = 0, 0
	}
	return b
}

// parallelAt reports whether what is ahead at the head delays nothing.
func (p *Pace) parallelAt(h *fleet.Head) bool {
	list := p.list()
	return h.Number < len(list) && list[h.Number].delay.parallel.Load()
}

// list is what is known of heads by their numbers.
func (p *Pace) list() []*headPace {
	if p == nil {
		return nil
	}
	return *p.heads.Load()
}

func (p *Pace) head(number int) *headPace {
	if list := *p.heads.Load(); number < len(list) {
		return list[number]
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	list := *p.heads.Load()
	if number < len(list) {
		return list[number]
	}
	next := slices.Clone(list)
	made := make([]headPace, max(number+1, 2*len(list), 16)-len(list))
	for i := range made {
		next = append(next, &made[i])
	}
	slower := make(speeds, len(next))
	was := p.speeds()
	for i := range was {
		slower[i].Store(was[i].Load())
	}
	p.slower.Store(&slower)
	p.heads.Store(&next)
	return next[number]
}

// read is fleet.Live.Burden, and by the clock where first tokens are not seen; so much
// of what is ahead came just now. It returns whether our own counts are valid.
func (p *Pace) read(b *fleet.Burden, l *fleet.Live, number int, fresh, tokens, usual float64, clock uint32) (valid bool) {
	valid = l.Burden(b, tokens, usual)
	if b.Reported {
		b.Ahead = p.left(l, number, b.Ahead, fresh, clock)
	}
	return valid
}

// leftover is what was left of the prompts ahead of a head at a time, in tokens, and
// that time by fleet.Clock.
func leftover(tokens float64, at uint32) uint64 {
	return uint64(math.Float32bits(float32(tokens)))<<32 | uint64(at)
}

// left is what is left of the prompts ahead of a head, where no first token shows it:
// what was reported or left before, less what the head computes in the time since.
// What came just now of what is ahead is left whole.
func (p *Pace) left(l *fleet.Live, number int, ahead, fresh float64, clock uint32) float64 {
	report, list := l.Report(), p.list()
	if report == nil || number >= len(list) {
		return ahead
	}
	ahead = max(ahead-fresh, 0)
	most, at := ahead, fleet.Clock(report.At)
	if word := list[number].left.Load(); word != 0 && int32(uint32(word)-at) >= 0 {
		ahead, at = float64(math.Float32frombits(uint32(word>>32))), uint32(word)
	}
	perToken := p.perToken() * p.speeds().of(number)
	if perToken <= 0 { // its heads take no longer for more tokens
		return fresh
	}
	since := float64(max(int32(clock-at), 0)) / 1000
	return min(max(ahead-since/perToken, 0), most) + fresh
}

// noteLeft notes what is left at a head whose first tokens are not seen, with the prompt
// that came just now.
func (p *Pace) noteLeft(head *headPace, h *fleet.Head, own float64, clock uint32) {
	for {
		var b fleet.Burden
		old := head.left.Load()
		if p.read(&b, h.Live, h.Number, own, 0, 1, clock); !b.Reported || head.left.CompareAndSwap(old, leftover(b.Ahead, clock)) {
			return
		}
	}
}

// placed notes that a prompt came to the head.
func (p *Pace) placed(h *fleet.Head, w fleet.Work, now time.Time) {
	head, ahead, at := p.head(h.Number), h.Live.OwnPending()-int64(w.Pending), int64(now.Sub(paceZero))
	p.noteLeft(head, h, float64(w.Pending), fleet.Clock(now))
	if ahead <= 0 {
		head.mark.Store(at)
	}
	head.delay.follow(at, float64(max(ahead, 0)), at-head.mark.Load())
	if w.Tokens > 0 {
		mean := p.usual()
		if p.tokens.Load() == 0 {
			mean = float64(w.Tokens)
		}
		p.tokens.Store(math.Float64bits(mean + (float64(w.Tokens)-mean)/256))
	}
}

// firstToken learns from a first token.
func (p *Pace) firstToken(h *fleet.Head, w fleet.Work, after time.Duration, at time.Time) {
	head := p.head(h.Number)
	p.mu.Lock()
	defer p.mu.Unlock()
	now := int64(at.Sub(paceZero))
	if h.Instance < head.instance { // it comes late, of an epoch that is over
		return
	}
	was := head.mark.Swap(now)
	p.renew(h)
	if was == 0 || was > now {
		return
	}
	took := min(time.Duration(now-was), after).Seconds()
	head.delay.learn(now-int64(after), after, float64(w.Pending), took)
	if head.delay.parallel.Load() {
		took = after.Seconds()
	}
	u := float64(w.New)
	if !p.Trusted() {
		u = float64(w.Tokens)
	}
	context := float64(w.Tokens) - u
	x := [paceTerms]float64{1, u, u * (context + u/2), float64(h.Live.Tokens())}
	if next := (step{x, took, 1, at}); head.delay.parallel.Load() {
		p.learn(h, head, &next)
	} else if over, is := head.step.begins(next); is {
		p.learn(h, head, &over)
	}
	if at.Sub(p.looked) >= paceEvery || at.Before(p.looked) {
		p.looked = at
		p.sort()
		p.compare(at)
	}
}

// learn learns from what the head took for a step.
func (p *Pace) learn(h *fleet.Head, head *headPace, s *step) {
	predicted := p.fit.predict(&s.x)
	p.together += (s.prompts - p.together) / 256
	if p.fit.add(&s.x, s.took/p.Slower(h)) && (p.fit.coefficients[1] > 0 || p.parallel) {
		p.model.Store(p.fit.model(p.together))
	}
	if p.fit.n < fitLeast { // what was predicted is a guess
		return
	}
	fade := math.Exp2(-1/paceSamples - s.at.Sub(head.at).Seconds()/paceTime.Seconds())
	head.took, head.predicted = head.took*fade+s.took, head.predicted*fade+predicted
	head.n = head.n*fade + 1
	off := s.took - predicted*head.took/head.predicted
	head.residual = head.residual*fade + off*off
	head.at = s.at
}

// keep renews the heads, and reports whether there are any.
func (p *Pace) keep(heads []*fleet.Head) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range heads {
		if h.Number < len(p.list()) {
			p.renew(h)
		}
	}
	return len(heads) > 0
}

// renew forgets what is known of an earlier head of the number.
func (p *Pace) renew(h *fleet.Head) {
	if head := p.list()[h.Number]; head.instance < h.Instance {
		head.instance = h.Instance
		p.forget(h.Number)
		head.delay.forget()
	}
}

// forget forgets how fast the head of a number is.
func (p *Pace) forget(number int) {
	h := p.list()[number]
	h.step, h.took, h.predicted, h.n, h.residual = step{}, 0, 0, 0, 0
	p.speeds()[number].Store(0)
}

// Of speeds that are reported so a high one counts: others have waits in them.
const (
	rateUp   = 1. / 8  // of the logarithm of the ratio to a higher one
	rateDown = 1. / 64 // and to a lower one
)

// Bounds of speeds that are reported, in tokens a second.
const (
	leastRate = 100.
	mostRate  = 1e6
)

// learnRate learns from a time to the first token that came with the outcome.
func (p *Pace) learnRate(w fleet.Work, cached int64, after time.Duration) {
	computed := float64(w.New)
	if cached != fleet.Unknown {
		computed = float64(int64(w.Tokens) - cached)
	}
	if computed <= 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now, rate := min(max(computed/after.Seconds(), leastRate), mostRate), p.rate.get()
	switch {
	case rate == 0:
		rate = now
	case now > rate:
		rate *= math.Pow(now/rate, rateUp)
	default:
		rate *= math.Pow(now/rate, rateDown)
	}
	p.rate.set(rate)
}

// leastSamples of a head are too few to say how fast it is.
const leastSamples = 3

// compare finds by how much the heads' speeds differ beyond chance, and gives each
// its share of that: the estimate of DerSimonian and Laird (1986) of the variance
// between groups, and the shrinkage that follows from it.
func (p *Pace) compare(now time.Time) {
	list := *p.heads.Load()
	var weights, squares, mean float64
	known := 0
	ratio := func(h *headPace) (log, variance float64, ok bool) {
		if h.n < leastSamples || h.took <= 0 {
			return 0, 0, false
		}
		fade := math.Exp2(now.Sub(h.at).Seconds() / paceTime.Seconds())
		return math.Log(h.took / h.predicted), max(h.residual/(h.took*h.took)*fade, 1e-4), true
	}
	for _, h := range list {
		if log, variance, ok := ratio(h); ok {
			weights += 1 / variance
			squares += 1 / (variance * variance)
			mean += log / variance
			known++
		}
	}
	if known < 2 {
		return
	}
	mean /= weights
	spread := 0.
	for _, h := range list {
		if log, variance, ok := ratio(h); ok {
			spread += (log - mean) * (log - mean) / variance
		}
	}
	between := max(0, (spread-float64(known-1))/(weights-squares/weights))
	speeds := p.speeds()
	for i, h := range list {
		log, variance, ok := ratio(h)
		slower := 1.
		if ok {
			slower = math.Exp((log - mean) * between / (between + variance))
		}
		speeds[i].Store(math.Float64bits(min(max(slower, leastRatio), mostRatio)))
	}
}
