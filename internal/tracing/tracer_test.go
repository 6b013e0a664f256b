package tracing

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
)

// receiver is a collector that is called without a network, so that time may be fake.
type receiver struct {
	mu     sync.Mutex
	calls  []int // spans of each call
	header []http.Header
	answer func(n int) (*http.Response, error)
}

func (r *receiver) RoundTrip(q *http.Request) (*http.Response, error) {
	if err := q.Context().Err(); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return nil, err
	}
	request := ptraceotlp.NewExportRequest()
	if err := request.UnmarshalProto(body); err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.calls = append(r.calls, request.Traces().SpanCount())
	r.header = append(r.header, q.Header)
	n := len(r.calls)
	r.mu.Unlock()
	return r.answer(n)
}

func reply(status int, body []byte, header ...string) (*http.Response, error) {
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(bytes.NewReader(body))}, nil
}

// world is a tracer before a receiver; its log is kept.
type world struct {
	*testing.T
	*Tracer
	receiver *receiver
	metrics  *prometheus.Registry
	log      bytes.Buffer
}

func newWorld(t *testing.T, answer func(n int) (*http.Response, error), change ...func(*Options)) *world {
	t.Helper()
	w := &world{T: t, receiver: &receiver{answer: answer}, metrics: prometheus.NewRegistry()}
	o := Options{
		Endpoint: "http://user:secret@collector.test/v1/traces?token=secret", Client: &http.Client{Transport: w.receiver}, Metrics: w.metrics,
		Log: slog.New(slog.NewTextHandler(&w.log, nil)), Share: 1,
	}
	for _, c := range change {
		c(&o)
	}
	var err error
	if w.Tracer, err = New(o); err != nil {
		t.Fatal(err)
	}
	return w
}

// trace queues a trace of two spans.
func (w *world) trace() {
	c := Read(http.Header{})
	x := w.Start(&c, "POST", "/", time.Now())
	x.Span("attempt", Client, time.Now()).Set("text", "a\xffb")
	x.End(time.Now())
}

func (w *world) spans(result string) (n int) {
	w.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		w.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "headway_trace_spans_total" && labelOf(m) == result {
				n = int(m.GetCounter().GetValue())
			}
		}
	}
	return n
}

func labelOf(m *dto.Metric) string { return m.GetLabel()[0].GetValue() }

func ok(int) (*http.Response, error) { return reply(200, nil) }

func TestRequiredOptionsAreNamed(t *testing.T) {
	if _, err := New(Options{}); err == nil || !strings.Contains(err.Error(), "Endpoint") {
		t.Error(err)
	}
}

// A tracer that is switched off traces nothing and costs no memory.
func TestNoTracerCostsNothing(t *testing.T) {
	var off *Tracer
	c := Read(http.Header{"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}})
	now := time.Now()
	if n := testing.AllocsPerRun(100, func() {
		x := off.Start(&c, "POST", "/", now)
		s := x.Span("attempt", Client, now)
		s.Set("n", "v")
		s.Fail("reset")
		s.End(now)
		x.Request().Set("n", "v")
		x.End(now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Traces go out together within a second, with the header that is in force.
func TestABatchIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		token := "one"
		w := newWorld(t, ok, func(o *Options) {
			o.Header = func() (http.Header, error) { return http.Header{"Authorization": {token}}, nil }
		})
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = w.Tracer.Run(ctx) })
		w.trace()
		w.trace()
		time.Sleep(batchTime)
		synctest.Wait()
		token = "two"
		w.trace()
		stop()
		running.Wait()
		if got := w.receiver.calls; len(got) != 2 || got[0] != 4 || got[1] != 2 {
			t.Errorf("calls of %v spans", got)
		}
		for i, want := range []string{"one", "two"} {
			if got := w.receiver.header[i].Get("Authorization"); got != want {
				t.Errorf("call %d has %q", i, got)
			}
		}
		if w.spans("sent") != 6 || w.spans("failed") != 0 || w.spans("dropped") != 0 {
			t.Errorf("%d sent, %d failed, %d dropped", w.spans("sent"), w.spans("failed"), w.spans("dropped"))
		}
	})
}

// What does not fit is dropped at once and counted: requests never wait for a collector.
func TestTheQueueIsBounded(t *testing.T) {
	w := newWorld(t, ok)
	for range maxWaiting + 10 {
		w.trace()
	}
	if len(w.waiting) != maxWaiting || w.spans("dropped") != 20 {
		t.Errorf("%d wait, %d spans were dropped", len(w.waiting), w.spans("dropped"))
	}
}

func TestATraceHasABound(t *testing.T) {
	w := newWorld(t, ok)
	c := Read(http.Header{})
	x := w.Start(&c, "POST", "/", time.Now())
	for range 10 * maxSpans {
		x.Span("attempt", Client, time.Now()).End(time.Now())
	}
	if len(x.spans) != maxSpans {
		t.Errorf("%d spans", len(x.spans))
	}
}

// A busy collector is asked again, as late as it says; one that refuses is not.
func TestCallsAreRepeated(t *testing.T) {
	gone := errors.New("refused")
	for _, c := range []struct {
		name                string
		answer              func(n int) (*http.Response, error)
		calls, sent, failed int
		took                time.Duration
	}{
		{"busy once", func(n int) (*http.Response, error) {
			if n == 1 {
				return reply(429, nil, "Retry-After", "7")
			}
			return reply(200, nil)
		}, 2, 2, 0, 7 * time.Second},
		{"away", func(int) (*http.Response, error) { return nil, gone }, maxTries, 0, 2, (1 + 2 + 4) * time.Second},
		{"asks for too much patience", func(int) (*http.Response, error) { return reply(503, nil, "Retry-After", "86400") }, maxTries, 0, 2, 3 * longestWait},
		{"refuses", func(int) (*http.Response, error) { return reply(400, nil) }, 1, 0, 2, 0},
		{"answers something else", func(int) (*http.Response, error) { return reply(200, []byte("<html>")) }, 1, 2, 0, 0},
		{"refuses a part", func(int) (*http.Response, error) {
			r := ptraceotlp.NewExportResponse()
			r.PartialSuccess().SetRejectedSpans(1)
			b, err := r.MarshalProto()
			if err != nil {
				return nil, err
			}
			return reply(200, b)
		}, 1, 1, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, c.answer)
				w.trace()
				begin := time.Now()
				w.send(t.Context(), w.rest(nil))
				if took := time.Since(begin); took != c.took {
					t.Errorf("took %v, want %v", took, c.took)
				}
				if len(w.receiver.calls) != c.calls || w.spans("sent") != c.sent || w.spans("failed") != c.failed {
					t.Errorf("%d calls, %d sent, %d failed; want %d, %d, %d", len(w.receiver.calls), w.spans("sent"), w.spans("failed"), c.calls, c.sent, c.failed)
				}
				if log := w.log.String(); strings.Contains(log, "secret") || strings.Contains(log, "traces cannot be sent") != (c.sent == 0) {
					t.Errorf("the log is %q", log)
				}
			})
		})
	}
}

// The stop waits for a collector that hangs no longer than its time.
func TestTheStopHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(int) (*http.Response, error) { return nil, errors.New("refused") })
		for range 3 * maxBatch {
			w.trace()
		}
		ctx, stop := context.WithCancel(t.Context())
		stop()
		begin := time.Now()
		if err := w.Tracer.Run(ctx); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > stopTime {
			t.Errorf("the stop took %v", took)
		}
		if n := w.spans("failed") + w.spans("dropped"); n != 6*maxBatch {
			t.Errorf("%d spans are accounted for, of %d", n, 6*maxBatch)
		}
	})
}

// A header that cannot be read is no reason to send without it.
func TestWithoutItsHeaderNothingIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ok, func(o *Options) {
			o.Header = func() (http.Header, error) { return nil, errors.New("the file is gone") }
		})
		w.trace()
		w.send(t.Context(), w.rest(nil))
		if len(w.receiver.calls) != 0 || w.spans("failed") != 2 {
			t.Errorf("%d calls, %d failed", len(w.receiver.calls), w.spans("failed"))
		}
	})
}

// A share is a share of the traces, by their ids.
func TestTheShareIsKept(t *testing.T) {
	w := newWorld(t, ok, func(o *Options) { o.Share = 0.25 })
	n := 0
	for range 10_000 {
		c := Read(http.Header{})
		if w.Start(&c, "POST", "/", time.Time{}) != nil {
			n++
		}
	}
	if n < 2200 || n > 2800 {
		t.Errorf("%d of 10,000 traces are sampled", n)
	}
}

func BenchmarkOff(b *testing.B) {
	var off *Tracer
	c := Read(http.Header{})
	now := time.Now()
	for b.Loop() {
		x := off.Start(&c, "POST", "/", now)
		x.Span("attempt", Client, now).End(now)
		x.End(now)
	}
}
