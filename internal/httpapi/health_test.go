package httpapi_test

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"headway/api"
	"headway/internal/fleet"
	"headway/internal/mockhead"
	"headway/internal/proxy"
)

// A head that fails half of its requests, and never five in a row, is out of rotation
// by their share, with the requests of /v1 alone; each is answered by the other.
func TestAHeadThatFailsHalfOfItsRequestsIsEjected(t *testing.T) {
	p := newPlane(t, func(o *proxy.Options) { o.Limits.RetryShare = 1 })
	if _, err := p.start("bad").Inject(mockhead.Fault{Kind: mockhead.Status, Status: 500, Share: 0.5}); err != nil {
		t.Fatal(err)
	}
	p.start("good")
	health := func() api.Head {
		return into[api.Head](t, p.must(http.StatusOK, http.MethodGet, "/api/v1/heads/bad", ""))
	}
	asked := 0
	for ; health().Health.State != "ejected"; asked++ {
		if a := p.answer(chatPath, chatBody); a.err != nil || a.StatusCode != http.StatusOK {
			t.Fatalf("%d %s %v", a.StatusCode, a.body, a.err)
		}
		p.settled()
		if asked == 1000 {
			t.Fatalf("after %d requests the head is %+v", asked, health().Health)
		}
	}
	if h := health(); !strings.HasPrefix(h.Health.Reason, "requests of late that ended with an error: ") {
		t.Errorf("it is out since %q", h.Health.Reason)
	}
}

// sleeper is a head in memory that answers each request after a time.
func (p *plane) sleeper(id, model string, d time.Duration, begun *atomic.Int64) {
	p.Helper()
	p.script(id, func(w http.ResponseWriter, r *http.Request) {
		begun.Add(1)
		wait(r, d)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, gateAnswer)
	})
	p.serves(fleet.Spec{ID: "head-" + id, Endpoint: "http://192.0.2.1:" + id, ModelTypes: []string{model}})
}

// A head that joins a loaded pool is not sent every request until it is as loaded as
// the others: it counts as loaded as they are, less and less for 30 s.
func TestAHeadThatJoinsStartsSlowlyForTheDataPlane(t *testing.T) {
	fakeTime(t, func(t *testing.T) {
		p := newMemoryPlane(t, versions(t)[0])
		var old, joined atomic.Int64
		p.sleeper("1", "m", time.Second, &old)
		p.sleeper("2", "m", time.Second, &old)
		var all sync.WaitGroup
		ask := func() {
			all.Go(func() {
				if a := p.answer(chatPath, chatBody); a.StatusCode != http.StatusOK {
					t.Errorf("%d %s", a.StatusCode, a.body)
				}
			})
			time.Sleep(20 * time.Millisecond)
		}
		share := func(requests int) float64 {
			before := joined.Load()
			for range requests {
				ask()
			}
			return float64(joined.Load()-before) / float64(requests)
		}
		time.Sleep(time.Minute) // they have started
		share(250)
		p.sleeper("3", "m", time.Second, &joined)
		first := share(10)
		share(2000)
		later := share(250)
		all.Wait()
		if first > 0.6 || later < 0.2 || later > 0.45 {
			t.Errorf("it gets %.2f of the first requests, later %.2f; want not all, and a third", first, later)
		}
	})
}

// Requests at a head that never answers hold up none of another model: each takes as
// long as before, to the nanosecond of a clock that only waits move.
func TestPitfallP21AHungHeadSlowsNoOtherModel(t *testing.T) {
	onFakeTime(t, func(t *testing.T, p *plane) {
		var begun atomic.Int64
		p.sleeper("1", "other", 10*time.Millisecond, &begun)
		p.script("2", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		other := strings.Replace(chatBody, `"m"`, `"other"`, 1)
		p99 := func() time.Duration {
			var took []time.Duration
			for range 100 {
				begin := time.Now()
				if a := p.answer(chatPath, other); a.StatusCode != http.StatusOK {
					t.Fatalf("%d %s", a.StatusCode, a.body)
				}
				took = append(took, time.Since(begin))
			}
			slices.Sort(took)
			return took[98]
		}
		before := p99()
		var hung sync.WaitGroup
		begin := time.Now()
		for range 50 {
			hung.Go(func() {
				a := p.answer(chatPath, chatBody)
				if code := `"code":"head_first_byte_timeout"`; a.StatusCode != http.StatusGatewayTimeout || !strings.Contains(string(a.body), code) {
					t.Errorf("a request at the hung head: %d %s", a.StatusCode, a.body)
				}
				if took := time.Since(begin); took < 10*time.Minute || took > 11*time.Minute {
					t.Errorf("it took %s", took)
				}
			})
		}
		synctest.Wait()
		if during := p99(); during != before {
			t.Errorf("beside 50 requests that hang p99 is %s, and %s before", during, before)
		}
		hung.Wait()
	})
}
