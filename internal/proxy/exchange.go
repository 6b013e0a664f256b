package proxy

import (
	"errors"
	"net/http"
	"sync"
	"time"

	"headway/internal/admission"
	"headway/internal/fleet"
	"headway/internal/openai"
	"headway/internal/routing"
	"headway/internal/strategy"
	"headway/internal/tracing"
	"headway/internal/upstream"
)

// exchange is one request on its way through the proxy, for one goroutine.
type exchange struct {
	proxy   *Proxy
	w       http.ResponseWriter
	rc      *http.ResponseController
	r       *http.Request
	caller  Caller
	account admission.Caller // who that is for admission
	timing
	body     body
	fields   openai.Request
	req      strategy.Request
	priority admission.Priority
	decision *routing.Decision // of the attempt under way; nil: none is open
	placed   *routing.Decision // the last that was made, with or without a head; nil: none was
	trace    tracing.Context
	spans    *tracing.Trace // nil: the request is not sampled
	span     *tracing.Span  // of the attempt
	secrets  [2]string      // the caller's credentials
	headKey  string         // of the attempt's head; "": it has none
	target   string         // path and query at the head, of PassThrough
	upload   *upload        // its body, where it is not read before; nil: it is
	model    string         // that answers name in place of the head's; "": they are not changed
	real     string         // the name of the model at the head, where it is another
	asked    bool           // the head is asked for its usage, and the caller did not ask
	attempts int
	tried    time.Time // when the first attempt began
	sent     time.Time // of the attempt
	first    time.Time // of its first content; zero: none came
	dialed   bool      // its head was called, or was to be
	fault    string    // why it failed; "": it did not
	status   int       // of the answer that was sent; 0: none
	usage    openai.Usage
	prompt   int64          // bytes of the prompt
	text     int64          // bytes of text of the attempt's answer
	begun    bool           // the answer's header was sent
	events   *openai.Stream // that is passed on; nil: none so far
	reader   reader
	spoke    time.Time // when bytes were written to the caller last
	// commented says that the stream began with a comment
	commented bool

	answer openai.Answer // that is passed on, if it is no stream
	out    []byte        // of a stream, to be written before the head is waited for again
	call   upstream.Call
	pieces [8][]byte
	fieldA [24]upstream.Field
	said   said
}

// exchanges are those of requests that are over. No goroutine keeps one.
var exchanges = sync.Pool{New: func() any { return new(exchange) }}

// failure is an attempt that failed before its answer had content.
type failure struct {
	outcome routing.Outcome
	again   bool  // another head may be tried
	answer  error // for the caller if none is: *openai.Error, *kept, *keptEvent, ErrClientGone or ErrAborted
}

// read reads and checks the body, and makes the router's request of it.
func (x *exchange) read() error {
	if x.caller.Endpoint == PassThrough {
		return x.readPassThrough()
	}
	if encoded(x.r.Header) {
		x.w.Header()["Accept-Encoding"] = []string{"identity"}
		return &openai.Error{Status: http.StatusUnsupportedMediaType, Code: "unsupported_content_encoding", Message: "Content-Encoding: bodies must not be compressed."}
	}
	if err := x.proxy.bodies.read(x.rc, x.r, &x.body); err != nil {
		return err
	}
	var wrong *openai.Error
	if types := x.r.Header["Content-Type"]; len(types) > 1 {
		return &openai.Error{Status: http.StatusBadRequest, Param: "content-type", Message: "Content-Type must not be given twice."}
	}
	if x.caller.Endpoint.Form == openai.Multipart {
		wrong = openai.ScanMultipart(x.body.b, x.r.Header.Get("Content-Type"), &x.fields)
	} else {
		wrong = openai.Scan(x.body.b, &x.fields)
	}
	if wrong != nil {
		return wrong
	}
	return x.request()
}

// run sends the request to heads until one answers.
func (x *exchange) run() error {
	p := x.proxy
	p.budget.add()
	d, err := x.place()
	if err != nil {
		return err
	}
	for {
		x.decision, x.placed = d, d
		if err := x.refused(d); err != nil {
			return x.giveUp(err)
		}
		x.attempts++
		f := x.attempt()
		if f == nil {
			return nil
		}
		if d = x.next(f); d == nil {
			return x.giveUp(f.answer)
		}
	}
}

// next ends an attempt that failed, and returns the next one, or nil.
func (x *exchange) next(f *failure) *routing.Decision {
	p, d := x.proxy, x.decision
	x.estimate(&f.outcome)
	x.charge(&f.outcome)
	x.called(&f.outcome)
	x.decision = nil
	if p.o.Failed != nil && f.outcome.Blames() {
		p.o.Failed(d.Head)
	}
	if f.again && (x.upload == nil || !x.upload.begun) && x.attempts < p.o.Limits.MaxAttempts && p.o.Now().Sub(x.tried) < p.o.Limits.RetryTime && x.r.Context().Err() == nil {
		if !p.budget.take() {
			p.metrics.budgetSpent.Inc()
		} else if next, err := p.o.Router.Again(d, &x.req, f.outcome); err == nil {
			p.metrics.retries.Inc()
			return next
		} else { // the attempt has ended
			p.budget.giveBack()
			return nil
		}
	}
	p.o.Router.End(d, f.outcome)
	return nil
}

// giveUp is the end of a request that no head answered.
func (x *exchange) giveUp(answer error) error {
	if !x.begun {
		if k, ok := answer.(*kept); ok { //nolint:errorlint // it comes as it is
			return k.send(x)
		}
		return answer
	}
	switch e := answer.(type) { //nolint:errorlint // it comes as it is
	case *openai.Error:
		_ = x.write(e.AppendEvent(nil, x.caller.Endpoint, x.caller.RequestID))
	case *keptEvent:
		_ = x.write(e.bytes)
	case *kept:
		_ = x.write(e.event(x))
	default:
		return ErrAborted
	}
	_ = x.flush()
	return ErrAborted
}

// close ends what is open, on every way out, a panic's too.
func (x *exchange) close() {
	if x.decision != nil {
		o := withdrawn()
		x.called(&o)
		x.proxy.o.Router.End(x.decision, o)
	}
	x.proxy.bodies.free(&x.body)
	x.reader.close(x)
	x.answer.Reset(nil, "")
	if cap(x.out) > 2*maxOut {
		x.out = nil
	}
	*x = exchange{answer: x.answer, out: x.out[:0]}
	exchanges.Put(x)
}

// withdrawn is the outcome of a decision that says nothing of its head.
func withdrawn() routing.Outcome {
	return routing.Outcome{
		Result: routing.ResultCancelled, TTFT: float64(fleet.Unknown), Duration: float64(fleet.Unknown),
		InputTokens: fleet.Unknown, OutputTokens: fleet.Unknown, CachedTokens: fleet.Unknown,
	}
}

// finish ends the attempt that was answered.
func (x *exchange) finish(result routing.Result, status int) {
	d, o := x.decision, x.outcome(result, status)
	x.estimate(&o)
	x.charge(&o)
	x.called(&o)
	x.decision = nil
	x.proxy.o.Router.End(d, o)
}

// outcome is what becomes of the attempt.
func (x *exchange) outcome(result routing.Result, status int) routing.Outcome {
	now := x.proxy.o.Now()
	if x.events != nil { // what was reported of a stream that broke off counts too
		x.usage = x.events.Usage()
	}
	o := routing.Outcome{
		Result: result, StatusCode: int64(status), TTFT: float64(fleet.Unknown), Duration: millis(now.Sub(x.sent)),
		InputTokens: x.usage.Input, OutputTokens: x.usage.Output, CachedTokens: x.usage.Cached,
	}
	if !x.first.IsZero() {
		o.TTFT = millis(x.first.Sub(x.sent))
	}
	return o
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// attempt sends the request to the head of the decision. It returns nil when the
// request is over, answered or not.
func (x *exchange) attempt() *failure {
	p := x.proxy
	x.usage = openai.Usage{Input: openai.Unknown, Output: openai.Unknown, Cached: openai.Unknown}
	x.first, x.sent, x.events, x.dialed, x.fault, x.text = time.Time{}, p.o.Now(), nil, true, "", 0
	x.span = x.spans.Span("attempt", tracing.Client, x.sent)
	x.prepare()
	if x.tried.IsZero() {
		x.tried, x.spoke = x.sent, time.Now()
	}
	x.call.Since = x.tried
	x.wait(x.sent)
	res, stop, err := x.do()
	defer stop()
	x.resume(p.o.Now())
	if err != nil {
		return x.broken(err)
	}
	defer res.Body.Close() //nolint:errcheck // it is never an error
	return x.answered(res)
}

// broken is an exchange with a head that failed before its answer had content.
func (x *exchange) broken(err error) *failure {
	e, ok := errors.AsType[*upstream.Error](err)
	if !ok {
		e = &upstream.Error{Kind: upstream.Malformed, Err: err}
	}
	x.failing(string(e.Kind))
	if e.Kind == upstream.Canceled || x.r.Context().Err() != nil {
		return &failure{outcome: x.outcome(routing.ResultCancelled, 0), answer: ErrClientGone}
	}
	f := &failure{again: true}
	answer := &openai.Error{Status: http.StatusBadGateway, Code: "head_" + string(e.Kind), Message: "The head that the request was sent to failed: " + explain(e.Kind) + "."}
	switch e.Kind {
	case upstream.ConnectTimeout, upstream.WriteTimeout, upstream.FirstByteTimeout, upstream.IdleTimeout:
		answer.Status = http.StatusGatewayTimeout
	case upstream.TotalTimeout:
		answer.Status, f.again = http.StatusGatewayTimeout, false
	case upstream.Limit, upstream.Closed:
		answer.Status, answer.RetryAfter = http.StatusServiceUnavailable, retryAfter()
	}
	f.answer = answer
	f.outcome = x.outcome(routing.ResultError, answer.Status)
	if e.Kind == upstream.Limit || e.Kind == upstream.Closed || e.Kind == upstream.Invalid {
		f.outcome.Result, x.dialed = routing.ResultCancelled, false // no fault of the head
	}
	return f
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

// answered passes the answer of a head on, or says why another is tried.
func (x *exchange) answered(res *upstream.Response) *failure {
	x.failingStatus(res.Status)
	switch {
	case x.caller.Endpoint == PassThrough && isRedirect(res.Status): // the path is the caller's: no other head knows better
		return &failure{outcome: x.outcome(routing.ResultCancelled, res.Status), answer: redirected()}
	case x.caller.Endpoint == PassThrough && res.Status >= 200 && res.Status != http.StatusUnauthorized && res.Status != http.StatusProxyAuthRequired && !x.mayTryAgain(res.Status):
		return x.forward(res)
	case res.Status == http.StatusTooManyRequests || res.Status >= 500 && res.Status != http.StatusNotImplemented:
		x.stayAway(res)
		return x.keep(res, routing.ResultError)
	case res.Status == http.StatusUnauthorized || res.Status == http.StatusProxyAuthRequired:
		return &failure{again: true, outcome: x.outcome(routing.ResultError, http.StatusBadGateway), answer: &openai.Error{
			Status: http.StatusBadGateway, Code: "head_unauthorized", Message: "The head that the request was sent to did not accept the service's credential for it.",
		}}
	case res.Status == statusClientGone: // the head takes us for gone
		return &failure{again: true, outcome: x.outcome(routing.ResultError, res.Status), answer: &openai.Error{
			Status: http.StatusBadGateway, Code: "head_gone", Message: "The head that the request was sent to broke off its work.",
		}}
	case res.Status >= 300 && res.Status < 400 || res.Status < 200:
		return &failure{again: true, outcome: x.outcome(routing.ResultError, http.StatusBadGateway), answer: redirected()}
	case x.begun && !isEvents(res.Header):
		return x.late(res)
	case isEvents(res.Header):
		return x.stream(res)
	case res.Status >= 400 && mediaType(res.Header) != "application/json": // no error object
		f := x.keep(res, routing.ResultError)
		f.again = false
		return f
	}
	return x.whole(res)
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

// refusal is the answer to a decision that found no head.
func refusal(err error) error {
	if no, ok := errors.AsType[*routing.NoHeadError](err); ok {
		if no.Failure == routing.FailUnknownModel {
			return openai.ModelNotFound(no.ModelType)
		}
		return &openai.Error{
			Status: http.StatusServiceUnavailable, Code: no.Failure.String(), RetryAfter: retryAfter(),
			Message: "No head can take the request now: " + no.Failure.String() + ".",
		}
	}
	return hintError(err)
}
