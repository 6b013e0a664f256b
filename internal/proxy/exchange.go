package proxy

import (
	"context"
	"net/http"
	"strings"
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

// exchange is one request on its way through the proxy, for one goroutine. Its
// attempt is the one under way, or the last.
type exchange struct {
	proxy   *Proxy
	w       http.ResponseWriter
	rc      http.ResponseController
	r       *http.Request // whose own context is not asked, but ctx
	ctx     context.Context
	caller  Caller
	account admission.Caller // who that is for admission
	timing
	standing *standing
	body     body
	fields   openai.Request
	req      strategy.Request
	priority admission.Priority
	placed   *routing.Decision // the last that was made, with or without a head; nil: none was
	trace    tracing.Context
	spans    *tracing.Trace // nil: the request is not sampled
	secrets  [2]string      // the caller's credentials
	target   string         // path and query at the head, of PassThrough
	upload   *upload        // its body, where it is not read before; nil: it is
	prompt   int64          // bytes of the prompt
	hashes   []uint64       // of it
	attempts int
	beside   *routing.Decision // of the hedge that failed while its attempt went on; nil: none did
	unhedged bool              // the budget of hedges was used up when one was due
	tried    time.Time         // when the first attempt began
	attempt
	status int  // of the answer that was sent; 0: none
	begun  bool // the answer's header was sent
	reader reader
	spoke  time.Time // when bytes were written to the caller last
	// commented says that the stream began with a comment
	commented bool

	answer openai.Answer // that is passed on, if it is no stream
	out    []byte        // of a stream, to be written before the head is waited for again
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
	if strings.ContainsFunc(x.r.URL.RawQuery, func(r rune) bool { return r <= ' ' || r == 0x7f }) { // HTTP/2 lets it through
		return &openai.Error{Status: http.StatusBadRequest, Code: "invalid_query", Message: "The query has a space or a control character."}
	}
	if x.inURL() {
		return &openai.Error{Status: http.StatusBadRequest, Code: "key_in_url", Message: "The request has its credential in the URL, where logs keep it. Send it in Authorization or x-api-key alone."}
	}
	if x.caller.Endpoint == PassThrough {
		return x.readPassThrough()
	}
	if encoded(x.r.Header) {
		x.w.Header()["Accept-Encoding"] = []string{"identity"}
		return &openai.Error{Status: http.StatusUnsupportedMediaType, Code: "unsupported_content_encoding", Message: "Content-Encoding: bodies must not be compressed."}
	}
	if err := x.readBody(); err != nil {
		return err
	}
	if types := x.r.Header["Content-Type"]; len(types) > 1 {
		return &openai.Error{Status: http.StatusBadRequest, Param: "content-type", Message: "Content-Type must not be given twice."}
	}
	if wrong := x.scan(); wrong != nil {
		return wrong
	}
	return x.request()
}

func (x *exchange) incoming() incoming {
	return incoming{bodies: x.proxy.bodies, body: &x.body, ctx: x.ctx, rc: &x.rc, r: x.r, of: x.sharer()}
}

func (x *exchange) readBody() error {
	x.proxy.underway.awaits(x.standing, true)
	defer x.proxy.underway.awaits(x.standing, false)
	return x.proxy.bodies.read(x.incoming())
}

// run sends the request to heads until one answers.
func (x *exchange) run() error {
	p := x.proxy
	p.budget.add()
	d, err := x.place()
	if err == nil {
		err = x.permitted(d)
	}
	if err != nil {
		return err
	}
	for {
		x.open(d)
		if err := x.record(); err != nil {
			return x.giveUp(err)
		}
		x.attempts++
		f := x.try()
		if f == nil {
			return nil
		}
		if d = x.next(f); d == nil {
			return x.giveUp(f.answer)
		}
	}
}

// next ends an attempt that failed, and returns the next one, or nil. One of which not
// a byte was sent cost no head any work: what follows it takes nothing from the budget.
func (x *exchange) next(f *failure) *routing.Decision {
	p, d := x.proxy, x.decision
	x.charge(&f.outcome)
	x.called(&f.outcome)
	x.decision = nil
	if p.o.Failed != nil && f.outcome.Blames() {
		p.o.Failed(d.Head)
	}
	if f.again && (x.upload == nil || !x.upload.begun) && x.attempts < p.o.Limits.MaxAttempts && p.o.Now().Sub(x.tried) < p.o.Limits.RetryTime && x.ctx.Err() == nil {
		if x.unsent || p.budget.take() {
			return x.again(d, f)
		}
		p.metrics.budgetSpent.Inc()
	}
	p.o.Router.End(d, f.outcome)
	return nil
}

// again ends the attempt and decides on another head. Where the others only lack a
// place it waits for one.
func (x *exchange) again(d *routing.Decision, f *failure) *routing.Decision {
	p := x.proxy
	var next *routing.Decision
	var err error
	if x.beside != nil && x.beside.Before() == d { // its head was tried too
		p.o.Router.End(d, f.outcome)
		d = x.beside
		next, err = p.o.Router.After(d, &x.req)
	} else {
		next, err = p.o.Router.Again(d, &x.req, f.outcome)
	}
	if lacksPlace(err) && p.o.Admission.Queues() {
		next, err = x.placeAgain(d)
	}
	if err == nil && x.permitted(next) == nil {
		p.metrics.retries.Inc()
		return next
	}
	if !x.unsent {
		p.budget.giveBack()
	}
	if x.ctx.Err() != nil {
		f.answer = gone(x.ctx)
	}
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
		if x.begun {
			o.StatusCode = int64(x.status)
		}
		x.called(&o)
		x.proxy.o.Router.End(x.decision, o)
	}
	x.upload.close()
	x.proxy.bodies.free(&x.body)
	x.proxy.underway.leave(x.standing)
	x.reader.close(x)
	x.answer.Reset(nil, "")
	if cap(x.out) > 2*maxOut {
		x.out = nil
	}
	*x = exchange{answer: x.answer, out: x.out[:0], hashes: x.hashes[:0]}
	exchanges.Put(x)
}

// withdrawn is the outcome of a decision that says nothing of its head.
func withdrawn() routing.Outcome {
	return routing.Outcome{
		Result: routing.ResultCancelled, StatusCode: fleet.Unknown, TTFT: float64(fleet.Unknown), Duration: float64(fleet.Unknown),
		InputTokens: fleet.Unknown, OutputTokens: fleet.Unknown, CachedTokens: fleet.Unknown,
	}
}

// finish ends the attempt that was answered.
func (x *exchange) finish(result routing.Result, status int) {
	d, o := x.decision, x.outcome(result, status)
	x.charge(&o)
	x.called(&o)
	x.decision = nil
	x.proxy.o.Router.End(d, o)
}

// open begins the attempt at the head of the decision.
func (x *exchange) open(d *routing.Decision) {
	x.attempt = attempt{x: x, decision: d}
	x.placed = d
}

// try sends the request to the head of the decision. It returns nil when the
// request is over, answered or not.
func (x *exchange) try() *failure {
	p := x.proxy
	now := x.decision.At
	if x.tried.IsZero() {
		x.tried, x.spoke = now, now
	}
	x.start(x.attempts, now)
	x.wait(now)
	res, stop, err := x.do()
	defer stop()
	x.resume(p.o.Now())
	if err != nil {
		return x.broken(err)
	}
	defer res.Body.Close() //nolint:errcheck // it is never an error
	x.early = res.Early
	return x.answered(res)
}

// answered passes the answer of a head on, or says why another is tried.
func (x *exchange) answered(res *upstream.Response) *failure {
	x.failingStatus(res.Status)
	if res.Status >= 400 {
		x.mask.key = x.headKey // a short one too
	}
	if x.caller.Endpoint == PassThrough {
		switch {
		case x.forwards(res.Status):
			return x.forward(res, nil)
		case x.mayTryAgain(res.Status):
			x.stayAway(res)
			return x.keepOf(res)
		}
	}
	if res.Status < 200 || res.Status >= 300 {
		x.wait(x.proxy.o.Now())
		f := x.unusable(res)
		if x.resume(x.proxy.o.Now()); f != nil {
			return f
		}
	}
	switch {
	case x.begun && !isEvents(res.Header):
		return x.late(res)
	case isEvents(res.Header) && (x.begun || res.Status < 300): // an error is passed on as it is
		return x.stream(res)
	}
	return x.whole(res)
}
