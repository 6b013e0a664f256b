package live_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"headway/api"
	"headway/internal/event"
	"headway/internal/live"
	"headway/internal/routing"
)

// BenchmarkPipelinedDecision is one of the decisions that are asked for over one
// WebSocket without waiting for each answer; the client's part is in it.
func BenchmarkPipelinedDecision(b *testing.B) {
	w := newWorld(b)
	w.register("gpu-1", "us-east")
	conn, _, _, err := ws.Dial(b.Context(), "ws"+strings.TrimPrefix(w.server.URL, "http")+"/ws")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	const window = 64
	var batch bytes.Buffer
	for range window {
		if err := ws.WriteFrame(&batch, ws.MaskFrame(ws.NewTextFrame([]byte(`{"id":1,"type":"decide","data":{"model_type":"llama"}}`)))); err != nil {
			b.Fatal(err)
		}
	}
	answers := bufio.NewReaderSize(conn, 64<<10)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if n%window != 0 {
			continue
		}
		if _, err := conn.Write(batch.Bytes()); err != nil {
			b.Fatal(err)
		}
		for range window {
			h, err := ws.ReadHeader(answers)
			if err == nil {
				_, err = answers.Discard(int(h.Length))
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

// discard is an answer that nobody reads.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header              { return d.header }
func (d *discard) Write(b []byte) (int, error)      { return len(b), nil }
func (d *discard) WriteHeader(int)                  {}
func (d *discard) Flush()                           {}
func (d *discard) SetWriteDeadline(time.Time) error { return nil }
func (d *discard) SetReadDeadline(time.Time) error  { return nil }

// BenchmarkDecideBesideSubscribers is the usual time of a decision, the median,
// at 10,000 a second, while nobody listens and while 10,000 do, with 100 events a
// second in either case.
func BenchmarkDecideBesideSubscribers(b *testing.B) {
	for _, n := range []int{0, 10_000} {
		b.Run(fmt.Sprintf("subscribers=%d", n), func(b *testing.B) {
			w := newWorld(b, func(o *live.Options) { o.MaxStreams, o.Timing = 20_000, live.Timing{} })
			w.register("gpu-1", "us-east")
			ctx, stop := context.WithCancel(b.Context())
			var running sync.WaitGroup
			for range n {
				r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/events", http.NoBody)
				running.Go(func() { _ = w.hub.ServeEvents(&discard{http.Header{}}, r, root, api.Subscription{}) })
			}
			w.until("all listen", func() bool { return w.value("sse_connections") == float64(n) })
			running.Go(func() {
				tick := time.NewTicker(10 * time.Millisecond)
				defer tick.Stop()
				for ctx.Err() == nil {
					<-tick.C
					w.events.Publish(event.Event{Type: event.HeadChanged, Head: "gpu-1", Region: "us-east", Time: time.Now()})
				}
			})
			request := &routing.Request{ModelType: "llama"}
			var took []time.Duration
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for b.Loop() {
				for range 2000 {
					<-tick.C
					begin := time.Now()
					for range 10 {
						if _, err := w.router.Decide(request); err != nil {
							b.Fatal(err)
						}
					}
					took = append(took, time.Since(begin)/10)
				}
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2]), "ns/decision")
			stop()
			running.Wait()
		})
	}
}
