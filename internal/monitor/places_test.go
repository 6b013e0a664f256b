package monitor_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"headway/internal/monitor"
)

// Half of the processors work on queries at most. As many as may wait wait as
// long as they have time, and a query that comes then is asked to come again; what
// needs no evaluation is answered all the while.
func TestQueriesTakeHalfOfTheProcessors(t *testing.T) {
	for _, processors := range []int{1, 2, 8} {
		synctest.Test(t, func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(processors))
			places := max(1, processors/2)
			var under atomic.Int64
			end := make(chan struct{})
			m, err := monitor.New(monitor.Options{
				Gatherer: prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
					under.Add(1)
					<-end
					return nil, nil
				}),
				Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler), Rules: []byte(rules),
				Instance: "here", URL: &url.URL{Path: "/"}, Interval: 15 * time.Second, Retention: 24 * time.Hour, MaxSeries: 20_000,
			})
			if err != nil {
				t.Fatal(err)
			}
			h := m.Handler("/prometheus")
			ask := func(path string) *httptest.ResponseRecorder {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/prometheus/api/v1/"+path, nil))
				return w
			}
			var mu sync.Mutex
			answered := map[int]int{}
			const tooMany = 30
			var wait sync.WaitGroup
			for range places + monitor.MaxWaiting + tooMany {
				wait.Go(func() {
					w := ask("metadata") // which gathers
					mu.Lock()
					defer mu.Unlock()
					answered[w.Code]++
					if w.Code != 200 && (w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), `"status":"error","errorType":"unavailable"`)) {
						t.Errorf("%v %s", w.Header(), w.Body)
					}
				})
			}
			check := func(when string, refused int) {
				t.Helper()
				synctest.Wait()
				if n := under.Load(); n != int64(places) {
					t.Errorf("%s %d queries are under way on %d processors; want %d", when, n, processors, places)
				}
				mu.Lock()
				defer mu.Unlock()
				if answered[503] != refused || answered[200] != 0 {
					t.Errorf("%s the answers are %v; want %d of 503", when, answered, refused)
				}
			}
			check("at once", tooMany)
			for _, path := range []string{"rules", "alerts", "status/buildinfo"} {
				if w := ask(path); w.Code != 200 {
					t.Errorf("%s meanwhile: %d", path, w.Code)
				}
			}
			time.Sleep(monitor.QueryTimeout) // of the bubble
			check("in the end", tooMany+monitor.MaxWaiting)
			close(end)
			wait.Wait()
			if answered[200] != places {
				t.Errorf("the answers are %v; want %d of 200", answered, places)
			}
		})
	}
}
