package client

import (
	"context"
	"sync"
	"time"
)

// The budget of repeats: a tenth of the calls, and a few besides, so that a
// client that calls rarely may still repeat.
const (
	budgetPerCall   = 0.1
	budgetPerSecond = 0.5
	maxBudget       = 10.0
)

// budget is a token bucket that all calls of a client share. It begins full.
type budget struct {
	mu     sync.Mutex
	tokens float64
	at     time.Time
}

func newBudget() *budget { return &budget{tokens: maxBudget, at: time.Now()} }

// earn counts a call.
func (b *budget) earn() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens = min(maxBudget, b.tokens+budgetPerCall)
}

// spend takes what a repeat costs, if it is there.
func (b *budget) spend() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.tokens = min(maxBudget, b.tokens+budgetPerSecond*max(0, now.Sub(b.at).Seconds()))
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// Waits between the tries of a call.
const (
	minWait = 50 * time.Millisecond // bound of the first
	maxWait = 2 * time.Second       // bound of the last
	maxAsk  = 30 * time.Second      // a longer Retry-After is the caller's to wait for
)

// wait is how long to wait before the n-th repeat, n from 0: anything up to a
// bound that doubles, after what the router asked for. Without the chance all
// clients would come back in step.
func (c *Client) wait(n int, asked time.Duration) time.Duration {
	bound := min(maxWait, minWait<<min(n, 10))
	return asked + time.Duration(c.random()*float64(bound))
}

// pause waits, and reports whether ctx allows it. It does not begin to wait
// for what would come too late.
func pause(ctx context.Context, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
