package strategy

import (
	"math"
	"sync/atomic"
	"time"
)

// delay is what is known of whether prompts delay one another at a head. An engine
// computes them one after the other. What stands before many, such as a hosted API,
// begins to answer each after as long, however many there are. The time between two of
// its first tokens says how often it is asked, and not how fast it is: a head that gets
// less seems slower, and then gets less still.
//
// One request at a time is followed from what was ahead as it came until its first
// token. Where prompts delay one another, that took longer by what was ahead.
type delay struct {
	parallel atomic.Bool   // they do not
	came     atomic.Int64  // when the request came that is followed, in ns after paceZero; 0: none is
	ahead    atomic.Uint64 // weight of the prompts ahead of it, in tokens, as bits
	worked   atomic.Int64  // ns for which the head had worked on those

	// Decayed sums of all first tokens: the time in s in which the head had prompts, and
	// the weight that it computed.
	busy, computed float64
	// A line through the requests followed, which fades: the time of the first token less
	// that of the prompt by the time of what was ahead, both in s.
	first       float64 // the mean time to the first token in s
	n, weight   float64
	x, y        float64 // means
	xx, xy      float64
	off, square float64 // of what each point adds to xy beyond the line before, and to xx, the squares
}

const (
	delaySamples = 500.        // the half-life of a request followed
	delayLongest = time.Minute // for which it is
	delayLeast   = 20          // so many must have had something ahead
)

// follow notes that a request came with so much ahead, on which the head had worked for
// so many ns.
func (d *delay) follow(now int64, ahead float64, worked int64) {
	if came := d.came.Load(); came != 0 && now >= came && now-came < int64(delayLongest) {
		return
	}
	d.ahead.Store(math.Float64bits(ahead))
	d.worked.Store(worked)
	d.came.Store(now)
}

// learn learns from the first token of a request that came at came and took so long, and
// for which the head was busy for so many s.
func (d *delay) learn(came int64, took time.Duration, weight, busy float64) {
	fade := math.Exp2(-1 / delaySamples)
	d.busy, d.computed = d.busy*fade+busy, d.computed*fade+weight
	followed := d.came.Load()
	if followed == 0 || max(followed-came, came-followed) > int64(took)/1000 || d.computed == 0 { // clocks drift
		return
	}
	perToken, worked := d.busy/d.computed, time.Duration(d.worked.Load()).Seconds()
	x, own := max(perToken*math.Float64frombits(d.ahead.Load())-worked, 0), perToken*weight
	d.came.Store(0)
	d.n = d.n*fade + 1
	d.first += (took.Seconds() - d.first) / d.n
	d.add(x, took.Seconds()-own, 1/((x+own+d.first)*(x+own+d.first)), fade)
}

// add adds a point to the line. How sure its slope is comes from how far each point was
// off the line before, since most come with nothing ahead and say nothing of that.
func (d *delay) add(x, y, weight, fade float64) {
	slope := 0.
	if d.xx > 0 {
		slope = d.xy / d.xx
	}
	dx, dy := x-d.x, y-d.y
	if d.weight == 0 {
		dx, dy, d.x, d.y = 0, 0, x, y
	}
	off, square := weight*dx*(dy-slope*dx), weight*dx*dx
	d.off, d.square = d.off*fade+off*off, d.square*fade+square*square
	d.weight = d.weight*fade + weight
	d.x, d.y = d.x+dx*weight/d.weight, d.y+dy*weight/d.weight
	d.xx, d.xy = d.xx*fade+weight*dx*(x-d.x), d.xy*fade+weight*dx*(y-d.y)
}

// forget forgets all, as of a head in another epoch.
func (d *delay) forget() {
	d.parallel.Store(false)
	d.came.Store(0)
	d.busy, d.computed, d.first, d.n, d.weight = 0, 0, 0, 0, 0
	d.x, d.y, d.xx, d.xy, d.off, d.square = 0, 0, 0, 0, 0, 0
}

// evidence is what lines say: the sums of which the slope is made, the variance of xy, and
// the sum of the squares of which xx is the sum.
type evidence struct{ xx, xy, off, square float64 }

// add adds what is known of a head.
func (e *evidence) add(d *delay) {
	e.xx, e.xy, e.off, e.square = e.xx+d.xx, e.xy+d.xy, e.off+d.off, e.square+d.square
}

// parallel reports whether less than half of what is ahead delays a prompt, beyond so
// many standard errors; was, if that is not sure.
func (e *evidence) parallel(was bool, errors float64) bool {
	unsure := errors * math.Sqrt(e.off)
	switch {
	case e.xx*e.xx < delayLeast*e.square: // few points make the line
		return was
	case e.xy+unsure < e.xx/2:
		return true
	case e.xy-unsure > e.xx/2:
		return false
	}
	return was
}

// The standard errors beyond which the heads of a pool are taken to be of a kind, and
// those beyond which one of them is taken to be of another.
const (
	poolSure = 3
	headSure = 5
)

// sort finds which heads compute prompts in parallel. Those of a pool are compared by the
// same measure, unless one is surely of the other kind. What was learned by the other
// measure, or beside what heads of the other kind take, is forgotten.
func (p *Pace) sort() {
	list := p.list()
	var all evidence
	for _, h := range list {
		all.add(&h.delay)
	}
	is := all.parallel(p.parallel, poolSure)
	restart := is != p.parallel
	if p.parallel = is; restart {
		p.fit.restart()
	}
	for i, h := range list {
		var e evidence
		e.add(&h.delay)
		is := e.parallel(p.parallel, headSure)
		if was := h.delay.parallel.Swap(is); is != was || restart {
			p.forget(i)
		}
	}
}
