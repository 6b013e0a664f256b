package httpapi_test

import (
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"headway/internal/fleet"
)

// fallible is a head that answers well or with 500, and counts its requests.
type fallible struct {
	bad  atomic.Bool
	hits atomic.Int64
}

func (s *fallible) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	s.hits.Add(1)
	w.Header()["Content-Type"] = []string{"application/json"}
	if s.bad.Load() {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, `{"error":{"message":"out of memory","code":500}}`)
		return
	}
	_, _ = io.WriteString(w, `{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}]}`)
}

// The requests of the data plane eject a head that fails them, for a time that
// grows, with one of them as its trial after that.
func TestTheDataPlaneEjectsHeadsThatFail(t *testing.T) {
	onFakeTime(t, func(t *testing.T, p *plane) {
		var bad, good fallible
		bad.bad.Store(true)
		p.script("1", bad.ServeHTTP)
		p.script("2", good.ServeHTTP)
		// got is how many of n requests the head at fault gets.
		got := func(n int) int64 {
			was := bad.hits.Load()
			for range n {
				if a := p.answer(chatPath, chatBody); a.StatusCode != http.StatusOK {
					t.Fatalf("%d %s", a.StatusCode, a.body)
				}
			}
			p.settled()
			return bad.hits.Load() - was
		}
		for bad.hits.Load() < 5 {
			got(1)
		}
		if n := got(50); n != 0 {
			t.Errorf("after five errors in a row it gets %d requests", n)
		}
		<-time.After(11 * time.Second)
		if n := got(50); n != 1 {
			t.Errorf("after 10 s it gets %d requests, want its trial", n)
		}
		<-time.After(11 * time.Second)
		if n := got(50); n != 0 {
			t.Errorf("10 s after the trial failed it gets %d requests", n)
		}
		bad.bad.Store(false)
		<-time.After(10 * time.Second)
		if n := got(50); n < 2 {
			t.Errorf("after a trial that ended well it gets %d of 50 requests", n)
		}
	})
}

func TestTheDataPlaneLeavesHalfOfTheHeads(t *testing.T) {
	onFakeTime(t, func(t *testing.T, p *plane) {
		var heads [4]fallible
		for i := range heads {
			heads[i].bad.Store(true)
			p.script(string(rune('1'+i)), heads[i].ServeHTTP)
		}
		for range 100 {
			if a := p.answer(chatPath, chatBody); a.StatusCode != http.StatusInternalServerError {
				t.Fatalf("%d %s", a.StatusCode, a.body)
			}
		}
		p.settled()
		all := p.fleet.Snapshot().Pools["m"].All
		failing := 0
		for _, h := range all.Heads {
			if v, err := p.fleet.Head(h.ID); err == nil && v.Head.Health == fleet.HealthFailing {
				failing++
			}
		}
		if all.Routable() != 2 || failing != 2 {
			t.Errorf("%d of 4 heads take requests, %d of them are known to fail", all.Routable(), failing)
		}
	})
}
