package proxy

import (
	"io"
	"net/http"

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

// relay passes on one stream of events.
type relay struct {
	*exchange
	status  int
	held    []byte // start-up events
	heldN   int
	content bool // events were passed on: no other head can answer any more
	done    bool // the event that ends a stream came
}

// stream passes on a stream of events, each as it comes.
func (x *exchange) stream(res *upstream.Response) *failure {
	s := relay{exchange: x, status: res.Status}
	x.events = &openai.Stream{Endpoint: x.caller.Endpoint, Model: x.model}
	if !x.begun {
		x.header(res.Status, res.Header, -1)
		if x.rc.Flush() != nil {
			return x.left()
		}
	}
	c, _ := chunks.Get().(*chunk)
	defer chunks.Put(c)
	for {
		n, err := res.Body.Read(c.b[:])
		for p := c.b[:n]; len(p) > 0; {
			e, rest, ok := s.events.Next(p)
			if p = rest; !ok {
				break
			}
			if f := s.event(&e); f != nil {
				return f
			}
		}
		if err == nil {
			if s.content && x.rc.Flush() != nil {
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

// event passes on one event, holds it, or finds a failure in it.
func (s *relay) event(e *openai.Event) *failure {
	switch {
	case e.Class == openai.Failed:
		return s.failed(e)
	case e.Class == openai.UsageOnly && s.asked:
		return nil // the caller did not ask for it
	case !s.content && (e.Class == openai.StartUp || e.Class == openai.UsageOnly):
		if s.heldN++; s.heldN <= maxHeldEvents && len(s.held)+len(e.Bytes) <= maxHeldBytes {
			s.held = append(s.held, e.Bytes...)
			return nil
		}
	}
	s.done = s.done || e.Class == openai.Done
	if !s.content {
		s.begin()
		if s.write(s.held) != nil {
			return s.left()
		}
		s.held = nil
	}
	if s.write(e.Bytes) != nil {
		return s.left()
	}
	return nil
}

// begin notes the first content: the request stays with its head now.
func (s *relay) begin() {
	s.content = true
	s.first = s.proxy.o.Router.Begun(s.decision)
}

// failed is an event with an error. Before the first content another head is
// tried; after it the event is passed on and the connection is cut.
func (s *relay) failed(e *openai.Event) *failure {
	f := &failure{outcome: s.outcome(routing.ResultError, http.StatusBadGateway)}
	if !s.content {
		f.again, f.answer = true, &keptEvent{append([]byte(nil), e.Bytes...)}
		return f
	}
	s.proxy.metrics.cut.Inc()
	_ = s.write(e.Bytes)
	_ = s.rc.Flush()
	f.answer = ErrAborted
	return f
}

// end is the end of a stream: whole, or broken off.
func (s *relay) end(res *upstream.Response, err error) *failure {
	if last, ok := s.events.Flush(); ok && err == io.EOF {
		if f := s.event(&last); f != nil {
			return f
		}
	}
	if err == io.EOF && (res.Framed || s.done) {
		if !s.content {
			if s.begin(); s.write(s.held) != nil {
				return s.left()
			}
		}
		if s.rc.Flush() != nil {
			return s.left()
		}
		return nil
	}
	if err == io.EOF {
		err = &upstream.Error{Kind: upstream.EndOfStream, Sent: true, Received: true, Err: io.ErrUnexpectedEOF}
	}
	f := s.broken(err)
	if !s.content || f.outcome.Result != routing.ResultError {
		return f
	}
	s.proxy.metrics.cut.Inc()
	if e, ok := f.answer.(*openai.Error); ok && s.events.Between() { //nolint:errorlint // it comes as it is
		_ = s.write(e.AppendEvent(nil, s.caller.Endpoint, s.caller.RequestID))
		_ = s.rc.Flush()
	}
	f.again, f.answer = false, ErrAborted
	return f
}

// keptEvent is the error event of a head, to be passed on if all fail.
type keptEvent struct{ bytes []byte }

func (k *keptEvent) Error() string { return "the head's stream had an error" }

// comment is a line that clients of event streams pass over. It keeps their
// connection open, and those of load balancers between.
const comment = ": the model is still working\n\n"

// silent is called while the head says nothing. A stream gets a comment where it
// stands between events; one whose head has not begun to answer begins with it.
func (x *exchange) silent() error {
	e := x.caller.Endpoint
	if !x.fields.Stream || !e.Streams || e.Name == "audio.speech" { // that may be answered by sound
		return x.r.Context().Err()
	}
	if !x.begun {
		x.header(http.StatusOK, http.Header{"Content-Type": {"text/event-stream"}, "Cache-Control": {"no-cache"}}, -1)
	}
	if x.events != nil && !x.events.Between() {
		return nil
	}
	if x.write([]byte(comment)) != nil || x.rc.Flush() != nil {
		return errLeft
	}
	return nil
}
