package proxy

import (
	"errors"
	"net/http"
	"time"

	"headway/internal/openai"
	"headway/internal/routing"
	"headway/internal/tracing"
)

// Spans have names, numbers and kinds of error, and nothing of a prompt or an answer.

// decided records the decision about a request.
func (x *exchange) decided(d *routing.Decision, err error, begin time.Time) {
	if x.spans == nil {
		return
	}
	s := x.spans.Span("decide", tracing.Internal, begin)
	s.Set("headway.model_type", x.req.ModelType)
	if no, ok := errors.AsType[*routing.NoHeadError](err); ok {
		s.Fail(no.Failure.String())
	} else if err != nil {
		s.Fail("refused")
	} else {
		s.Set("headway.decision_id", d.ID())
		s.Set("headway.strategy", d.Strategy)
		s.Set("headway.head", d.Head.ID)
		s.Set("headway.region", d.Head.Region)
	}
	s.End(x.proxy.o.Now())
}

// attempted records the end of an attempt.
func (a *attempt) attempted(o *routing.Outcome) {
	s := a.span
	if s == nil {
		return
	}
	d := a.decision
	s.Set("headway.head", d.Head.ID)
	s.Set("headway.region", d.Head.Region)
	s.Set("headway.model_type", d.ModelType)
	s.Set("headway.attempt", int64(a.number))
	s.Set("headway.result", o.Result.String())
	if o.StatusCode > 0 {
		s.Set("http.response.status_code", o.StatusCode)
	}
	if o.TTFT >= 0 {
		s.Set("headway.time_to_first_token_ms", o.TTFT)
	}
	for _, n := range []struct {
		name   string
		tokens int64
	}{
		{"gen_ai.usage.input_tokens", o.InputTokens}, {"gen_ai.usage.output_tokens", o.OutputTokens}, {"gen_ai.usage.cache_read.input_tokens", o.CachedTokens},
	} {
		if n.tokens >= 0 {
			s.Set(n.name, n.tokens)
		}
	}
	if a.fault != "" && o.Result != routing.ResultCancelled {
		s.Fail(a.fault)
	}
	s.End(a.x.proxy.o.Now())
	a.span = nil
}

// ended records the end of the request, and sends its trace.
func (x *exchange) ended(err error, at time.Time) {
	if x.spans == nil {
		return
	}
	s, e := x.spans.Request(), x.caller.Endpoint
	s.Set("http.request.method", x.r.Method)
	s.Set("http.route", routeOf(e))
	s.Set("gen_ai.operation.name", e.Name)
	s.Set("gen_ai.request.model", x.fields.Model)
	s.Set("headway.request_id", x.caller.RequestID)
	s.Set("headway.stream", x.fields.Stream)
	s.Set("headway.attempts", int64(x.attempts))
	s.Set("headway.overhead_ms", millis(x.overhead))
	status := x.status
	if refused, ok := errors.AsType[*openai.Error](err); ok && !x.begun {
		status = refused.Status
	}
	if status > 0 {
		s.Set("http.response.status_code", int64(status))
	}
	switch {
	case errors.Is(err, ErrClientGone):
		s.Set("headway.result", "cancelled")
	case errors.Is(err, ErrAborted):
		s.Fail("cut")
	case err != nil && status >= http.StatusInternalServerError:
		s.Fail("refused")
	}
	x.spans.End(at)
}

// routeOf is the template of the path of an endpoint.
func routeOf(e *openai.Endpoint) string {
	if e == PassThrough {
		return passThroughPath + "{model_type}/"
	}
	return e.Path
}
