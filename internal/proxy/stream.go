package proxy

import (
	"bytes"
	"io"
	"net/http"
	"time"

	"headway/internal/openai"
	"headway/internal/routing"
	"headway/internal/upstream"
)

// Start-up events are held back until the first content, up to these bounds: as
// long as none was passed on, another head can answer.
const (
	maxHeldEvents = 64
	maxHeldBytes  = 256 << 10
)

var byteOrderMark = []byte("\ufeff")

// relay passes on one stream of events.
type relay struct {
	*exchange
	status  int
	held    []byte // start-up events
	heldN   int
	content bool // events were passed on: no other head can answer any more
	done    bool // the event that ends a stream came
	metrics *modelMetrics
	last    time.Time // of an event with content
}

// maxOut is the most that is written at once, unless one event is longer.
const maxOut = 16 << 10

// stream passes on a stream of events, each as it comes.
func (x *exchange) stream(res *upstream.Response) *failure {
	s := relay{exchange: x, status: res.Status, metrics: x.proxy.metrics.model(x.decision.ModelType)}
	x.events = &openai.Stream{Endpoint: x.caller.Endpoint, Model: x.model}
	if !x.begun {
		x.header(res.Status, res.Header, -1)
		if x.flush() != nil {
			return x.left()
		}
	}
	for {
		res.Body.Wait()
		f, err := s.some(res)
		if f != nil {
			return f
		}
		if err == nil {
			if s.content && x.flush() != nil {
				return x.left()
			}
			continue
		}
		if f := s.end(res, err); f != nil {
			return f
		}
		return x.complete(res, s.events.Usage())
	}
}

// some passes on what is there.
func (s *relay) some(res *upstream.Response) (*failure, error) {
	c, _ := chunks.Get().(*chunk)
	defer chunks.Put(c)
	n, err := res.Body.Read(c.b[:])
	now := s.proxy.o.Now()
	for p := c.b[:n]; len(p) > 0; {
		e, rest, ok := s.events.Next(p)
		if p = rest; !ok {
			break
		}
		if f := s.event(&e, now); f != nil {
			return f, nil
		}
	}
	if s.pass() != nil {
		return s.left(), nil
	}
	return nil, err
}

// pass writes what is to be written.
func (s *relay) pass() error {
	out := s.out
	s.out = s.out[:0]
	return s.write(s.mask.apply(out))
}

// event passes on one event, holds it, or finds a failure in it.
func (s *relay) event(e *openai.Event, now time.Time) *failure {
	if s.commented && len(s.held) == 0 && !s.content {
		e.Bytes = bytes.TrimPrefix(e.Bytes, byteOrderMark) // the stream has begun
	}
	switch {
	case e.Class == openai.Failed:
		return s.failed(e)
	case e.Class == openai.UsageOnly && s.asked:
		return nil // the caller did not ask for it
	case !s.content && (e.Class == openai.StartUp || e.Class == openai.UsageOnly):
		if counts(e) {
			s.heldN++
		}
		if s.heldN <= maxHeldEvents && len(s.held)+len(e.Bytes) <= maxHeldBytes {
			s.held = append(s.held, e.Bytes...)
			return nil
		}
	}
	s.done = s.done || e.Class == openai.Done
	if !s.content {
		s.begin()
	}
	if len(s.out)+len(e.Bytes) <= maxOut {
		s.out = append(s.out, e.Bytes...)
	} else if s.pass() != nil || s.write(s.mask.apply(e.Bytes)) != nil {
		return s.left()
	}
	if e.Class == openai.Content {
		s.text += int64(e.Text)
		s.token(now)
	}
	return nil
}

// counts reports whether a start-up event is one of maxHeldEvents. Comments and blank
// lines count by their bytes only.
func counts(e *openai.Event) bool {
	return len(e.Bytes) > 0 && !bytes.ContainsAny(e.Bytes[:1], ":\r\n")
}

// token notes an event with content. Those that were read at once came at once.
func (s *relay) token(now time.Time) {
	if s.last.IsZero() {
		s.metrics.firstToken.Observe(now.Sub(s.timing.begin).Seconds())
	} else {
		s.metrics.interval.Observe(now.Sub(s.last).Seconds())
	}
	s.last = now
}

// begin notes the first content: the request stays with its head now.
func (s *relay) begin() {
	s.content = true
	s.first = s.proxy.o.Router.Begun(s.decision)
	s.out, s.held = append(s.out, s.held...), nil // both are bounded
}

// failed is an event with an error. Before the first content another head is
// tried; after it the event is passed on and the connection is cut.
func (s *relay) failed(e *openai.Event) *failure {
	s.failing(reasonErrorInside)
	status := statusInside(e.Bytes)
	f := &failure{outcome: s.outcome(routing.ResultError, status)}
	if !s.content {
		f.again, f.answer = status >= 500 || status == http.StatusTooManyRequests, &keptEvent{append([]byte(nil), s.renamed(e.Bytes)...)}
		return f
	}
	s.proxy.metrics.cut.Inc()
	_ = s.pass()
	_ = s.write(s.renamed(e.Bytes))
	_ = s.flush()
	f.answer = ErrAborted
	return f
}

// end is the end of a stream: whole, or broken off.
func (s *relay) end(res *upstream.Response, err error) *failure {
	torn := false
	if last, ok := s.events.Flush(); ok && ended(err) && (res.Framed || last.Class == openai.Done) {
		if f := s.event(&last, s.proxy.o.Now()); f != nil {
			return f
		}
		if s.pass() != nil {
			return s.left()
		}
		torn = true // it had no blank line
	}
	if s.done { // the caller has all, even if it left or the head broke now
		if _ = s.pass(); s.recorded != nil { // the trail may take its time
			_ = s.flush()
		}
		return nil // net/http sends it together with the end of the answer
	}
	if ended(err) && res.Framed && !s.owesEnd() {
		if !s.content {
			s.begin()
		}
		if s.pass() != nil || s.flush() != nil {
			return s.left()
		}
		return nil
	}
	if ended(err) {
		err = &upstream.Error{Kind: upstream.EndOfStream, Sent: true, Received: true, Err: io.ErrUnexpectedEOF}
	}
	f := s.broken(err)
	blamed := f.outcome.Result == routing.ResultError
	if !s.content || !blamed && cutOff(s.ctx) == nil {
		return f
	}
	if blamed {
		s.proxy.metrics.cut.Inc()
	}
	if e, ok := f.answer.(*openai.Error); ok && s.events.Between() { //nolint:errorlint // it comes as it is
		var event []byte
		if torn {
			event = append(event, "\n\n"...)
		}
		_ = s.write(e.AppendEvent(event, s.caller.Endpoint, s.caller.RequestID))
		_ = s.flush()
	}
	f.again, f.answer = false, ErrAborted
	return f
}

// owesEnd reports whether a stream that ended without the event that ends it is
// broken off, however its connection ended: where no choice was finished.
func (s *relay) owesEnd() bool {
	switch s.caller.Endpoint.Name {
	case "chat.completions", "completions", "responses", "messages":
		return !s.events.Finished()
	}
	return false
}

// keptEvent is the error event of a head, to be passed on if all fail.
type keptEvent struct{ bytes []byte }

func (k *keptEvent) Error() string { return "the head's stream had an error" }
