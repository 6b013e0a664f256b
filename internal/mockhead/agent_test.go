package mockhead_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"

	"headway/api"
	"headway/internal/mockhead"
)

// router is a fake of Headway's side of a lease. It asserts the contract and
// fails as the test says. It is an http.RoundTripper, so that time is the
// test's.
type router struct {
	t        *testing.T
	interval float64

	mu       sync.Mutex
	epoch    uint64 // of the last registration
	known    bool
	down     bool
	busy     int // answers 503 with Retry-After as often
	sequence uint64
	log      []string // what was asked for and how it was answered
	times    []time.Time
	last     wireReport
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
		return nil, fmt.Errorf("connection refused")
	}
	if r.busy > 0 {
		r.busy--
		r.note("busy")
		return respond(503, `{"code":"overloaded","detail":"later"}`, "Retry-After", "3"), nil
	}
	switch req.Method + " " + req.URL.Path {
	case "POST /api/v1/heads":
		return r.register(req), nil
	case "PUT /api/v1/heads/h1/status":
		return r.report(req), nil
	case "DELETE /api/v1/heads/h1":
		r.note("deregister")
		r.known = false
		return respond(204, ""), nil
	}
	r.t.Errorf("unexpected call: %s %s", req.Method, req.URL)
	return respond(404, ""), nil
}

func (r *router) register(req *http.Request) *http.Response {
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
	}
	r.decode(req, &in)
	if in.ID != "h1" || in.Endpoint != "http://127.0.0.1:9" || !slices.Equal(in.ModelTypes, []string{"m"}) ||
		in.Region != "us-east" || in.Zone != "a" || in.Engine != "vllm" || in.Capacity.MaxInFlight != 256 ||
		(in.Status != "active" && in.Status != "draining") {
		r.t.Errorf("registration %+v", in)
	}
	status := 201
	if r.known {
		status = 200
	}
	r.known = true
	r.epoch++
	r.sequence = 0
	r.note("register")
	return respond(status, `{"head":{"id":"h1"},"lease":`+r.lease()+`}`)
}

func (r *router) report(req *http.Request) *http.Response {
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
		return respond(404, `{"code":"head_not_found","detail":"register again"}`)
	case in.Epoch != r.epoch:
		r.note("stale")
		return respond(409, `{"code":"stale_epoch","detail":"register again"}`)
	}
	r.sequence, r.last = in.Sequence, in
	r.note(in.Status)
	return respond(200, `{"lease":`+r.lease()+`}`)
}

func (r *router) decode(req *http.Request, v any) {
	text, err := io.ReadAll(req.Body)
	if err == nil {
		err = json.Unmarshal(text, v, json.RejectUnknownMembers(true))
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

func respond(status int, body string, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(bytes.NewReader([]byte(body)))}
}

// withAgent runs a test in virtual time with an agent that reports to a fake.
func withAgent(t *testing.T, test func(t *testing.T, r *router, a *mockhead.Agent)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &router{t: t, interval: 10}
		a, err := mockhead.NewAgent(mockhead.AgentOptions{
			Server: "http://router.example/",
			Registration: api.Registration{
				ID: "h1", Endpoint: "http://127.0.0.1:9", ModelTypes: []string{"m"}, Region: "us-east", Zone: "a",
				Engine: "vllm", Capacity: &api.Capacity{MaxInFlight: 256},
			},
			Load: func() mockhead.Load {
				return mockhead.Load{EngineLoad: mockhead.EngineLoad{Running: 3, KVUsage: 0.5}, Utilization: 0.25}
			},
			Client: &http.Client{Transport: r},
			Random: rand.New(rand.NewPCG(1, 2)),
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
	withAgent(t, func(t *testing.T, r *router, a *mockhead.Agent) {
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
	withAgent(t, func(t *testing.T, r *router, a *mockhead.Agent) {
		expect(t, r, "register active")
		r.set(func() { r.known = false })
		time.Sleep(10 * time.Second)
		expect(t, r, "not found register active")
		if s := a.State(); s.Epoch != 2 {
			t.Errorf("epoch %d, want 2", s.Epoch)
		}
	})
}

func TestAgentRegistersAgainWhenItsEpochIsStale(t *testing.T) {
	withAgent(t, func(t *testing.T, r *router, a *mockhead.Agent) {
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
	withAgent(t, func(t *testing.T, r *router, _ *mockhead.Agent) {
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

func TestAgentBacksOffWhileTheServerIsDown(t *testing.T) {
	withAgent(t, func(t *testing.T, r *router, a *mockhead.Agent) {
		expect(t, r, "register active")
		r.set(func() { r.down = true })
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
		if s := a.State(); s.LastError == "" || s.Epoch != 1 {
			t.Errorf("state in an outage: %+v", s)
		}
		r.set(func() { r.down = false })
		time.Sleep(5 * time.Second)
		expect(t, r, "active")
		time.Sleep(10 * time.Second)
		expect(t, r, "active")
	})
}

func TestAgentWaitsAsLongAsABusyServerAsks(t *testing.T) {
	withAgent(t, func(t *testing.T, r *router, _ *mockhead.Agent) {
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
	withAgent(t, func(t *testing.T, r *router, a *mockhead.Agent) {
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

func TestNewAgentRefusesWhatCannotWork(t *testing.T) {
	load := func() mockhead.Load { return mockhead.Load{} }
	for name, o := range map[string]mockhead.AgentOptions{
		"no server":    {Registration: api.Registration{ID: "a"}, Load: load},
		"other scheme": {Server: "ftp://host", Registration: api.Registration{ID: "a"}, Load: load},
		"no id":        {Server: "http://host", Load: load},
		"no load":      {Server: "http://host", Registration: api.Registration{ID: "a"}},
	} {
		if _, err := mockhead.NewAgent(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
