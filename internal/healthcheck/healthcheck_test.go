package healthcheck

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/fleet"
)

// world is a checker on fake time, with heads whose checks a test answers.
type world struct {
	*testing.T
	*Checker

	mu     sync.Mutex
	answer func(*http.Request) (int, error)
	asked  []string // URLs
	told   []string // details, "" for well
	gone   bool
}

func newWorld(t *testing.T, change func(*Options)) *world {
	t.Helper()
	w := &world{T: t, answer: func(*http.Request) (int, error) { return http.StatusOK, nil }}
	o := Options{Checked: w.checked, Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler), Transport: w}
	if change != nil {
		change(&o)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	w.Checker = c
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = c.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
	return w
}

func (w *world) checked(_, _, detail string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, detail)
	return !w.gone
}

// RoundTrip implements http.RoundTripper.
func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.asked = append(w.asked, r.Method+" "+r.URL.String())
	answer := w.answer
	w.mu.Unlock()
	status, err := answer(r)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("")), Request: r}, nil
}

// set has checks answered with a status from now on; 0: with no connection.
func (w *world) set(status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = func(*http.Request) (int, error) {
		if status == 0 {
			return 0, errors.New("connection refused")
		}
		return status, nil
	}
}

func (w *world) after(d time.Duration) (asked, told []string) {
	time.Sleep(d)
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	asked, told = w.asked, w.told
	w.asked, w.told = nil, nil
	return asked, told
}

func head(engine string) *fleet.Head {
	return &fleet.Head{Spec: fleet.Spec{ID: "a", Endpoint: "http://10.0.0.1:8000", Engine: engine}}
}

func TestAHeadIsCheckedFromAFailureUntilItIsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		if asked, _ := w.after(time.Minute); len(asked) > 0 {
			t.Fatalf("without a failure %v was asked", asked)
		}
		w.set(503)
		for range 10 { // one failure or many: one check at a time
			w.Failed(head(""))
		}
		asked, told := w.after(time.Millisecond)
		if len(asked) != 1 || asked[0] != "GET http://10.0.0.1:8000/health" || len(told) != 0 {
			t.Fatalf("asked %v, told %q", asked, told)
		}
		asked, told = w.after(20 * time.Second)
		if len(asked) < 15 || len(asked) > 28 || len(told) != len(asked)-1 || !strings.Contains(told[0], "503") {
			t.Fatalf("in 20 s asked %d times, told %q", len(asked), told)
		}
		w.set(200)
		if asked, told = w.after(time.Minute); len(asked) != 2 || !slices.Equal(told, []string{""}) {
			t.Errorf("once well, asked %v, told %q", asked, told)
		}
		w.Failed(head(""))
		if asked, _ = w.after(time.Minute); len(asked) != 2 {
			t.Errorf("after another failure asked %v", asked)
		}
	})
}

func TestASingleCheckThatFailsSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		n := 0
		w.answer = func(*http.Request) (int, error) {
			if n++; n%3 == 0 || n > 20 {
				return 200, nil
			}
			return 500, nil
		}
		w.Failed(head(""))
		if _, told := w.after(time.Minute); !slices.Equal(told, []string{""}) {
			t.Errorf("told %q", told)
		}
	})
}

func TestAHeadWithoutSuchACallIsNotChecked(t *testing.T) {
	for _, status := range []int{301, 400, 401, 403, 404, 405, 501} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, nil)
			w.set(status)
			w.Failed(head(""))
			if asked, told := w.after(time.Minute); len(asked) != 1 || !slices.Equal(told, []string{""}) {
				t.Errorf("%d: asked %v, told %q", status, asked, told)
			}
		})
	}
}

func TestTheEngineSaysWhatIsAsked(t *testing.T) {
	for engine, path := range map[string]string{"vllm": "/health", "ollama": "/api/version", "openai": "/v1/models", "of-their-own": "/health"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, nil)
			w.Failed(head(engine))
			if asked, _ := w.after(time.Minute); len(asked) != 2 || asked[0] != "GET http://10.0.0.1:8000"+path {
				t.Errorf("%s: asked %v", engine, asked)
			}
		})
	}
}

func TestAHeadThatDoesNotAnswerOrIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.answer = func(r *http.Request) (int, error) {
			<-r.Context().Done()
			return 0, r.Context().Err()
		}
		w.Failed(head(""))
		if _, told := w.after(time.Minute); len(told) == 0 || !strings.Contains(told[0], "within 5s") {
			t.Errorf("told %q", told)
		}
		w.set(0)
		if _, told := w.after(time.Minute); len(told) == 0 || !strings.Contains(told[len(told)-1], "no connection") || strings.Contains(told[0], "10.0.0.1") {
			t.Errorf("told %q", told)
		}
		w.mu.Lock()
		w.gone = true
		w.mu.Unlock()
		if _, told := w.after(time.Minute); len(told) != 1 {
			t.Errorf("of a head that is gone it told %d times", len(told))
		}
	})
}

func TestChecksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.MaxHeads = 2 })
		w.set(500)
		for _, id := range []string{"a", "b", "c"} {
			h := head("")
			h.ID = id
			w.Failed(h)
		}
		w.after(time.Second)
		if len(w.checkedNow()) != 2 {
			t.Errorf("%v are checked", w.checkedNow())
		}
	})
}

func (w *world) checkedNow() map[string]bool {
	w.Checker.mu.Lock()
	defer w.Checker.mu.Unlock()
	return w.Checker.checked
}

func TestOptionsAreRequired(t *testing.T) {
	if _, err := New(Options{}); err == nil || !strings.Contains(err.Error(), "Checked, Metrics and Log") {
		t.Errorf("New says %v", err)
	}
}
