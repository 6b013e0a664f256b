package tracing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	collector "go.opentelemetry.io/proto/slim/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"headway/internal/outbound"
)

// Options are what a Tracer is made of.
type Options struct {
	Endpoint string                      // required: where traces are posted, with the path
	Client   *http.Client                // required; it counts the calls and limits their time
	Metrics  prometheus.Registerer       // required
	Log      *slog.Logger                // required
	Header   func() (http.Header, error) // of each call, read for each so that credentials can change; nil: none
	Service  map[string]string           // attributes of the service
	Share    float64                     // of the requests without a trace of the caller's; 0: only those with one
}

// Bounds of what waits, and of how it is sent.
const (
	maxWaiting  = 2048             // traces
	maxBatch    = 256              // traces in one call
	batchTime   = time.Second      // that the first of a batch waits for others
	maxTries    = 4                // of one batch
	firstPause  = time.Second      // between tries; it doubles
	longestWait = 30 * time.Second // that a collector may ask for
	stopTime    = 5 * time.Second  // for what waits at the stop
	maxAnswer   = 64 << 10
)

// Tracer sends traces. All methods are safe for concurrent use; a nil Tracer traces
// nothing.
type Tracer struct {
	o       Options
	waiting chan *Trace
	sent    prometheus.Counter // spans
	dropped prometheus.Counter
	failed  prometheus.Counter
	faulty  bool // the last batch failed; of Run
}

// New makes a tracer.
func New(o Options) (*Tracer, error) {
	if o.Endpoint == "" || o.Client == nil || o.Metrics == nil || o.Log == nil {
		return nil, errors.New("tracing: Endpoint, Client, Metrics and Log are required")
	}
	if o.Header == nil {
		o.Header = func() (http.Header, error) { return nil, nil }
	}
	spans := promauto.With(o.Metrics).NewCounterVec(prometheus.CounterOpts{
		Name: "headway_trace_spans_total",
		Help: "Spans of sampled requests by what became of them: sent; dropped, since too many waited; failed, since the collector did not take them.",
	}, []string{"result"})
	t := &Tracer{
		o: o, waiting: make(chan *Trace, maxWaiting),
		sent: spans.WithLabelValues("sent"), dropped: spans.WithLabelValues("dropped"), failed: spans.WithLabelValues("failed"),
	}
	promauto.With(o.Metrics).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "headway_traces_waiting", Help: "Traces that wait to be sent, at most 2,048.",
	}, func() float64 { return float64(len(t.waiting)) })
	return t, nil
}

// queue takes a trace that has ended. It never waits.
func (t *Tracer) queue(x *Trace) {
	select {
	case t.waiting <- x:
	default:
		t.dropped.Add(float64(len(x.spans)))
	}
}

// Run sends traces until ctx ends, and then those that wait, within five seconds.
func (t *Tracer) Run(ctx context.Context) error {
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		if outbound.Pause(sending, stopTime) {
			cancel()
		}
	})()
	for {
		select {
		case x := <-t.waiting:
			t.send(sending, t.batch(ctx, x))
		case <-ctx.Done():
			for len(t.waiting) > 0 {
				t.send(sending, t.rest(nil))
			}
			return nil
		}
	}
}

// batch is the first trace and those that come within a time.
func (t *Tracer) batch(ctx context.Context, first *Trace) []*Trace {
	list := []*Trace{first}
	timer := time.NewTimer(batchTime)
	defer timer.Stop()
	for len(list) < maxBatch {
		select {
		case x := <-t.waiting:
			list = append(list, x)
		case <-timer.C:
			return list
		case <-ctx.Done():
			return t.rest(list)
		}
	}
	return list
}

// rest adds what waits now, up to a batch.
func (t *Tracer) rest(list []*Trace) []*Trace {
	for len(list) < maxBatch {
		select {
		case x := <-t.waiting:
			list = append(list, x)
		default:
			return list
		}
	}
	return list
}

// send posts a batch, several times if the collector is busy or away.
func (t *Tracer) send(ctx context.Context, list []*Trace) {
	spans := 0
	for _, x := range list {
		spans += len(x.spans)
	}
	body, err := proto.Marshal(t.encode(list))
	wait := firstPause
	for try := 1; err == nil; try++ {
		var refused int64
		var again bool
		var asked time.Duration
		if refused, again, asked, err = t.post(ctx, body); err == nil {
			t.failed.Add(float64(refused))
			t.sent.Add(float64(int64(spans) - refused))
			if t.faulty {
				t.faulty = false
				t.o.Log.Info("the collector takes traces again")
			}
			return
		}
		if !again || try == maxTries || !outbound.Pause(ctx, max(wait, asked)) {
			break
		}
		wait, err = 2*wait, nil
	}
	t.failed.Add(float64(spans))
	if !t.faulty {
		t.faulty = true
		t.o.Log.Warn("traces cannot be sent; requests go on without", "error", err)
	}
}

// post makes one call. It returns how many spans the collector refused, and after an
// error whether and when another call may go better. The error has no URL, which may
// hold a credential.
func (t *Tracer) post(ctx context.Context, body []byte) (refused int64, again bool, wait time.Duration, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.o.Endpoint, bytes.NewReader(body))
	if err != nil {
		return 0, false, 0, errors.New("the endpoint is not a URL")
	}
	header, err := t.o.Header()
	if err != nil {
		return 0, true, 0, err
	}
	for name, values := range header {
		r.Header[name] = values
	}
	r.Header.Set("Content-Type", "application/x-protobuf")
	r.Header.Set("User-Agent", "headway")
	res, err := t.o.Client.Do(r)
	if err != nil {
		if named, is := errors.AsType[*url.Error](err); is {
			err = named.Err
		}
		return 0, true, 0, err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	switch {
	case err != nil:
		return 0, true, 0, err
	case res.StatusCode/100 == 2:
		var partly collector.ExportTraceServiceResponse
		if proto.Unmarshal(answer, &partly) == nil { // nothing, or another form, is no refusal
			refused = max(partly.GetPartialSuccess().GetRejectedSpans(), 0)
		}
		return refused, false, 0, nil
	}
	seconds, _ := strconv.Atoi(res.Header.Get("Retry-After"))
	wait = min(time.Duration(min(max(seconds, 0), 1<<20))*time.Second, longestWait)
	switch res.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		again = true
	}
	return 0, again, wait, fmt.Errorf("the collector answered %d %s", res.StatusCode, http.StatusText(res.StatusCode))
}
