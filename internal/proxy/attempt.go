package proxy

import (
	"errors"
	"net/http"
	"time"

	"headway/internal/fleet"
	"headway/internal/openai"
	"headway/internal/routing"
	"headway/internal/tracing"
	"headway/internal/upstream"
)

// attempt is what belongs to one try of a request at one head. A hedged request has
// two at once: each has its own, and reads of the exchange what is the request's.
type attempt struct {
	x        *exchange
	number   int               // from 1
	decision *routing.Decision // nil: none is open
	span     *tracing.Span     // nil: the request is not sampled
	headKey  string            // that the head asks for; "": it asks for none
	mask     mask              // of it, in the answer
	model    string            // that answers name in place of the head's; "": they are not changed
	real     string            // the name of the model at the head, where it is another
	asked    bool              // the head is asked for its usage, and the caller did not ask
	dialed   bool              // the head was called, or was to be
	sent     time.Time
	first    time.Time      // of the first content; zero: none came
	events   *openai.Stream // that is passed on; nil: none so far
	usage    openai.Usage
	text     int64                  // bytes of text of the answer
	charged  bool                   // its caller has paid for it
	guessed  bool                   // the tokens of what it paid are an estimate
	fault    string                 // why it failed; "": it did not
	unsent   bool                   // not a byte of the request can have reached the head
	early    bool                   // the head answered or closed before the request's end
	recorded func(*routing.Outcome) // has the audit trail say how it ended; nil: it says nothing
	call     upstream.Call
	pieces   [8][]byte          // of its body
	lines    [24]upstream.Field // of its header
}

// start makes the call to the head of the decision.
func (a *attempt) start(number int, at time.Time) {
	a.number, a.sent, a.dialed = number, at, true
	a.usage = openai.Usage{Input: openai.Unknown, Output: openai.Unknown, Cached: openai.Unknown}
	a.span = a.x.spans.Span("attempt", tracing.Client, at)
	a.prepare()
	a.call.Since, a.call.Once = a.x.tried, !a.x.repeatable()
}

// outcome is what becomes of the attempt. A status of 0 is none.
func (a *attempt) outcome(result routing.Result, status int) routing.Outcome {
	now := a.x.proxy.o.Now()
	if a.events != nil { // what was reported of a stream that broke off counts too
		a.usage = a.events.Usage()
	}
	o := routing.Outcome{
		Result: result, StatusCode: int64(status), TTFT: float64(fleet.Unknown), Duration: millis(now.Sub(a.sent)),
		InputTokens: a.usage.Input, OutputTokens: a.usage.Output, CachedTokens: a.usage.Cached,
		Whole: a.events == nil,
	}
	if status == 0 {
		o.StatusCode = fleet.Unknown
	}
	if result == routing.ResultError && status >= 500 && a.slowUpload() {
		o.StatusCode = http.StatusRequestTimeout
	}
	if !a.first.IsZero() {
		o.TTFT = millis(a.first.Sub(a.sent))
	}
	return o
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// statusSent is the status that the caller got, 0: none so far, or of a hedge that has
// lost.
func (a *attempt) statusSent() int {
	if a == &a.x.attempt {
		return a.x.status
	}
	return 0
}

// broken is an exchange with a head that failed before its answer had content.
func (a *attempt) broken(err error) *failure {
	e, ok := errors.AsType[*upstream.Error](err)
	if !ok {
		e = &upstream.Error{Kind: upstream.Malformed, Err: err}
	}
	a.failing(string(e.Kind))
	a.unsent = !e.Sent
	a.early = a.early || e.Early
	if e.Kind == upstream.Canceled || a.x.ctx.Err() != nil {
		return &failure{outcome: a.outcome(routing.ResultCancelled, a.statusSent()), answer: a.x.gone()}
	}
	f := &failure{again: a.unsent || a.x.repeatable()}
	answer := headError(e.Kind)
	if e.Kind == upstream.TotalTimeout {
		f.again = false
	}
	gaveUp := a.gaveUp(e.Kind)
	if gaveUp && !a.x.begun {
		answer = &openai.Error{Status: http.StatusRequestTimeout, Message: "The body took too long to come: the head that it was sent to did not wait for its end."}
	}
	f.answer = answer
	f.outcome = a.outcome(routing.ResultError, answer.Status)
	if gaveUp {
		f.outcome.StatusCode = http.StatusRequestTimeout
	}
	if e.Kind == upstream.Limit || e.Kind == upstream.Closed || e.Kind == upstream.Invalid {
		f.outcome.Result, a.dialed = routing.ResultCancelled, false // no fault of the head
	}
	return f
}

// headError is what a caller gets for the failure of a head.
func headError(k upstream.Kind) *openai.Error {
	answer := &openai.Error{Status: http.StatusBadGateway, Code: "head_" + string(k), Message: "The head that the request was sent to failed: " + explain(k) + "."}
	switch k {
	case upstream.ConnectTimeout, upstream.WriteTimeout, upstream.FirstByteTimeout, upstream.IdleTimeout, upstream.TotalTimeout:
		answer.Status = http.StatusGatewayTimeout
	case upstream.Limit, upstream.Closed:
		answer.Status, answer.RetryAfter = http.StatusServiceUnavailable, retryAfter()
	}
	return answer
}

// explain says what happened, without the address.
func explain(k upstream.Kind) string {
	switch k {
	case upstream.Forbidden:
		return "its address is not allowed"
	case upstream.Limit:
		return "as many connections to it as allowed are open"
	case upstream.Closed:
		return "the service is stopping"
	case upstream.Resolve:
		return "its name has no address"
	case upstream.Refused:
		return "it refused the connection"
	case upstream.Unreachable:
		return "it cannot be reached"
	case upstream.ConnectTimeout:
		return "it could not be connected to in time"
	case upstream.TLS:
		return "no TLS connection could be made"
	case upstream.Write, upstream.Reset:
		return "the connection broke"
	case upstream.WriteTimeout:
		return "it did not take the request in time"
	case upstream.EndOfStream:
		return "it closed the connection before its answer was complete"
	case upstream.FirstByteTimeout:
		return "it did not begin to answer in time"
	case upstream.IdleTimeout:
		return "it stopped in the middle of its answer"
	case upstream.TotalTimeout:
		return "its answer took too long"
	case upstream.Malformed:
		return "its answer is no HTTP"
	}
	return "the request could not be sent"
}

// statusClientGone is what servers log, and some answer, when a client left.
const statusClientGone = 499

// unusable is the failure that the status of an answer is; nil: it is none, and the
// answer is one for the caller.
func (a *attempt) unusable(res *upstream.Response) *failure {
	switch {
	case a.x.caller.Endpoint == PassThrough && isRedirect(res.Status): // the path is the caller's: no other head knows better
		return &failure{outcome: a.outcome(routing.ResultCancelled, res.Status), answer: redirected()}
	case res.Status == http.StatusTooManyRequests || res.Status >= 500 && res.Status != http.StatusNotImplemented:
		a.stayAway(res)
		return a.keep(res, routing.ResultError)
	case res.Status == http.StatusUnauthorized || res.Status == http.StatusProxyAuthRequired:
		return &failure{again: true, outcome: a.outcome(routing.ResultError, http.StatusBadGateway), answer: &openai.Error{
			Status: http.StatusBadGateway, Code: "head_unauthorized", Message: "The head that the request was sent to did not accept the service's credential for it.",
		}}
	case res.Status == statusClientGone: // the head takes us for gone
		return &failure{again: true, outcome: a.outcome(routing.ResultError, res.Status), answer: &openai.Error{
			Status: http.StatusBadGateway, Code: "head_gone", Message: "The head that the request was sent to broke off its work.",
		}}
	case res.Status >= 300 && res.Status < 400 || res.Status < 200:
		return &failure{again: true, outcome: a.outcome(routing.ResultError, http.StatusBadGateway), answer: redirected()}
	case res.Status >= 400 && mediaType(res.Header) != "application/json" && !isEvents(res.Header): // no error object
		f := a.keep(res, routing.ResultError)
		f.again = false
		return f
	}
	return nil
}

// isRedirect reports whether a status sends clients elsewhere; 304 does not.
func isRedirect(status int) bool {
	return status >= 300 && status < 400 && status != http.StatusNotModified
}

func redirected() *openai.Error {
	return &openai.Error{
		Status: http.StatusBadGateway, Code: "head_redirected", Message: "The head that the request was sent to answered with a redirect, which is not followed.",
	}
}
