package httpapi_test

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"headway/api"
	"headway/internal/fleet"
	"headway/internal/routing"
	"headway/internal/strategy"
)

// Clients that register, change and remove one head at once get an answer that
// is true of their own change, and no epoch is given twice.
func TestOneHeadRegisteredAndRemovedAtOnce(t *testing.T) {
	w := newWorld(t)
	const clients, each = 8, 30
	var (
		all    sync.WaitGroup
		mu     sync.Mutex
		epochs = map[uint64]int{}
	)
	for n := range clients {
		all.Go(func() {
			for range each {
				method, target, body := http.MethodPost, "/api/v1/heads", headBody("one")
				switch n % 4 {
				case 2:
					method, target, body = http.MethodDelete, "/api/v1/heads/one", ""
				case 3:
					method, target, body = http.MethodPatch, "/api/v1/heads/one", `{"weight":2}`
				}
				a := w.ask(newRequest(w, method, target, body))
				switch {
				case a.status == http.StatusNotFound && method != http.MethodPost, a.status == http.StatusNoContent:
				case a.status != http.StatusOK && a.status != http.StatusCreated:
					t.Errorf("%s: %d %s", method, a.status, a.body)
				case method == http.MethodPost:
					done := into[api.RegistrationAnswer](t, a)
					if done.Head.ID != "one" || done.Head.Epoch != done.Lease.Epoch || done.Lease.Epoch == 0 {
						t.Errorf("answered with %s", a.body)
					}
					mu.Lock()
					epochs[done.Lease.Epoch]++
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	given := 0
	for epoch, n := range epochs {
		given += n
		if n > 1 {
			t.Errorf("epoch %d was given %d times", epoch, n)
		}
	}
	if want := fmt.Sprintf("head_registrations_total %d\n", given); !strings.Contains(w.scrape(), want) {
		t.Errorf("%d registrations were answered, and others are counted", given)
	}
}

// A null takes what the operator has laid over the head's own away.
func TestNullGivesTheHeadsOwnBack(t *testing.T) {
	w := newWorld(t)
	w.must(http.StatusCreated, "POST", "/api/v1/heads", strings.Replace(headBody("a"), "{", `{"weight":5,"labels":{"own":"1"},`, 1))
	patch := func(body string) api.Head {
		t.Helper()
		return into[api.Head](t, w.must(http.StatusOK, "PATCH", "/api/v1/heads/a", body))
	}
	if h := patch(`{"weight":2,"labels":{"laid":"over"}}`); h.Weight != 2 || len(h.Labels) != 2 {
		t.Errorf("%+v", h)
	}
	if h := patch(`{"weight":null}`); h.Weight != 5 || len(h.Labels) != 2 {
		t.Errorf("without the operator's weight: %+v", h)
	}
	if h := patch(`{"labels":null}`); len(h.Labels) != 1 || h.Labels["own"] != "1" {
		t.Errorf("without the operator's labels: %+v", h)
	}
	w.must(http.StatusUnprocessableEntity, "POST", "/api/v1/heads", strings.Replace(headBody("b"), "{", `{"capacity":{"max_in_flight":1.5},`, 1))
}

// One head is shown with how fast it is, once that is known, and without the speed of an
// epoch that is over.
func TestAHeadHasTheSpeedThatWasLearned(t *testing.T) {
	w := newWorld(t)
	const model = "llama-3.1-8b"
	takes := map[string]time.Duration{"quick": time.Millisecond, "slow": 2 * time.Millisecond} // for a token
	for id := range takes {
		w.register(id)
	}
	speed := func(id string) map[string]float64 {
		t.Helper()
		return into[api.Head](t, w.must(http.StatusOK, "GET", "/api/v1/heads/"+id, "")).LearnedSpeed
	}
	if s := speed("quick"); s != nil {
		t.Errorf("before any request the speed is %v", s)
	}
	for i := range 100 {
		tokens := int64(500 + 100*(i%7))
		for id, other := range map[string]string{"quick": "slow", "slow": "quick"} {
			d, err := w.router.Decide(&strategy.Request{ModelType: model, InputTokens: tokens, Exclude: []string{other}})
			if err != nil {
				t.Fatal(err)
			}
			w.skew.Add(tokens * int64(takes[id]))
			w.router.Begun(d)
			w.router.End(d, routing.Outcome{Result: routing.ResultOK, TTFT: float64(fleet.Unknown), CachedTokens: fleet.Unknown})
		}
	}
	if quick, slow := speed("quick"), speed("slow"); len(quick) != 1 || math.Abs(quick[model]/slow[model]-2) > 0.2 {
		t.Errorf("a head that is twice as fast as the other has the speed %v, the other %v", quick, slow)
	}
	for _, h := range into[api.List[api.Head]](t, w.must(http.StatusOK, "GET", "/api/v1/heads", "")).Data {
		if h.LearnedSpeed != nil {
			t.Errorf("the list has the speed of %s", h.ID)
		}
	}
	w.register("quick")
	if s := speed("quick"); s != nil {
		t.Errorf("in its new epoch the speed is %v", s)
	}
}
