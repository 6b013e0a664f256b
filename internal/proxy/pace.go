package proxy

import (
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

// pace has the garbage collector run in time. It is the process's: the last that was
// set counts.
type pace struct {
	usual int // percent, of GOGC; 0 or less: it is left alone

	mu   sync.Mutex
	held int64 // bytes of large bodies
	set  int64 // of them, when the pace was set
}

func newPace() *pace {
	s := []runtimemetrics.Sample{{Name: "/gc/gogc:percent"}}
	runtimemetrics.Read(s)
	usual := 0
	if s[0].Value.Kind() == runtimemetrics.KindUint64 && s[0].Value.Uint64() <= 1000 { // more stands for off
		usual = int(s[0].Value.Uint64())
	}
	return &pace{usual: usual}
}

// hold notes bytes of bodies more, or below 0 fewer.
func (p *pace) hold(more int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held += more
	if change := p.held - p.set; change < paceStep && change > -paceStep || p.usual <= 0 {
		return
	}
	p.set = p.held
	debug.SetGCPercent(percentBeside(p.usual, p.held, heapObjects()))
}

// heapObjects is how many bytes all objects take, garbage too.
func heapObjects() int64 {
	s := []runtimemetrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	runtimemetrics.Read(s)
	return int64(s[0].Value.Uint64())
}

// percentBeside is the percentage of all that lives after which the collector runs.
func percentBeside(usual int, bodies, all int64) int {
	if bodies < paceStep {
		return usual
	}
	other := max(all-bodies, leastOther)
	return max(int(int64(usual)*other/paceShare/(other+bodies)), leastPace)
}
