package client

import (
	"context"
	"sync"
	"time"
)

// The retry budget: a tenth of the calls, plus a few for rare callers.
const (
	budgetPerCall   = 0.1
	budgetPerSecond = 0.5
	maxBudget       = 10.0
)

type budget struct {
	mu     sync.Mutex
	tokens float64
	at     time.Time
}

func (b *budget) earn() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens = min(maxBudget, b.tokens+budgetPerCall)
}

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

const (
	minWait = 50 * time.Millisecond // bound of the first
	maxWait = 2 * time.Second       // bound of the last
	maxAsk  = 30 * time.Second      // a longer Retry-After is the caller's to wait for
)

// wait is the backoff before the n-th retry, from 0: random up to a bound that
// doubles, after the router's Retry-After. The jitter keeps clients out of
// step.
func (c *Client) wait(n int, asked time.Duration) time.Duration {
	bound := min(maxWait, minWait<<min(n, 10))
	return asked + time.Duration(c.random()*float64(bound))
}

// pause waits, and reports whether ctx allows it. It does not wait beyond the
// deadline.
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
