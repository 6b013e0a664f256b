package strategy

import (
	"math"
	"sync"
	"sync/atomic"

	"headway/internal/fleet"
)

// caches is what is known of the caches of a pool's heads by what they say they had
// cached, against what was promised: what the index of prompts has of them.
type caches struct {
	holds    atomic.Uint64 // how many times what heads report their caches hold, as bits; 0: as much
	distrust atomic.Bool   // they have much less than was promised

	mu        sync.Mutex
	corrected int
	promised  float64 // tokens, decayed sums
	had       float64
	samples   float64
	empty     map[int]int // by number of the head: how often running nothing was there of what was promised
}

// Steps by which the size of caches is corrected, from the first to the later ones,
// and the bounds of the size, as parts of what heads report.
const (
	firstStep  = 0.2
	lastStep   = 0.02
	leastCache = 0.1
	mostCache  = 32.
	cacheSlack = 512     // tokens
	usualCache = 400_000 // tokens, of a head that does not report
)

// What heads have is trusted until of the last promises, with a half-life of
// trustSamples, less than leastHad was there, and again from enoughHad on.
const (
	trustSamples  = 64.
	leastPromised = 32 // tokens; less says nothing
	leastHad      = 0.25
	enoughHad     = 0.5
)

// emptyTimes is how often running a head had nothing of what was promised when its
// cache is taken to be empty.
const emptyTimes = 3

// Trusted reports whether the heads have what the index of prompts promises. Where
// they have much less, placement goes by load alone until they have it again.
func (p *Pace) Trusted() bool { return p == nil || !p.caches.distrust.Load() }

// Delivered is the part of the tokens promised lately that heads had cached, NaN
// before any was promised.
func (p *Pace) Delivered() float64 {
	p.caches.mu.Lock()
	defer p.caches.mu.Unlock()
	return p.caches.had / p.caches.promised
}

// cache is how many tokens the head's cache holds.
func (p *Pace) cache(h *fleet.Head) float64 {
	tokens := float64(h.Live.KVCapacity())
	if tokens == 0 {
		tokens = usualCache
	}
	if bits := p.caches.holds.Load(); bits != 0 {
		tokens *= math.Float64frombits(bits)
	}
	return tokens
}

// delivered learns from how many tokens of a prompt a head had cached. It reports
// whether the head's cache is taken to be empty.
func (p *Pace) delivered(h *fleet.Head, w fleet.Work, tokens int64) (empty bool) {
	c := &p.caches
	promised := int64(w.Tokens - w.New)
	c.mu.Lock()
	defer c.mu.Unlock()
	if promised >= leastPromised {
		c.weigh(float64(promised), float64(min(tokens, promised)))
		empty = c.isEmpty(h.Number, tokens)
	}
	if more := tokens - promised; more > cacheSlack || more < -cacheSlack {
		c.correct(more > 0)
	}
	return empty
}

// weigh finds whether what is promised is there.
func (c *caches) weigh(promised, had float64) {
	fade := math.Exp2(-1 / trustSamples)
	c.promised, c.had, c.samples = c.promised*fade+promised, c.had*fade+had, c.samples*fade+1
	switch {
	case c.had > enoughHad*c.promised:
		c.distrust.Store(false)
	case c.had < leastHad*c.promised && c.samples > trustSamples/2:
		c.distrust.Store(true)
	}
}

func (c *caches) isEmpty(number int, tokens int64) bool {
	if tokens > 0 {
		delete(c.empty, number)
		return false
	}
	if c.empty == nil {
		c.empty = map[int]int{}
	}
	c.empty[number]++
	if c.empty[number] < emptyTimes {
		return false
	}
	delete(c.empty, number)
	return true
}

// correct learns how much caches hold: where a head had less of a prompt than was
// promised they hold less, where it had more they hold more, such as a second tier
// that heads do not report.
func (c *caches) correct(more bool) {
	holds := 1.
	if bits := c.holds.Load(); bits != 0 {
		holds = math.Float64frombits(bits)
	}
	step := 1 + max(lastStep, firstStep/(1+float64(c.corrected)/16))
	c.corrected++
	if !more {
		step = 1 / step
	}
	c.holds.Store(math.Float64bits(min(max(holds*step, leastCache), mostCache)))
}

// Holds is how many times what heads report their caches hold, and how often that
// was corrected: for other routers, which learn it from fewer requests.
func (p *Pace) Holds() (times float64, corrected int) {
	c := &p.caches
	c.mu.Lock()
	defer c.mu.Unlock()
	if bits := c.holds.Load(); bits != 0 {
		return math.Float64frombits(bits), c.corrected
	}
	return 1, c.corrected
}

// HeardHolds is what another router has learned; it counts where that corrected it
// more often.
func (p *Pace) HeardHolds(times float64, corrected int) {
	c := &p.caches
	c.mu.Lock()
	defer c.mu.Unlock()
	if corrected > c.corrected {
		c.corrected = corrected
		c.holds.Store(math.Float64bits(min(max(times, leastCache), mostCache)))
	}
}
