package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"headway/internal/access"
	"headway/internal/admission"
	"headway/internal/openai"
	"headway/internal/routing"
	"headway/internal/strategy"
	"headway/internal/tracing"
	"headway/internal/upstream"
)

// accountOf is a principal as admission knows it.
func accountOf(p *access.Principal) admission.Caller {
	if p == nil {
		return admission.Caller{}
	}
	return admission.Caller{
		ID: p.Type + ":" + p.ID, Weight: p.Limits.Weight,
		Requests: p.Limits.RequestsPerMinute, Tokens: p.Limits.TokensPerMinute,
	}
}

// sharer is the caller as one of those who share the room for bodies; "": all are one.
func (x *exchange) sharer() string {
	if p := x.caller.Principal; p == nil || p.ID == "" {
		return ""
	}
	return x.account.ID
}

// enter counts the request for its caller's limits, and says in the answer what is
// left of them.
func (x *exchange) enter() error {
	x.account = accountOf(x.caller.Principal)
	standing, err := x.proxy.o.Admission.Enter(&x.account)
	x.sayLimits(standing)
	limited, is := errors.AsType[*admission.LimitError](err)
	if !is {
		return err
	}
	kind := "requests"
	if limited.Tokens {
		kind = "tokens"
	}
	return &openai.Error{
		Status: http.StatusTooManyRequests, Type: kind, Code: "rate_limit_exceeded", RetryAfter: limited.RetryAfter + retryAfter() - leastRetryAfter,
		Message: fmt.Sprintf("Rate limit reached: %d %s per minute.", limited.Limit, kind),
	}
}

// sayLimits says in the answer, which has not begun, what is left of each limit that
// there is.
func (x *exchange) sayLimits(standing admission.Standing) {
	h := x.w.Header()
	for _, q := range []struct {
		limit, remaining, reset string
		admission.Quota
	}{
		{"X-Ratelimit-Limit-Requests", "X-Ratelimit-Remaining-Requests", "X-Ratelimit-Reset-Requests", standing.Requests},
		{"X-Ratelimit-Limit-Tokens", "X-Ratelimit-Remaining-Tokens", "X-Ratelimit-Reset-Tokens", standing.Tokens},
	} {
		if q.Limit > 0 {
			h[q.limit] = []string{strconv.FormatInt(q.Limit, 10)}
			h[q.remaining] = []string{strconv.FormatInt(q.Remaining, 10)}
			h[q.reset] = []string{q.Reset.Round(time.Millisecond).String()}
		}
	}
}

// charge counts the tokens of an attempt, and fills in those that its head did not
// report. Of an answer that is held whole that was done before it was sent.
func (x *exchange) charge(o *routing.Outcome) {
	if x.charged {
		o.Estimated = x.guessed
		return
	}
	x.estimate(o)
	x.proxy.o.Admission.Charge(&x.account, x.tokens(o))
}

// chargeFirst charges for an answer that is held whole, so that its header says what
// is left after it. Callers without a limit of tokens have no such header.
func (x *exchange) chargeFirst(status int, u openai.Usage) {
	x.usage = u
	if x.w.Header()["X-Ratelimit-Limit-Tokens"] == nil {
		return
	}
	o := x.outcome(resultOf(status), status)
	x.estimate(&o)
	x.sayLimits(x.proxy.o.Admission.Charge(&x.account, x.tokens(&o)))
	x.usage = openai.Usage{Input: o.InputTokens, Output: o.OutputTokens, Cached: o.CachedTokens}
	x.charged, x.guessed = true, o.Estimated
}

// tokens are those that the caller of an attempt pays for: of an answer that had content,
// and of the prompt that a head had when the caller left before that.
func (x *exchange) tokens(o *routing.Outcome) int64 {
	if !x.first.IsZero() {
		return max(o.InputTokens, 0) + max(o.OutputTokens, 0)
	}
	left := o.Result == routing.ResultCancelled && x.dialed && !x.unsent && cutOff(x.ctx) == nil
	if !left || x.prompt == 0 {
		return 0
	}
	return x.proxy.estimates.prompt(x.decision.ModelType, x.prompt)
}

// decide asks the router for a head.
func (x *exchange) decide() (*routing.Decision, error) {
	return x.decideBy(x.proxy.o.Router.Decide)
}

func (x *exchange) decideBy(decide func(*strategy.Request) (*routing.Decision, error)) (*routing.Decision, error) {
	var begin time.Time
	if x.spans != nil {
		begin = x.proxy.o.Now()
	}
	d, err := decide(&x.req)
	if err == nil || !x.req.Waits { // not of each turn in the queue
		x.decided(d, err, begin)
	}
	x.placed = d
	if no, ok := errors.AsType[*routing.NoHeadError](err); ok {
		x.placed = no.Decision
	}
	return d, err
}

// place finds a head for the request. Where each is full, and where others wait
// already, it waits for its turn. The error is one to answer with.
func (x *exchange) place() (*routing.Decision, error) {
	a := x.proxy.o.Admission
	x.req.Source = &strategy.Source{RequestID: x.caller.RequestID, Received: x.begin}
	x.req.Waits = a.Queues()
	if !a.Busy(x.pool()) {
		d, err := x.decide()
		if err == nil {
			return d, nil
		}
		if !x.req.Waits || !lacksPlace(err) {
			return x.last(false)
		}
	}
	d, err, end := x.queue(x.ctx, nil, x.decide)
	switch {
	case end == nil && err == nil:
		return d, nil
	case end == nil:
		return x.last(false)
	case errors.Is(end, admission.ErrTimeout):
		return x.last(true)
	case errors.Is(end, admission.ErrFull):
		return nil, x.queueFull()
	case x.ctx.Err() == nil: // its body did not come
		return nil, end
	}
	return nil, gone(x.ctx)
}

// placeAgain has a request wait whose attempt failed, and whose other heads only lack
// a place, until one comes free or no attempt may begin any more. A stream has its
// comments meanwhile.
func (x *exchange) placeAgain(failed *routing.Decision) (*routing.Decision, error) {
	p := x.proxy
	x.req.Waits, x.events = true, nil
	left := p.o.Limits.RetryTime - p.o.Now().Sub(x.tried)
	ctx, cancel := context.WithTimeout(x.ctx, left)
	defer cancel()
	d, err, end := x.queue(ctx, x.call.Silence, func() (*routing.Decision, error) { return p.o.Router.After(failed, &x.req) })
	return d, cmp.Or(end, err)
}

// pool is the model type whose places the request waits for.
func (x *exchange) pool() string { return x.proxy.o.Router.Policy().Model(x.req.ModelType) }

// queue has the request wait until decide finds a head, or nothing to wait for.
// silence is called when it is due meanwhile, if it is set. The last error is that of
// the wait, the other one of decide.
func (x *exchange) queue(ctx context.Context, silence func() (time.Time, error), decide func() (*routing.Decision, error)) (d *routing.Decision, err, end error) {
	if err := x.upload.keep(); err != nil { //nolint:contextcheck // it is the request's
		return nil, nil, err
	}
	p, began, before := x.proxy, x.proxy.o.Now(), x.req.Queued
	until := began.Add(p.o.Admission.MaxWait())
	r := admission.Request{Pool: x.pool(), Caller: x.account, Priority: x.priority}
	if mode := p.o.Router.Policy().Plan(r.Pool, x.req.Region).RegionMode; cmp.Or(x.req.RegionMode, mode) == strategy.RegionRequire {
		r.Lane = x.req.Region
	}
	x.wait(began)
	span := x.spans.Span("queue", tracing.Internal, began)
	end = upstream.Waiting(ctx, silence, func(ctx context.Context) error {
		return p.o.Admission.Wait(ctx, &r, func() bool {
			x.req.Queued = before + p.o.Now().Sub(began)
			d, err = decide()
			return err == nil || !worthWaiting(err, until)
		})
	})
	now := p.o.Now()
	x.req.Queued = before + now.Sub(began)
	x.resume(now)
	span.End(now)
	return d, err, end
}

// last decides once more, so that a failure is counted and kept. timedOut says that
// the request waited for a place for as long as it may.
func (x *exchange) last(timedOut bool) (*routing.Decision, error) {
	x.req.Waits = false
	decide := x.proxy.o.Router.Decide
	if timedOut {
		decide = x.proxy.o.Router.DecideLast
	}
	d, err := x.decideBy(decide)
	if err == nil {
		return d, nil
	}
	answer := x.refusal(err)
	no, _ := errors.AsType[*routing.NoHeadError](err)
	e, _ := errors.AsType[*openai.Error](answer)
	switch {
	case no == nil || e == nil:
	case !no.Busy && !no.Paused.IsZero():
		e.Status, e.Code, e.RetryAfter = http.StatusTooManyRequests, "heads_rate_limited", retryAfterPause(no.Paused.Sub(x.proxy.o.Now()))
		e.Message = "All heads that may take the request asked for a pause. Try again after it."
	case no.Busy && timedOut:
		e.Code, e.Message = routing.FailQueueTimeout.String(), lacks(no)+", and none had a place in time. Try again later."
		if no.Failure == routing.FailPoolFull {
			e.Message = lacks(no) + ", and none of them ended in time. Try again later."
		}
	}
	return nil, answer
}

// queueFull is the answer to a request that may not wait. It is kept as a decision
// that found no place.
func (x *exchange) queueFull() error {
	err := x.proxy.o.Router.Refuse(&x.req)
	no, ok := errors.AsType[*routing.NoHeadError](err)
	if !ok {
		return x.refusal(err)
	}
	x.placed = no.Decision
	return &openai.Error{
		Status: http.StatusServiceUnavailable, Code: routing.FailQueueFull.String(), RetryAfter: retryAfter(),
		Message: lacks(no) + ", and as many requests wait as may. Try again later.",
	}
}

// lacks is the beginning of a sentence on what keeps a request from the heads that may
// take it.
func lacks(no *routing.NoHeadError) string {
	if no.Failure == routing.FailPoolFull {
		return "As many requests of the model are under way as the policy allows"
	}
	return "Every head of the model is busy"
}

// lacksPlace reports whether a decision found no head only since none has a place.
func lacksPlace(err error) bool {
	no, ok := errors.AsType[*routing.NoHeadError](err)
	return ok && no.Busy
}

// worthWaiting reports whether a request that waits may find a head until then after
// all: a place may come free, a pause ends, a head may come or come back.
func worthWaiting(err error, until time.Time) bool {
	no, ok := errors.AsType[*routing.NoHeadError](err)
	switch {
	case !ok:
		return false
	case no.Busy:
		return true
	case !no.Paused.IsZero():
		return no.Paused.Before(until)
	}
	return no.Failure == routing.FailUnroutable || no.Failure == routing.FailNoHeads || no.Failure == routing.FailRegion && !no.Stray
}
