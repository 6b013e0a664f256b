package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"daa1f9e/api"
)

// tellTimeout bounds each report about a decision that [Client.Do] makes; it
// is the router's time limit that makes good what it does not hear.
const tellTimeout = 2 * time.Second

// Call is one try of a request, on one head. It belongs to the function that
// it was given to, and is safe for concurrent use.
type Call struct {
	Head       api.DecisionHead
	ModelType  string // to ask the head for: aliases are resolved
	DecisionID string
	Attempt    int // 0: the decision's head; then its alternatives

	began time.Time
	tell  func() // of the first token; nil for an alternative

	mu      sync.Mutex
	first   time.Time
	ended   bool // ask has returned
	outcome api.Outcome
}

// FirstToken says that the head has begun to answer. From then on no other
// head is tried. A second time says nothing, nor does one after ask returned.
func (c *Call) FirstToken() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || !c.first.IsZero() {
		return
	}
	c.first = time.Now()
	if c.tell != nil {
		c.tell()
	}
}

// Status notes the HTTP status of the head's answer, 100 to 599.
func (c *Call) Status(code int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := int64(code)
	c.outcome.StatusCode = &n
}

// Usage notes the tokens that the head counted; one below 0 is not known.
func (c *Call) Usage(input, output, cached int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range []struct {
		n  int64
		to **int64
	}{{input, &c.outcome.InputTokens}, {output, &c.outcome.OutputTokens}, {cached, &c.outcome.CachedTokens}} {
		if of.n >= 0 {
			n := of.n
			*of.to = &n
		}
	}
}

func (c *Call) begun() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.first.IsZero()
}

// end is the outcome of a call that ended with result.
func (c *Call) end(result string) api.Outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	o := c.outcome
	o.Result = result
	took := milliseconds(time.Since(c.began))
	o.DurationMs = &took
	if !c.first.IsZero() {
		ttft := milliseconds(c.first.Sub(c.began))
		o.TTFTMs = &ttft
	}
	return o
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// permanent is an error that another head would not mend.
type permanent struct{ err error }

func (p *permanent) Error() string { return p.err.Error() }
func (p *permanent) Unwrap() error { return p.err }

// Permanent marks an error that no other head would mend, such as a request
// that the head refuses; [Client.Do] returns it and tries no alternative.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanent{err}
}

// Do decides, and lets ask send the request to the head. When that fails it
// tries the decision's alternatives in order, unless ctx has ended, an answer
// has begun, the error is [Permanent], or the retries of the call or the budget
// of the client are used up.
//
// It reports the first token and the outcome of the decision's own head, the
// outcome exactly once, as soon as it is known and also when ctx has ended or
// ask panics; both have a short time limit of their own and are waited for. An
// alternative has no place reserved, so nothing is reported of it.
//
// The error is that of [Client.Decide], or those of ask, joined.
func (c *Client) Do(ctx context.Context, r api.DecisionRequest, ask func(ctx context.Context, call *Call) error) error {
	d, err := c.Decide(ctx, r)
	if err != nil {
		return err
	}
	reports := &reports{decision: d}
	defer reports.wait()
	err = c.attempt(ctx, d, reports, d.Head, 0, ask)
	failures := []error{err}
	for i, head := range d.Alternatives {
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || i >= c.repeats || errors.Is(err, errFinal) || !c.budget.spend() {
			break
		}
		c.log.Debug("an alternative is tried", "decision", d.DecisionID, "head", head.ID, "error", err)
		err = c.attempt(ctx, d, reports, head, i+1, ask)
		failures = append(failures, err)
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("decision %s: %w", d.DecisionID, errors.Join(failures...))
}

// errFinal marks an attempt after which no other follows.
var errFinal = errors.New("no other head is tried")

// attemptError is the failure of one head.
type attemptError struct {
	head  string
	final bool
	err   error
}

func (e *attemptError) Error() string        { return "head " + e.head + ": " + e.err.Error() }
func (e *attemptError) Unwrap() error        { return e.err }
func (e *attemptError) Is(target error) bool { return e.final && target == errFinal }

func (c *Client) attempt(ctx context.Context, d *Decision, reports *reports, head api.DecisionHead, n int, ask func(context.Context, *Call) error) error {
	call := &Call{Head: head, ModelType: d.ModelType, DecisionID: d.DecisionID, Attempt: n, began: time.Now()}
	result := ResultError // unless ask returns
	if n == 0 {
		call.tell = func() { reports.firstToken(ctx) }
		defer func() { reports.outcome(ctx, call.end(result)) }()
	}
	err := ask(ctx, call)
	if err == nil {
		result = ResultOK
		return nil
	}
	if ctx.Err() != nil {
		result = ResultCancelled
	}
	_, final := errors.AsType[*permanent](err)
	return &attemptError{head: head.ID, final: final || call.begun(), err: err}
}

// reports are the goroutines that tell the router about one decision: at most
// one for the first token, and one for the outcome, which comes after it.
type reports struct {
	decision *Decision
	first    sync.WaitGroup
	all      sync.WaitGroup
}

func (r *reports) wait() { r.all.Wait() }

func (r *reports) firstToken(ctx context.Context) {
	r.first.Add(1)
	r.all.Go(func() {
		defer r.first.Done()
		r.tell(ctx, "first token", r.decision.FirstToken)
	})
}

func (r *reports) outcome(ctx context.Context, o api.Outcome) {
	r.all.Go(func() {
		r.first.Wait()
		r.tell(ctx, "outcome", func(ctx context.Context) error { return r.decision.Outcome(ctx, o) })
	})
}

// tell sends one report, whether ctx has ended or not.
func (r *reports) tell(ctx context.Context, what string, send func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellTimeout)
	defer cancel()
	if err := send(ctx); err != nil {
		r.decision.client.log.Warn("a report of a decision was lost", "report", what, "error", err)
	}
}
