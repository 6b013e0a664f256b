package proxy

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"sync"
)

// Bodies that are held have nothing that the garbage collector looks into, and count
// for when it runs next all the same: beside 400 MB of them it would wait for as much
// garbage. As long as they are much, it runs after garbage of a part of all else.
const (
	paceStep   = 64 << 20 // bytes of bodies; less of a change than that is not followed
	paceShare  = 2        // of all else, one part
	leastPace  = 4        // percent
	leastOther = 32 << 20 // bytes of all else, at least
)

// A service that holds little would collect its garbage ten times in a second: it
// waits for so much garbage at least. That takes a tenth off the processor time of a
// small completion. One that holds much, such as 100,000 heads, would double it with
// garbage: it waits for so much at most, or for half of the usual share.
const (
	leastGarbage = 48 << 20 // bytes
	mostGarbage  = 80 << 20 // bytes
	leastLive    = 4 << 20  // bytes, as which less counts
	paceSlack    = 8        // one part of the percentage; less of a change is not followed
)

// pace has the garbage collector run in time. It is the process's: the last that was
// set counts.
type pace struct {
	usual int  // percent, of GOGC; 0 or less: it is left alone
	given bool // by the environment: it holds for a small heap too

	mu   sync.Mutex
	held int64 // bytes of large bodies
	set  int64 // of them, when the pace was set
}

func newPace() *pace { return &pace{usual: percentSet(), given: os.Getenv("GOGC") != ""} }

// hold notes bytes of bodies more, or below 0 fewer.
func (p *pace) hold(more int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held += more
	if change := p.held - p.set; change >= paceStep || change <= -paceStep {
		p.set = p.held
		p.adjust()
	}
}

// follow sets the pace after each collection, until ctx ends.
func (p *pace) follow(ctx context.Context) {
	defer func() { // as it was
		p.mu.Lock()
		defer p.mu.Unlock()
		p.apply(p.usual)
	}()
	collected := make(chan struct{}, 1)
	for {
		runtime.AddCleanup(new(mark), func(to chan<- struct{}) { to <- struct{}{} }, collected)
		select {
		case <-ctx.Done():
			return
		case <-collected:
		}
		p.mu.Lock()
		if p.set < paceStep { // or hold does it
			p.adjust()
		}
		p.mu.Unlock()
	}
}

// mark is garbage that the next collection finds. It is of a size of its own, since
// the least objects share memory and are found later.
type mark [64]byte

// adjust sets the percentage of all that lives after whose growth the collector runs.
// The caller holds the mutex.
func (p *pace) adjust() {
	want := p.usual
	switch {
	case p.set >= paceStep:
		want = percentBeside(p.usual, p.set, runtimeMetric("/memory/classes/heap/objects:bytes"))
	case !p.given:
		want = percentOf(p.usual, runtimeMetric("/gc/heap/live:bytes"))
	}
	p.apply(want)
}

// apply sets a percentage that differs from the one that is set, if not by little.
func (p *pace) apply(want int) {
	now := percentSet()
	change := max(want-now, now-want)
	if p.usual > 0 && (want == p.usual && change > 0 || change > now/paceSlack) {
		debug.SetGCPercent(want)
	}
}

// percentSet is the percentage that is set, -1: the collector is off.
func percentSet() int { return int(runtimeMetric("/gc/gogc:percent")) }

func runtimeMetric(name string) int64 {
	s := []runtimemetrics.Sample{{Name: name}}
	runtimemetrics.Read(s)
	return int64(s[0].Value.Uint64())
}

// percentBeside is the percentage beside bodies, of which all objects, garbage too,
// are a part.
func percentBeside(usual int, bodies, all int64) int {
	other := max(all-bodies, leastOther)
	return max(int(int64(usual)*other/paceShare/(other+bodies)), leastPace)
}

// percentOf is the percentage while as much lives and bodies are few.
func percentOf(usual int, live int64) int {
	least, most := leastGarbage*100/max(live, leastLive), mostGarbage*100/max(live, leastLive)
	return max(int(least), min(usual, max(int(most), usual/2)))
}
