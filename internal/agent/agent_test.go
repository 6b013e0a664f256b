package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"headway/api"
	"headway/internal/engines"
	"headway/internal/fleet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// engine is a vLLM that answers as the test says. It is an http.RoundTripper,
// so that time is the test's.
type engine struct {
	mu      sync.Mutex
	health  int // status; 0: nothing listens
	models  string
	running int // -1: it has no metrics
	started int
	hangs   bool
}

func (e *engine) set(f func(*engine)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(e)
}

func (e *engine) RoundTrip(r *http.Request) (*http.Response, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.hangs {
		e.mu.Unlock()
		<-r.Context().Done()
		e.mu.Lock()
		return nil, r.Context().Err()
	}
	if e.health == 0 {
		return nil, errors.New("connection refused")
	}
	status, body := http.StatusOK, ""
	switch r.URL.Path {
	case "/health":
		status = e.health
	case "/v1/models":
		var list []string
		for m := range strings.FieldsSeq(e.models) {
			list = append(list, fmt.Sprintf(`{"id":%q}`, m))
		}
		body = `{"data":[` + strings.Join(list, ",") + `]}`
		if e.models == "broken" {
			status = http.StatusInternalServerError
		}
	case "/metrics":
		body = fmt.Sprintf("process_start_time_seconds %d\nvllm:num_requests_running %d\nvllm:num_requests_waiting 0\n", e.started, e.running)
		if e.running < 0 {
			status = http.StatusNotFound
		}
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

// lease writes down what is asked of it.
type lease struct {
	mu     sync.Mutex
	said   []string
	load   func() fleet.Load
	ended  chan struct{}
	failed error // of Close
}

func (l *lease) say(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, fmt.Sprintf(format, args...))
}

func (l *lease) Run(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-l.ended:
	}
}
func (l *lease) SetStatus(status string) error { l.say("%s", status); return nil }

func (l *lease) Serve(models []string, limit *api.Capacity) { l.say("serve %s", models) }

func (l *lease) Close(context.Context) error {
	l.say("close")
	close(l.ended)
	return l.failed
}

// heard returns what was asked for since the last call.
func (l *lease) heard() string {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	said := strings.Join(l.said, ", ")
	l.said = nil
	return said
}

// running is an agent at work.
type running struct {
	*lease
	stop context.CancelFunc // as the one who runs it wants
	kill context.CancelFunc // at once
	done chan error
	log  *strings.Builder
}

// start runs an agent of e.
func start(t *testing.T, e *engine, more func(*Options)) *running {
	t.Helper()
	r := &running{lease: &lease{ended: make(chan struct{})}, done: make(chan error, 1), log: new(strings.Builder)}
	o := Options{
		Engine: engines.Find("vllm"), URL: "http://gpu-1:8000", Transport: e, Interval: time.Second, DrainLimit: time.Minute,
		Registration: api.Registration{ID: "h1", Endpoint: "http://gpu-1:8000", Region: "eu"},
		Log:          slog.New(slog.NewTextHandler(r.log, nil)),
		Open: func(reg api.Registration, load func() fleet.Load) (Lease, error) {
			r.say("register %s %s %s %s", reg.ID, reg.Engine, reg.ModelTypes, reg.Status)
			r.load = load
			return r.lease, nil
		},
	}
	if more != nil {
		more(&o)
	}
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	leave, stop := context.WithCancel(t.Context())
	ctx, kill := context.WithCancel(t.Context())
	r.stop, r.kill = stop, kill
	go func() { r.done <- a.Run(ctx, leave.Done()) }()
	return r
}

// expect reports what is asked for within the next d, if it is not that.
func (r *running) expect(t *testing.T, d time.Duration, want string) {
	t.Helper()
	time.Sleep(d) // of the bubble
	if got := r.heard(); got != want {
		t.Errorf("heard %q, want %q", got, want)
	}
}

// end stops the agent and waits for it.
func (r *running) end(t *testing.T) error {
	t.Helper()
	r.stop()
	return <-r.done
}

func vllm() *engine { return &engine{health: 200, models: "llama", started: 1} }

// An engine is registered once it can work and serves something, not before.
func TestAnEngineIsRegisteredOnceItCanWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &engine{}
		r := start(t, e, nil)
		r.expect(t, 5*time.Second, "")
		e.set(func(e *engine) { e.health = http.StatusServiceUnavailable })
		r.expect(t, 5*time.Second, "")
		e.set(func(e *engine) { e.health = http.StatusOK })
		r.expect(t, 5*time.Second, "")
		e.set(func(e *engine) { e.models = "broken" })
		r.expect(t, 5*time.Second, "")
		e.set(func(e *engine) { e.models = "llama"; e.running = 2 })
		r.expect(t, time.Second, "register h1 vllm [llama] active")
		if l := Report(r.load()); l.InFlight == nil || *l.InFlight != 2 || l.KVCacheUsage != nil || l.TokensPerSecond != nil {
			t.Errorf("load %+v", l)
		}
		e.set(func(e *engine) { e.running = 0 })
		if err := r.end(t); err != nil {
			t.Error(err)
		}
	})
}

// Three failures in a row take the head out, and one success brings it back, as
// a new registration, since the engine may have forgotten its prefixes.
func TestThreeFailuresInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := vllm()
		r := start(t, e, nil)
		r.expect(t, 500*time.Millisecond, "register h1 vllm [llama] active")
		e.set(func(e *engine) { e.health = 503 })
		r.expect(t, 2*time.Second, "")
		if l := r.load(); l.InFlight != fleet.Unknown {
			t.Errorf("the load of an engine that fails is known: %+v", l)
		}
		e.set(func(e *engine) { e.health = 200 })
		r.expect(t, time.Second, "")
		e.set(func(e *engine) { e.health = 0 })
		r.expect(t, 2*time.Second, "")
		r.expect(t, time.Second, "offline")
		r.expect(t, 10*time.Second, "")
		e.set(func(e *engine) { e.health = 200 })
		r.expect(t, time.Second, "serve [llama], active")
		if got := strings.Count(r.log.String(), "level=WARN"); got != 2 {
			t.Errorf("%d warnings, want one for each kind of failure:\n%s", got, r.log)
		}
		_ = r.end(t)
	})
}

// An engine that accepts and does not answer is one that fails.
func TestAnEngineThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := vllm()
		r := start(t, e, nil)
		r.expect(t, 500*time.Millisecond, "register h1 vllm [llama] active")
		e.set(func(e *engine) { e.hangs = true })
		r.expect(t, 20*time.Second, "offline")
		e.set(func(e *engine) { e.hangs = false })
		_ = r.end(t)
	})
}

// An engine that can work and does not say what it serves is degraded, and
// stays registered as it was.
func TestAnEngineThatIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := vllm()
		r := start(t, e, nil)
		r.expect(t, 500*time.Millisecond, "register h1 vllm [llama] active")
		e.set(func(e *engine) { e.models = "broken" })
		r.expect(t, 2*time.Second, "")
		r.expect(t, time.Second, "degraded")
		e.set(func(e *engine) { e.models = "llama" })
		r.expect(t, time.Second, "active")
		_ = r.end(t)
	})
}

// An engine that comes back and does not say what it serves yet is registered again once,
// when it is known how it is: each registration has the fleet forget what it knows of it.
func TestAnEngineComesBackSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := vllm()
		r := start(t, e, nil)
		r.expect(t, 500*time.Millisecond, "register h1 vllm [llama] active")
		e.set(func(e *engine) { e.health = 0 })
		r.expect(t, 3*time.Second, "offline")
		e.set(func(e *engine) { e.health, e.models = 200, "broken" })
		r.expect(t, 2*time.Second, "")
		r.expect(t, time.Second, "serve [llama], degraded")
		e.set(func(e *engine) { e.models = "llama" })
		r.expect(t, time.Second, "active")
		_ = r.end(t)
	})
}

// A change of models or adapters, and another process of the engine, are a new
// registration; no metrics are no change.
func TestWhatIsServedChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := vllm()
		r := start(t, e, nil)
		r.expect(t, 500*time.Millisecond, "register h1 vllm [llama] active")
		e.set(func(e *engine) { e.models = "llama sql-lora" })
		r.expect(t, 5*time.Second, "serve [llama sql-lora]")
		e.set(func(e *engine) { e.models = "sql-lora llama" })
		r.expect(t, 5*time.Second, "")
		e.set(func(e *engine) { e.running = -1 })
		r.expect(t, 5*time.Second, "")
		e.set(func(e *engine) { e.running, e.started = 0, 2 })
		r.expect(t, 5*time.Second, "serve [llama sql-lora]")
		e.set(func(e *engine) { e.models = "" })
		r.expect(t, 5*time.Second, "offline")
		_ = r.end(t)
	})
}

// Models that the head cannot have are named once in the log, and again when there are others.
func TestModelsThatAreLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := vllm()
		e.models = "llama a\\b"
		r := start(t, e, nil)
		r.expect(t, 5*time.Second, "register h1 vllm [llama] active")
		e.set(func(e *engine) { e.health = 503 })
		r.expect(t, 2*time.Second, "")
		e.set(func(e *engine) { e.health = 200 })
		r.expect(t, 5*time.Second, "")
		e.set(func(e *engine) { e.models = "llama" })
		r.expect(t, 5*time.Second, "")
		e.set(func(e *engine) { e.models = "c\\d" })
		r.expect(t, 5*time.Second, "offline")
		for _, name := range []string{"a\\b", "c\\d"} {
			if got := strings.Count(r.log.String(), "count=1 models="+strconv.Quote(strconv.Quote(name))); got != 1 {
				t.Errorf("%s is named %d times, want once:\n%s", name, got, r.log)
			}
		}
		_ = r.end(t)
	})
}

// Configured model types replace what the engine lists.
func TestConfiguredModelTypes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := vllm()
		r := start(t, e, func(o *Options) { o.Registration.ModelTypes = []string{"mine"} })
		r.expect(t, 500*time.Millisecond, "register h1 vllm [mine] active")
		e.set(func(e *engine) { e.models = "broken" })
		r.expect(t, 5*time.Second, "")
		_ = r.end(t)
	})
}

// At the end the head drains: it is deregistered once the engine has no request,
// is gone, or the limit is reached.
func TestTheEndDrains(t *testing.T) {
	for _, c := range []struct {
		what   string
		after  func(*engine) // 10 s after the end began
		within time.Duration
		warned bool
	}{
		{"requests end", func(e *engine) { e.running = 0 }, 13 * time.Second, false},
		{"the engine goes", func(e *engine) { e.health = 0 }, 14 * time.Second, false},
		{"requests stay", func(*engine) {}, time.Minute, true},
		{"the count is not known", func(e *engine) { e.running = -1 }, time.Minute, true},
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := vllm()
				e.running = 3
				r := start(t, e, nil)
				r.expect(t, 500*time.Millisecond, "register h1 vllm [llama] active")
				began := time.Now()
				r.stop()
				r.expect(t, 10*time.Second, "draining")
				if l := r.load(); l.InFlight != 3 {
					t.Errorf("load while draining: %+v", l)
				}
				e.set(c.after)
				if err := <-r.done; err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took > c.within {
					t.Errorf("took %v, want at most %v", took, c.within)
				}
				if got := r.heard(); got != "close" {
					t.Errorf("heard %q", got)
				}
				if warned := strings.Contains(r.log.String(), "limit of draining is reached"); warned != c.warned {
					t.Errorf("warned: %t", warned)
				}
				if log := strings.TrimSpace(r.log.String()); !strings.Contains(log[strings.LastIndex(log, "\n")+1:], "deregistered and stopped") {
					t.Errorf("the log does not end with that the head is deregistered:\n%s", log)
				}
			})
		})
	}
}

// An agent that is ended at once leaves the head registered, also while it
// drains.
func TestAnAgentThatIsEndedAtOnce(t *testing.T) {
	for _, draining := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			e := vllm()
			e.running = 1
			r := start(t, e, nil)
			r.expect(t, 500*time.Millisecond, "register h1 vllm [llama] active")
			if draining {
				r.stop()
				r.expect(t, time.Second, "draining")
			}
			began := time.Now()
			r.kill()
			if err := <-r.done; err != nil || time.Since(began) > 0 {
				t.Errorf("after %v: %v", time.Since(began), err)
			}
			if got := r.heard(); got != "" {
				t.Errorf("heard %q", got)
			}
			r.stop()
		})
	}
}

// A head that cannot be deregistered is an error.
func TestTheEndFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, vllm(), nil)
		r.expect(t, 500*time.Millisecond, "register h1 vllm [llama] active")
		r.failed = errors.New("no service")
		if err := r.end(t); !errors.Is(err, r.failed) {
			t.Errorf("error %v", err)
		}
		if strings.Contains(r.log.String(), "deregistered") {
			t.Errorf("the log says that a head is deregistered which is not:\n%s", r.log.String())
		}
	})
}

// New names what is missing.
func TestNewNamesWhatIsMissing(t *testing.T) {
	full := Options{
		Engine: engines.Find("vllm"), URL: "http://a:1", Registration: api.Registration{ID: "h", Endpoint: "http://a:1", Region: "r"},
		Open: func(api.Registration, func() fleet.Load) (Lease, error) { return nil, errors.ErrUnsupported },
	}
	for name, leave := range map[string]func(*Options){
		"Engine": func(o *Options) { o.Engine = nil }, "URL": func(o *Options) { o.URL = "" }, "Open": func(o *Options) { o.Open = nil },
		"Registration.ID":       func(o *Options) { o.Registration.ID = "" },
		"Registration.Endpoint": func(o *Options) { o.Registration.Endpoint = "" },
		"Registration.Region":   func(o *Options) { o.Registration.Region = "" },
	} {
		o := full
		leave(&o)
		if _, err := New(o); err == nil || !slices.Contains(strings.Fields(err.Error()), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
	if _, err := New(full); err != nil {
		t.Error(err)
	}
}
