package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"headway/api"
)

// reportTimeout bounds each report of [Client.Do]. The router's time limit
// covers a lost report.
const reportTimeout = 2 * time.Second

// Call is one attempt on one head. It belongs to the function it was passed to,
// and is safe for concurrent use.
type Call struct {
	Head       api.DecisionHead
	ModelType  string // to ask the head for: aliases are resolved
	DecisionID string
	Attempt    int // 0: the decision's head; then its alternatives

	began time.Time
	send  func() // reports the first token; nil for an alternative

	mu      sync.Mutex
	first   time.Time
	ended   bool // ask has returned
	outcome api.Outcome
}

// FirstToken reports that the head has begun to answer. From then on no other
// head is tried. Later calls, and calls after ask returned, do nothing.
func (c *Call) FirstToken() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || !c.first.IsZero() {
		return
	}
	c.first = time.Now()
	if c.send != nil {
		c.send()
	}
}

// Status notes the HTTP status of the head's answer, 100 to 599.
func (c *Call) Status(code int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outcome.StatusCode = new(int64(code))
}

// Usage notes the head's token counts; negative means unknown.
func (c *Call) Usage(input, output, cached int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range []struct {
		n  int64
		to **int64
	}{{input, &c.outcome.InputTokens}, {output, &c.outcome.OutputTokens}, {cached, &c.outcome.CachedTokens}} {
		if of.n >= 0 {
			*of.to = &of.n
		}
	}
}

func (c *Call) begun() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.first.IsZero()
}

func (c *Call) end(result string) api.Outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	o := c.outcome
	o.Result = result
	o.DurationMs = new(milliseconds(time.Since(c.began)))
	if !c.first.IsZero() {
		o.TTFTMs = new(milliseconds(c.first.Sub(c.began)))
	}
	return o
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// permanent is an error that another head would not avoid.
type permanent struct{ err error }

func (p *permanent) Error() string { return p.err.Error() }
func (p *permanent) Unwrap() error { return p.err }

// Permanent marks an error that no other head would avoid, such as an invalid
// request. [Client.Do] returns it and tries no alternative.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanent{err}
}

// Do decides, and calls ask to send the request to the head. After an error it
// tries the alternatives in order, unless ctx has ended, an answer has begun,
// the error is [Permanent], or the retries or their budget are used up.
//
// It reports the first token and, exactly once, the outcome of the decision's
// own head, also when ctx has ended or ask panics. It waits for both, within a
// short timeout. An alternative has no place, so nothing is reported of it.
//
// The error is that of [Client.Decide], or those of ask, joined.
func (c *Client) Do(ctx context.Context, r api.DecisionRequest, ask func(ctx context.Context, call *Call) error) error {
	d, err := c.Decide(ctx, r)
	if err != nil {
		return err
	}
	reports := &reports{decision: d}
	defer reports.ended.Wait()
	var failures []error
	for n, head := range append([]api.DecisionHead{d.Head}, d.Alternatives...) {
		if n > 0 {
			if n > c.repeats || !c.budget.spend() {
				break
			}
			c.log.Debug("an alternative is tried", "decision", d.DecisionID, "head", head.ID, "error", failures[n-1])
		}
		final, err := c.attempt(ctx, d, reports, head, n, ask)
		if err == nil {
			return nil
		}
		failures = append(failures, fmt.Errorf("head %s: %w", head.ID, err))
		if final || ctx.Err() != nil {
			break
		}
	}
	return fmt.Errorf("decision %s: %w", d.DecisionID, errors.Join(failures...))
}

// attempt asks one head. final means that no other one is tried.
func (c *Client) attempt(ctx context.Context, d *Decision, reports *reports, head api.DecisionHead, n int, ask func(context.Context, *Call) error) (final bool, err error) {
	call := &Call{Head: head, ModelType: d.ModelType, DecisionID: d.DecisionID, Attempt: n, began: time.Now()}
	result := ResultError // unless ask returns
	if n == 0 {
		call.send = func() { reports.firstToken(ctx) }
		defer func() { reports.outcome(ctx, call.end(result)) }()
	}
	if err = ask(ctx, call); err == nil {
		result = ResultOK
	} else if ctx.Err() != nil {
		result = ResultCancelled
	}
	_, final = errors.AsType[*permanent](err)
	return final || call.begun(), err
}

// reports are the goroutines that report one decision: first token, then
// outcome.
type reports struct {
	decision *Decision
	first    sync.WaitGroup
	ended    sync.WaitGroup
}

func (r *reports) firstToken(ctx context.Context) {
	r.first.Go(func() { r.send(ctx, "first token", r.decision.FirstToken) })
}

func (r *reports) outcome(ctx context.Context, o api.Outcome) {
	r.ended.Go(func() {
		r.first.Wait()
		r.send(ctx, "outcome", func(ctx context.Context) error { return r.decision.Outcome(ctx, o) })
	})
}

// send sends one report, even after ctx has ended.
func (r *reports) send(ctx context.Context, what string, send func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTimeout)
	defer cancel()
	if err := send(ctx); err != nil {
		r.decision.client.log.Warn("a report of a decision was lost", "report", what, "error", err)
	}
}
