package proxy

import (
	"cmp"
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

// enter counts the request for its caller's limits, and says in the answer what is
// left of them.
func (x *exchange) enter() error {
	x.account = accountOf(x.caller.Principal)
	standing, err := x.proxy.o.Admission.Enter(&x.account)
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

// charge counts the tokens of an attempt that has ended.
func (x *exchange) charge(o *routing.Outcome) {
	x.proxy.o.Admission.Charge(&x.account, max(o.InputTokens, 0)+max(o.OutputTokens, 0))
}

// decide asks the router for a head.
func (x *exchange) decide() (*routing.Decision, error) {
	var begin time.Time
	if x.spans != nil {
		begin = x.proxy.o.Now()
	}
	d, err := x.proxy.o.Router.Decide(&x.req)
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
	pool := x.proxy.o.Router.Policy().Model(x.req.ModelType)
	x.req.Waits = a.Queues()
	if !a.Busy(pool) {
		d, err := x.decide()
		if err == nil {
			return d, nil
		}
		if !x.req.Waits || failureOf(err) != routing.FailAtCapacity {
			return x.last("")
		}
	}
	return x.await(pool)
}

// await has the request wait for a place.
func (x *exchange) await(pool string) (d *routing.Decision, err error) {
	if err := x.upload.keep(); err != nil {
		return nil, err
	}
	p := x.proxy
	r := admission.Request{Pool: pool, Caller: x.account, Priority: x.priority}
	if mode := p.o.Router.Policy().Plan(pool, x.req.Region).RegionMode; cmp.Or(x.req.RegionMode, mode) == strategy.RegionRequire {
		r.Lane = x.req.Region
	}
	x.wait(p.o.Now())
	queued := x.spans.Span("queue", tracing.Internal, x.waiting)
	end := p.o.Admission.Wait(x.r.Context(), &r, func() bool {
		d, err = x.decide()
		switch failureOf(err) {
		case routing.FailAtCapacity, routing.FailUnroutable, routing.FailNoHeads, routing.FailRegion:
			return stray(err) // or a head may come, or come back
		}
		return true
	})
	x.resume(p.o.Now())
	queued.End(p.o.Now())
	switch {
	case end == nil && err == nil:
		return d, nil
	case end == nil:
		return x.last("")
	case errors.Is(end, admission.ErrTimeout):
		return x.last("queue_timeout")
	case errors.Is(end, admission.ErrFull):
		return nil, &openai.Error{
			Status: http.StatusServiceUnavailable, Code: "queue_full", RetryAfter: retryAfter(),
			Message: "Every head of the model is busy, and as many requests wait for one as may. Try again later.",
		}
	}
	return nil, gone(x.r.Context())
}

// last decides once more, so that a failure is counted and kept. code, if it is not
// empty, names one for want of capacity.
func (x *exchange) last(code string) (*routing.Decision, error) {
	x.req.Waits = false
	d, err := x.decide()
	if err == nil {
		return d, nil
	}
	answer := x.refusal(err)
	if e, ok := errors.AsType[*openai.Error](answer); ok && code != "" && failureOf(err) == routing.FailAtCapacity {
		e.Code, e.Message = code, "Every head of the model is busy, and none had a place in time. Try again later."
	}
	return nil, answer
}

// failureOf is why no head was found; 0: one was, or the request is at fault.
func failureOf(err error) routing.Failure {
	if no, ok := errors.AsType[*routing.NoHeadError](err); ok {
		return no.Failure
	}
	return 0
}
