package client_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"headway/api"
	"headway/client"
)

// router is a fake of Headway's side of a lease. It asserts the contract and
// fails as the test says. It is an http.RoundTripper, so that time is the
// test's.
type router struct {
	t        *testing.T
	interval float64

	mu    sync.Mutex
	epoch uint64 // of the last registration
	known bool
	down  bool

	contested bool   // another endpoint holds the lease
	models    string // as registered, "m" if empty
	takeOver  bool   // the agent's registration says so
	busy      int    // answers 503 with Retry-After as often
	sequence  uint64
	log       []string // what was asked for and how it was answered
	times     []time.Time
	last      wireReport
	refusal   network // answers everything, if set
	draws     []float64
}

// chance draws one number after the other: 1 is as late as may be.
func (r *router) chance() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := r.draws[0]
	r.draws = append(r.draws[1:], first)
	return first
}

type wireReport struct {
	Epoch    uint64             `json:"epoch"`
	Status   string             `json:"status"`
	Load     map[string]float64 `json:"load"`
	Sequence uint64             `json:"sequence"`
}

func (r *router) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		r.note("down")
		return nil, errRefused
	}
	if r.refusal != nil {
		r.note("refused")
		return r.refusal(req)
	}
	if r.busy > 0 {
		r.busy--
		r.note("busy")
		return refuse(503, api.CodeOverloaded, "Retry-After", "3")(req)
	}
	switch req.Method + " " + req.URL.Path {
	case "POST /api/v1/heads":
		return r.register(req)(req)
	case "PUT /api/v1/heads/h1/status":
		return r.report(req)(req)
	case "DELETE /api/v1/heads/h1":
		r.note("deregister")
		r.known = false
		return respond(204, "")(req)
	}
	r.t.Errorf("unexpected call: %s %s", req.Method, req.URL)
	return respond(404, "")(req)
}

func (r *router) register(req *http.Request) network {
	var in struct {
		ID         string   `json:"id"`
		Endpoint   string   `json:"endpoint"`
		ModelTypes []string `json:"model_types"`
		Region     string   `json:"region"`
		Zone       string   `json:"zone"`
		Engine     string   `json:"engine"`
		Status     string   `json:"status"`
		Capacity   struct {
			MaxInFlight int `json:"max_in_flight"`
		} `json:"capacity"`
		TakeOver bool `json:"take_over"`
	}
	r.decode(req, &in)
	if in.ID != "h1" || in.Endpoint != "http://127.0.0.1:9" || strings.Join(in.ModelTypes, " ") != cmp.Or(r.models, "m") ||
		in.Region != "us-east" || in.Zone != "a" || in.Engine != "vllm" || in.Capacity.MaxInFlight != 256 ||
		(in.Status != "active" && in.Status != "draining") {
		r.t.Errorf("registration %+v", in)
	}
	status := 201
	if r.known {
		status = 200
	}
	if r.contested && !in.TakeOver {
		r.note("contested")
		return refuse(409, api.CodeHeadContested)
	}
	if in.TakeOver {
		r.note("take over")
	}
	r.known = true
	r.epoch++
	r.sequence = 0
	r.note("register")
	return respond(status, `{"head":{"id":"h1"},"lease":`+r.lease()+`}`)
}

func (r *router) report(req *http.Request) network {
	var in wireReport
	r.decode(req, &in)
	if in.Sequence <= r.sequence && in.Epoch == r.epoch {
		r.t.Errorf("sequence %d after %d", in.Sequence, r.sequence)
	}
	for _, name := range []string{
		"in_flight", "queued", "pending_prompt_tokens", "kv_cache_usage", "kv_capacity_tokens",
		"utilization", "tokens_per_second",
	} {
		if _, ok := in.Load[name]; !ok {
			r.t.Errorf("the report has no %s", name)
		}
	}
	switch {
	case !r.known:
		r.note("not found")
		return refuse(404, api.CodeHeadNotFound)
	case in.Epoch != r.epoch:
		r.note("stale")
		return refuse(409, api.CodeStaleEpoch)
	}
	r.sequence, r.last = in.Sequence, in
	r.note(in.Status)
	return respond(200, `{"lease":`+r.lease()+`}`)
}

func (r *router) decode(req *http.Request, v any) {
	text, err := io.ReadAll(req.Body)
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		err = d.Decode(v)
	}
	if err != nil || req.Header.Get("Content-Type") != "application/json" {
		r.t.Errorf("%s %s %s: %v", req.Method, req.URL, text, err)
	}
}

func (r *router) lease() string {
	return fmt.Sprintf(`{"epoch":%d,"ttl_seconds":%g,"heartbeat_interval_seconds":%g,"expires_at":"2026-01-02T03:04:05Z"}`,
		r.epoch, 3*r.interval, r.interval)
}

func (r *router) note(what string) {
	r.log = append(r.log, what)
	r.times = append(r.times, time.Now())
}

// set changes the fake.
func (r *router) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

// seen returns what happened since the last call, and when.
func (r *router) seen() (log string, times []time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	log, times = strings.Join(r.log, " "), r.times
	r.log, r.times = nil, nil
	return log, times
}

// withAgent runs a test in virtual time with an agent that reports to a fake.
func withAgent(t *testing.T, test func(t *testing.T, r *router, a *client.Agent)) {
	t.Helper()
	withAgentOf(t, &router{t: t, interval: 10, draws: []float64{1}}, test)
}

func withAgentOf(t *testing.T, r *router, test func(t *testing.T, r *router, a *client.Agent)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		in, queued, pending, capacity := int64(3), int64(0), int64(0), int64(1000)
		usage, busy, speed := 0.5, 0.25, 0.0
		c := over(t, r, client.WithRandom(r.chance))
		a, err := c.NewAgent(api.Registration{
			ID: "h1", Endpoint: "http://127.0.0.1:9", ModelTypes: []string{"m"}, Region: "us-east", Zone: "a",
			Engine: "vllm", Capacity: &api.Capacity{MaxInFlight: 256}, TakeOver: r.takeOver,
		}, func() api.Load {
			return api.Load{
				InFlight: &in, Queued: &queued, PendingPromptTokens: &pending, KVCacheUsage: &usage, KVCapacityTokens: &capacity,
				Utilization: &busy, TokensPerSecond: &speed,
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { a.Run(ctx) })
		synctest.Wait()
		test(t, r, a)
		stop()
		running.Wait()
	})
}

func expect(t *testing.T, r *router, want string) {
	t.Helper()
	synctest.Wait()
	if got, _ := r.seen(); got != want {
		t.Errorf("the router saw %q, want %q", got, want)
	}
}

func TestAgentReportsAtOnceAndThenAsOftenAsTheServerSays(t *testing.T) {
	withAgent(t, func(t *testing.T, r *router, a *client.Agent) {
		expect(t, r, "register active")
		select {
		case <-a.Ready():
		default:
			t.Error("not ready after the first accepted report")
		}
		var last wireReport
		r.set(func() { last = r.last })
		if last.Load["in_flight"] != 3 || last.Load["kv_cache_usage"] != 0.5 || last.Load["utilization"] != 0.25 {
			t.Errorf("reported load %v", last.Load)
		}
		time.Sleep(20 * time.Second)
		expect(t, r, "active active")
		r.set(func() { r.interval = 2 })
		time.Sleep(10 * time.Second) // the answer to this one brings the new interval
		expect(t, r, "active")
		time.Sleep(4 * time.Second)
		expect(t, r, "active active")
		if s := a.State(); s.Epoch != 1 || s.Registrations != 1 || s.Reports != 6 || s.Failures != 0 || s.Interval != 2*time.Second {
			t.Errorf("state %+v", s)
		}
	})
}

func TestAgentRegistersAgainWhenItIsUnknown(t *testing.T) {
	withAgent(t, func(t *testing.T, r *router, a *client.Agent) {
		expect(t, r, "register active")
		r.set(func() { r.known = false })
		time.Sleep(10 * time.Second)
		expect(t, r, "not found register active")
		if s := a.State(); s.Epoch != 2 {
			t.Errorf("epoch %d, want 2", s.Epoch)
		}
	})
}

func TestAgentRegistersAgainWithWhatItServesNow(t *testing.T) {
	withAgent(t, func(t *testing.T, r *router, a *client.Agent) {
		expect(t, r, "register active")
		r.set(func() { r.models = "m adapter" })
		models := []string{"m", "adapter"}
		a.Serve(models, &api.Capacity{MaxInFlight: 256})
		models[0] = "changed later"
		expect(t, r, "register active")
		time.Sleep(10 * time.Second)
		expect(t, r, "active")
		r.set(func() { r.down = true })
		time.Sleep(10 * time.Second)
		r.set(func() { r.log, r.down = nil, false })
		a.Serve([]string{"m", "adapter"}, &api.Capacity{MaxInFlight: 256})
		time.Sleep(5 * time.Second)
		if got, _ := r.seen(); !strings.Contains(got, "register active") { // reports may stand beside it
			t.Errorf("the router saw %q", got)
		}
		if s := a.State(); s.Epoch != 3 || s.Registrations != 3 {
			t.Errorf("state %+v", s)
		}
	})
}

func TestAgentRegistersAgainWhenItsEpochIsStale(t *testing.T) {
	withAgent(t, func(t *testing.T, r *router, a *client.Agent) {
		expect(t, r, "register active")
		r.set(func() { r.epoch = 7 })
		time.Sleep(10 * time.Second)
		expect(t, r, "stale register active")
		if s := a.State(); s.Epoch != 8 {
			t.Errorf("epoch %d, want 8", s.Epoch)
		}
	})
}

// Two heads under one id take the lease from each other, but not as fast as
// they can.
func TestAgentDoesNotFightForItsID(t *testing.T) {
	withAgent(t, func(t *testing.T, r *router, _ *client.Agent) {
		expect(t, r, "register active")
		for range 600 {
			r.set(func() { r.epoch++ })
			time.Sleep(100 * time.Millisecond)
		}
		_, times := r.seen()
		if len(times) > 60 {
			t.Errorf("%d calls in a minute", len(times))
		}
	})
}

func TestAgentWaitsWhileAnotherEndpointHoldsItsID(t *testing.T) {
	withAgentOf(t, &router{t: t, interval: 10, draws: []float64{1}, known: true, epoch: 3, contested: true}, func(t *testing.T, r *router, a *client.Agent) {
		time.Sleep(time.Minute)
		if log, times := r.seen(); len(times) < 8 || len(times) > 20 || strings.Trim(log, "contesd ") != "" {
			t.Errorf("in a minute the router saw %q", log)
		}
		if refused, ok := errors.AsType[*client.Error](a.State().LastError); !ok || refused.Problem.Code != api.CodeHeadContested {
			t.Errorf("last error %v", a.State().LastError)
		}
		r.set(func() { r.contested = false }) // its lease has ended
		time.Sleep(6 * time.Second)
		expect(t, r, "register active")
	})
}

func TestAgentTakesOverOnce(t *testing.T) {
	withAgentOf(t, &router{t: t, interval: 10, draws: []float64{1}, known: true, epoch: 3, contested: true, takeOver: true}, func(t *testing.T, r *router, _ *client.Agent) {
		expect(t, r, "take over register active")
		r.set(func() { r.epoch = 9 }) // another took it back
		time.Sleep(10 * time.Second)
		expect(t, r, "stale contested")
	})
}

func TestAgentBacksOffWhileTheServerIsDown(t *testing.T) {
	withAgent(t, func(t *testing.T, r *router, a *client.Agent) {
		expect(t, r, "register active")
		r.set(func() { r.down, r.draws = true, []float64{0.1, 0.9, 0.5} })
		time.Sleep(2 * time.Minute)
		log, times := r.seen()
		if n := strings.Count(log, "down"); n != len(times) || n < 24 || n > 120 {
			t.Errorf("%d calls in two minutes of outage: %s", n, log)
		}
		equal := true
		for i := 1; i < len(times); i++ {
			gap := times[i].Sub(times[i-1])
			if gap < 200*time.Millisecond || gap > 5*time.Second {
				t.Errorf("%v between two calls, want 0.2 to 5 s", gap)
			}
			equal = equal && (i < 2 || gap == times[i-1].Sub(times[i-2]))
		}
		if equal {
			t.Error("the waits have no jitter")
		}
		if s := a.State(); s.LastError == nil || s.Epoch != 1 {
			t.Errorf("state in an outage: %+v", s)
		}
		r.set(func() { r.down, r.draws = false, []float64{1} })
		time.Sleep(5 * time.Second)
		expect(t, r, "active")
		time.Sleep(10 * time.Second)
		expect(t, r, "active")
	})
}

func TestAgentWaitsAsLongAsABusyServerAsks(t *testing.T) {
	withAgent(t, func(t *testing.T, r *router, _ *client.Agent) {
		expect(t, r, "register active")
		r.set(func() { r.busy = 3 })
		time.Sleep(time.Minute)
		log, times := r.seen()
		if !strings.HasPrefix(log, "busy busy busy active") {
			t.Fatalf("the router saw %q", log)
		}
		for i := range 3 {
			if gap := times[i+1].Sub(times[i]); gap < 3*time.Second {
				t.Errorf("%v after an answer that asked for 3 s", gap)
			}
		}
	})
}

func TestAgentDrains(t *testing.T) {
	withAgent(t, func(t *testing.T, r *router, a *client.Agent) {
		expect(t, r, "register active")
		a.Drain()
		expect(t, r, "draining")
		time.Sleep(10 * time.Second)
		expect(t, r, "draining")
		if err := a.Deregister(t.Context()); err != nil {
			t.Error(err)
		}
		expect(t, r, "deregister")
	})
}

func TestAgentSpreadsItsReportsAndIsNeverLate(t *testing.T) {
	withAgent(t, func(t *testing.T, r *router, _ *client.Agent) {
		r.set(func() { r.draws = []float64{0, 0.5, 1, 0.25} })
		time.Sleep(5 * time.Minute)
		_, times := r.seen()
		gaps := map[time.Duration]bool{}
		for i := 3; i < len(times); i++ {
			gap := times[i].Sub(times[i-1])
			gaps[gap] = true
			if gap < 9*time.Second || gap > 10*time.Second {
				t.Errorf("%v between reports, want 9 to 10 s", gap)
			}
		}
		if len(gaps) < 3 {
			t.Errorf("reports have gaps of %v only", gaps)
		}
	})
}

func TestAgentReportsAChangeOfStatusAtOnceAndOnce(t *testing.T) {
	withAgent(t, func(t *testing.T, r *router, a *client.Agent) {
		expect(t, r, "register active")
		for _, status := range []string{client.StatusDegraded, client.StatusOffline, client.StatusActive} {
			if err := a.SetStatus(status); err != nil {
				t.Fatal(err)
			}
			expect(t, r, status)
		}
		if err := a.SetStatus("sleepy"); err == nil || a.State().Status != client.StatusActive {
			t.Errorf("an unknown status: %v; state %+v", err, a.State())
		}
		expect(t, r, "")
	})
}

// A status that flaps during an outage makes no calls of its own, and is right
// when the outage is over.
func TestAgentDoesNotHurryWhileTheRouterIsDown(t *testing.T) {
	withAgent(t, func(t *testing.T, r *router, a *client.Agent) {
		expect(t, r, "register active")
		r.set(func() { r.down = true })
		time.Sleep(time.Minute)
		_, _ = r.seen()
		for range 100 {
			_ = a.SetStatus(client.StatusDegraded)
			a.Drain()
			time.Sleep(10 * time.Millisecond)
		}
		if _, times := r.seen(); len(times) > 2 {
			t.Errorf("%d calls in a second of outage", len(times))
		}
		r.set(func() { r.down = false })
		time.Sleep(6 * time.Second)
		if log, _ := r.seen(); !strings.HasSuffix(log, "draining") {
			t.Errorf("the router saw %q", log)
		}
	})
}

func TestAgentAsksRarelyWhenItIsRefused(t *testing.T) {
	withAgent(t, func(t *testing.T, r *router, a *client.Agent) {
		expect(t, r, "register active")
		r.set(func() { r.refusal = refuse(401, api.CodeUnauthenticated) })
		time.Sleep(5 * time.Minute)
		if _, times := r.seen(); len(times) > 25 {
			t.Errorf("%d calls in five minutes without a key", len(times))
		}
		if s := a.State(); !errors.Is(s.LastError, client.ErrUnauthorized) || s.Epoch != 1 {
			t.Errorf("state %+v", s)
		}
		r.set(func() { r.refusal = nil })
		time.Sleep(31 * time.Second)
		if s := a.State(); s.LastError != nil {
			t.Errorf("state with a key again: %+v", s)
		}
	})
}

func TestAgentClosesWithItsLease(t *testing.T) {
	withAgent(t, func(t *testing.T, r *router, a *client.Agent) {
		expect(t, r, "register active")
		if err := a.Close(t.Context()); err != nil {
			t.Error(err)
		}
		expect(t, r, "deregister")
		if err := a.Close(t.Context()); err != nil {
			t.Error(err)
		}
		a.Run(t.Context()) // returns at once
		time.Sleep(time.Minute)
		expect(t, r, "deregister")
		if s := a.State(); s.Epoch != 0 {
			t.Errorf("epoch %d after Close", s.Epoch)
		}
	})
}

func TestAgentBoundsTheInterval(t *testing.T) {
	for _, interval := range []float64{0, -5, 1e-9, math.MaxFloat64} {
		withAgent(t, func(t *testing.T, r *router, a *client.Agent) {
			r.set(func() { r.interval = interval })
			time.Sleep(20 * time.Second)
			_, _ = r.seen()
			if s := a.State(); s.Interval < 100*time.Millisecond || s.Interval > 10*time.Minute {
				t.Errorf("asked for %v: interval %v", interval, s.Interval)
			}
		})
	}
}

func TestNewAgentRefusesWhatCannotWork(t *testing.T) {
	c := over(t, respond(500, ""))
	load := func() api.Load { return api.Load{} }
	for name, r := range map[string]api.Registration{
		"no id": {Endpoint: "http://h"}, "no endpoint": {ID: "a"}, "no such status": {ID: "a", Endpoint: "http://h", Status: "sleepy"},
	} {
		if _, err := c.NewAgent(r, load); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := c.NewAgent(api.Registration{ID: "a", Endpoint: "http://h"}, nil); err == nil {
		t.Error("no load: accepted")
	}
}
