package proxy

import (
	"cmp"
	"sync"
	"time"
)

func (l *Limits) complete() {
	l.MaxBody = cmp.Or(l.MaxBody, 64<<20)
	l.MaxBodies = max(cmp.Or(l.MaxBodies, 1<<30), l.MaxBody)
	l.BodyWait = cmp.Or(l.BodyWait, 10*time.Second)
	l.BodyTime = cmp.Or(l.BodyTime, 30*time.Second)
	l.Comment = cmp.Or(l.Comment, 14*time.Second)
	l.ReaderStalls = cmp.Or(l.ReaderStalls, time.Minute)
	l.MaxAttempts = cmp.Or(l.MaxAttempts, 3)
	l.RetryShare = cmp.Or(l.RetryShare, 0.2)
	l.RetryTime = cmp.Or(l.RetryTime, 30*time.Minute)
}

// budget bounds further attempts by a share of the requests, so that retries do
// not multiply the load of a fleet that fails. Each request adds its share; what
// is unused is kept up to reserve, which also lets a quiet service retry.
type budget struct {
	share float64
	mu    sync.Mutex
	have  float64
}

// reserve is how many further attempts are allowed at once at most.
const reserve = 10

func newBudget(share float64) *budget { return &budget{share: share, have: reserve} }

// add notes a request.
func (b *budget) add() {
	b.mu.Lock()
	b.have = min(b.have+b.share, reserve)
	b.mu.Unlock()
}

// giveBack gives back a further attempt that was not made.
func (b *budget) giveBack() {
	b.mu.Lock()
	b.have = min(b.have+1, reserve)
	b.mu.Unlock()
}

// take takes a further attempt, if there is one. A share of 1 is no bound.
func (b *budget) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.have < 1 && b.share < 1 {
		return false
	}
	b.have--
	return true
}
