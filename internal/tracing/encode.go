package tracing

import (
	"maps"
	"slices"
	"strings"
	"time"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/slim/otlp/common/v1"
	resource "go.opentelemetry.io/proto/slim/otlp/resource/v1"
	spans "go.opentelemetry.io/proto/slim/otlp/trace/v1"
)

// maxText bounds an attribute's text in bytes.
const maxText = 256

// encode makes the message for a batch.
func (t *Tracer) encode(list []*Trace) *collector.ExportTraceServiceRequest {
	scope := &spans.ScopeSpans{Scope: &common.InstrumentationScope{Name: "headway"}}
	for _, x := range list {
		for _, s := range x.spans {
			scope.Spans = append(scope.Spans, s.encode(x))
		}
	}
	service := &resource.Resource{}
	for _, name := range slices.Sorted(maps.Keys(t.o.Service)) {
		service.Attributes = append(service.Attributes, attribute{name, t.o.Service[name]}.encode())
	}
	return &collector.ExportTraceServiceRequest{ResourceSpans: []*spans.ResourceSpans{{Resource: service, ScopeSpans: []*spans.ScopeSpans{scope}}}}
}

func (s *Span) encode(x *Trace) *spans.Span {
	out := &spans.Span{
		TraceId: x.id[:], SpanId: s.id[:], TraceState: x.state, Flags: flagSampled, Name: s.name, Kind: spans.Span_SpanKind(s.kind),
		StartTimeUnixNano: nanos(s.begin), EndTimeUnixNano: nanos(s.end),
	}
	if s.parent != (SpanID{}) {
		out.ParentSpanId = s.parent[:]
	}
	for _, a := range s.attributes {
		out.Attributes = append(out.Attributes, a.encode())
	}
	if s.failed {
		out.Status = &spans.Status{Code: spans.Status_STATUS_CODE_ERROR, Message: s.reason}
	}
	return out
}

func nanos(at time.Time) uint64 { return uint64(max(at.UnixNano(), 0)) }

func (a attribute) encode() *common.KeyValue {
	v := &common.AnyValue{}
	switch value := a.value.(type) {
	case string:
		v.Value = &common.AnyValue_StringValue{StringValue: text(value)}
	case int64:
		v.Value = &common.AnyValue_IntValue{IntValue: value}
	case float64:
		v.Value = &common.AnyValue_DoubleValue{DoubleValue: value}
	case bool:
		v.Value = &common.AnyValue_BoolValue{BoolValue: value}
	}
	return &common.KeyValue{Key: a.name, Value: v}
}

// text is a text as a message may have it.
func text(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), maxText)], "")
}
