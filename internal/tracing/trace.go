// Package tracing sends spans of requests to an OpenTelemetry collector, by OTLP
// over HTTP. Spans are made from times that were noted anyway, once the request is
// over, and a request that is not sampled costs nothing.
package tracing

import "time"

// Kind is a span's kind, with the numbers of OTLP.
type Kind int32

// The kinds of span.
const (
	Internal Kind = 1
	Server   Kind = 2
	Client   Kind = 3
)

// Span is one span of a trace.
type Span struct {
	id, parent SpanID
	name       string
	kind       Kind
	begin, end time.Time
	attributes []attribute
	failed     bool
	reason     string
}

// attribute has a string, an int64, a float64 or a bool.
type attribute struct {
	name  string
	value any
}

// maxSpans bounds the spans of a trace.
const maxSpans = 32

// Trace is a sampled request, for one goroutine. All methods of a nil Trace do
// nothing.
type Trace struct {
	tracer *Tracer
	id     TraceID
	state  string
	spans  []*Span // the first is the request's
}

// Start begins the trace of a request, if it is sampled: as the caller's trace is, or
// by the share of those requests that come without one.
func (t *Tracer) Start(c *Context, method, route string, begin time.Time) *Trace {
	switch {
	case t == nil, c.parent != SpanID{} && c.flags&flagSampled == 0, c.parent == SpanID{} && !c.id.within(t.o.Share):
		return nil
	}
	x := &Trace{tracer: t, id: c.id, state: c.stateText()}
	x.spans = append(make([]*Span, 0, 4), &Span{id: newSpanID(), parent: c.parent, name: method + " " + route, kind: Server, begin: begin})
	return x
}

// Request is the span of the request itself.
func (x *Trace) Request() *Span {
	if x == nil {
		return nil
	}
	return x.spans[0]
}

// Span begins a span of a part of the request. It is nil, and then all its methods
// do nothing, where a trace has as many as it may.
func (x *Trace) Span(name string, kind Kind, begin time.Time) *Span {
	if x == nil || len(x.spans) == maxSpans {
		return nil
	}
	s := &Span{id: newSpanID(), parent: x.spans[0].id, name: name, kind: kind, begin: begin}
	x.spans = append(x.spans, s)
	return s
}

// End ends the trace and queues it.
func (x *Trace) End(at time.Time) {
	if x == nil {
		return
	}
	for _, s := range x.spans {
		s.End(at)
	}
	x.tracer.queue(x)
}

// Set adds an attribute: a string, an int64, a float64 or a bool.
func (s *Span) Set(name string, value any) {
	if s != nil {
		s.attributes = append(s.attributes, attribute{name, value})
	}
}

// Fail marks the span as failed for a reason of a closed list.
func (s *Span) Fail(reason string) {
	if s != nil {
		s.failed, s.reason = true, reason
		s.attributes = append(s.attributes, attribute{"error.type", reason})
	}
}

// End ends the span. A second call does nothing.
func (s *Span) End(at time.Time) {
	if s != nil && s.end.IsZero() {
		s.end = at
	}
}
