package httpapi_test

import (
	"context"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"

	"headway/internal/mockhead"
	"headway/internal/proxy"
	"headway/internal/tracing"
)

// collector is a server that takes traces as the OpenTelemetry collector does, by
// its own library.
type collector struct {
	*httptest.Server
	mu    sync.Mutex
	raw   []byte
	spans []ptrace.Span
}

func newCollector(t testing.TB) *collector {
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		request := ptraceotlp.NewExportRequest()
		if err == nil {
			err = request.UnmarshalProto(body)
		}
		if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("%s %s: %v", r.URL, r.Header, err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.raw = append(c.raw, body...)
		for _, resource := range request.Traces().ResourceSpans().All() {
			if v, _ := resource.Resource().Attributes().Get("service.name"); v.Str() != "headway" {
				t.Errorf("the service is %v", resource.Resource().Attributes().AsRaw())
			}
			for _, scope := range resource.ScopeSpans().All() {
				for _, s := range scope.Spans().All() {
					c.spans = append(c.spans, s)
				}
			}
		}
		answer, _ := ptraceotlp.NewExportResponse().MarshalProto()
		w.Header().Set("Content-Type", "application/x-protobuf")
		_, _ = w.Write(answer)
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) got() (spans []ptrace.Span, raw []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]ptrace.Span(nil), c.spans...), append([]byte(nil), c.raw...)
}

// traced is a plane whose requests are traced.
func traced(t testing.TB, share float64, change ...func(*proxy.Options)) (*plane, *collector) {
	c := newCollector(t)
	p := newPlane(t, append(change, func(o *proxy.Options) {
		tracer, err := tracing.New(tracing.Options{
			Endpoint: c.URL + "/v1/traces", Client: c.Client(), Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler), Share: share,
			Service: map[string]string{"service.name": "headway"},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = tracer.Run(ctx) })
		t.Cleanup(func() { stop(); running.Wait() })
		o.Tracer = tracer
	})...)
	return p, c
}

func attributesOf(s ptrace.Span) map[string]any { return s.Attributes().AsRaw() }

// A request that was tried at two heads has spans for itself, the decision and both
// attempts, in the caller's trace; the head's traceparent names its attempt.
func TestSpansOfARequest(t *testing.T) {
	p, c := traced(t, 0)
	bad, good := p.start("bad"), p.start("good")
	if _, err := bad.Inject(mockhead.Fault{Kind: mockhead.Status, Status: 503}); err != nil {
		t.Fatal(err)
	}
	const id, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	var a planeAnswer
	for range 50 { // until the bad head was the first
		a = p.answer(chatPath, streamBody, "Traceparent", "00-"+id+"-"+caller+"-01", "Tracestate", "vendor=1")
		if a.Header.Get("X-Headway-Attempts") == "2" {
			break
		}
	}
	p.settled()
	decision := a.Header.Get("X-Headway-Decision-Id")
	var request ptrace.Span
	of := map[string][]ptrace.Span{}
	p.eventually("the spans are there", func() bool {
		clear(of)
		spans, _ := c.got()
		parent := ""
		for _, s := range spans {
			if s.Name() == "decide" && attributesOf(s)["headway.decision_id"] == decision {
				parent = s.ParentSpanID().String()
			}
		}
		for _, s := range spans {
			if s.SpanID().String() == parent {
				request = s
			} else if s.ParentSpanID().String() == parent {
				of[s.Name()] = append(of[s.Name()], s)
			}
		}
		return parent != "" && len(of["attempt"]) == 2
	})
	if request.TraceID().String() != id || request.ParentSpanID().String() != caller || request.Kind() != ptrace.SpanKindServer ||
		request.Name() != "POST "+chatPath || request.TraceState().AsRaw() != "vendor=1" {
		t.Errorf("the request's span is %s, in %s below %s, with the state %s", request.Name(), request.TraceID(), request.ParentSpanID(), request.TraceState().AsRaw())
	}
	for name, want := range map[string]any{
		"http.response.status_code": int64(200), "http.route": chatPath, "headway.attempts": int64(2), "gen_ai.request.model": "m", "headway.stream": true,
	} {
		if got := attributesOf(request)[name]; got != want {
			t.Errorf("the request's %s is %v, want %v", name, got, want)
		}
	}
	failed, ok := of["attempt"][0], of["attempt"][1]
	if a := attributesOf(failed); a["headway.head"] != "bad" || a["http.response.status_code"] != int64(503) || a["error.type"] != "status_5xx" ||
		failed.Status().Code() != ptrace.StatusCodeError || failed.Kind() != ptrace.SpanKindClient {
		t.Errorf("the first attempt is %v, %s", a, failed.Status().Code())
	}
	if a := attributesOf(ok); a["headway.head"] != "good" || a["headway.result"] != "ok" || a["headway.time_to_first_token_ms"].(float64) <= 0 || ok.Status().Code() != ptrace.StatusCodeUnset {
		t.Errorf("the second attempt is %v, %s", a, ok.Status().Code())
	}
	for name, list := range of {
		for _, s := range list {
			if s.StartTimestamp() < request.StartTimestamp() || s.EndTimestamp() > request.EndTimestamp() || s.EndTimestamp() < s.StartTimestamp() {
				t.Errorf("%s lasts from %s to %s, the request from %s to %s", name, s.StartTimestamp(), s.EndTimestamp(), request.StartTimestamp(), request.EndTimestamp())
			}
		}
	}
	list := good.Received()
	if head := string(list[len(list)-1].Head); !strings.Contains(head, "00-"+id+"-"+ok.SpanID().String()+"-01") || !strings.Contains(head, "vendor=1") {
		t.Errorf("the head does not see the attempt %s:\n%s", ok.SpanID(), head)
	}
}

// The caller's flag decides where there is one, the share where there is none.
func TestSamplingFollowsTheParentAndTheShare(t *testing.T) {
	for _, c := range []struct {
		share float64
		flag  string
		want  bool
	}{{1, "", true}, {0, "", false}, {1, "00", false}, {0, "01", true}} {
		p, collector := traced(t, c.share)
		p.start("a")
		var header []string
		if c.flag != "" {
			header = []string{"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-" + c.flag}
		}
		p.answer(chatPath, chatBody, header...)
		p.answer(chatPath, chatBody, "Traceparent", "00-11111111111111111111111111111111-b7ad6b7169203331-01") // ends the wait
		p.eventually("a trace is there", func() bool {
			spans, _ := collector.got()
			return strings.Contains(traces(spans), "1111111111111111")
		})
		spans, _ := collector.got()
		seen := strings.Count(traces(spans), " ") > 1
		if seen != c.want {
			t.Errorf("share %v, flag %q: traced %t, want %t (%s)", c.share, c.flag, seen, c.want, traces(spans))
		}
	}
}

// traces are the ids of the traces, each after a space.
func traces(spans []ptrace.Span) string {
	ids := ""
	for _, s := range spans {
		id := s.TraceID()
		if text := hex.EncodeToString(id[:]); !strings.Contains(ids, text) {
			ids += " " + text
		}
	}
	return ids
}
