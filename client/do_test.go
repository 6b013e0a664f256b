package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"headway/api"
	"headway/client"
)

// ledger is a router that decides and records its calls.
type ledger struct {
	t        *testing.T
	slow     bool // never answers a report
	mu       sync.Mutex
	log      []string
	outcomes []api.Outcome
}

func (l *ledger) RoundTrip(r *http.Request) (*http.Response, error) {
	what := strings.TrimPrefix(r.URL.Path, "/api/v1/decisions")
	if what == "" {
		return respond(200, decisionBody)(r)
	}
	var o api.Outcome
	if what == "/d1/outcome" {
		if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
			l.t.Error(err)
		}
	}
	l.mu.Lock()
	l.log = append(l.log, strings.TrimPrefix(what, "/d1/"))
	if o.Result != "" {
		l.outcomes = append(l.outcomes, o)
	}
	l.mu.Unlock()
	if l.slow {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return respond(204, "").RoundTrip(r)
}

// asked runs Do with an ask that fails on the named heads.
func asked(ctx context.Context, c *client.Client, ask func(context.Context, *client.Call) error) (heads []string, err error) {
	err = c.Do(ctx, api.DecisionRequest{ModelType: "m"}, func(ctx context.Context, call *client.Call) error {
		heads = append(heads, call.Head.ID)
		return ask(ctx, call)
	})
	return heads, err
}

var errHead = errors.New("the head is broken")

func TestDo(t *testing.T) {
	fails := func(heads ...string) func(context.Context, *client.Call) error {
		return func(_ context.Context, call *client.Call) error {
			if slices.Contains(heads, call.Head.ID) {
				return errHead
			}
			return nil
		}
	}
	for _, tt := range []struct {
		name     string
		ask      func(context.Context, *client.Call) error
		opts     []client.Option
		heads    []string
		reported string // in this order
		result   string
		err      error
	}{
		{name: "the first head answers", ask: fails(), heads: []string{"a"}, reported: "outcome", result: "ok"},
		{name: "it says when it begins", heads: []string{"a"}, reported: "progress outcome", result: "ok", ask: func(_ context.Context, call *client.Call) error {
			time.Sleep(time.Second)
			call.FirstToken()
			time.Sleep(time.Second)
			call.FirstToken()
			return nil
		}},
		{name: "an alternative answers", ask: fails("a"), heads: []string{"a", "b"}, reported: "outcome", result: "error"},
		{name: "the last one answers", ask: fails("a", "b"), heads: []string{"a", "b", "c"}, reported: "outcome", result: "error"},
		{name: "none answers", ask: fails("a", "b", "c"), heads: []string{"a", "b", "c"}, reported: "outcome", result: "error", err: errHead},
		{name: "no retries", ask: fails("a"), opts: []client.Option{client.WithRetries(0)}, heads: []string{"a"}, reported: "outcome", result: "error", err: errHead},
		{name: "no head would take it", heads: []string{"a"}, reported: "outcome", result: "error", err: errHead, ask: func(_ context.Context, call *client.Call) error {
			call.Status(400)
			return client.Permanent(errHead)
		}},
		{name: "an answer that has begun cannot begin again", heads: []string{"a"}, reported: "progress outcome", result: "error", err: errHead, ask: func(_ context.Context, call *client.Call) error {
			call.FirstToken()
			return errHead
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &ledger{t: t}
				heads, err := asked(t.Context(), over(t, l, tt.opts...), tt.ask)
				if !slices.Equal(heads, tt.heads) || !errors.Is(err, tt.err) {
					t.Errorf("heads %v, %v; want %v, %v", heads, err, tt.heads, tt.err)
				}
				if reported := strings.Join(l.log, " "); reported != tt.reported || l.outcomes[0].Result != tt.result {
					t.Errorf("reported %q, %+v; want %q, %s", reported, l.outcomes, tt.reported, tt.result)
				}
			})
		})
	}
}

func TestDoMeasures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{t: t}
		_, err := asked(t.Context(), over(t, l), func(_ context.Context, call *client.Call) error {
			if call.ModelType != "m-1" || call.DecisionID != "d1" || call.Attempt != 0 {
				t.Errorf("call %+v", call.Head)
			}
			time.Sleep(300 * time.Millisecond)
			call.FirstToken()
			time.Sleep(700 * time.Millisecond)
			call.Status(200)
			call.Usage(100, 20, -1)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		o := l.outcomes[0]
		if *o.TTFTMs != 300 || *o.DurationMs != 1000 || *o.StatusCode != 200 || *o.InputTokens != 100 || *o.OutputTokens != 20 || o.CachedTokens != nil {
			text, _ := json.Marshal(o)
			t.Errorf("outcome %s", text)
		}
	})
}

func TestTheOutcomeIsReportedAlthoughTheContextEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{t: t}
		ctx, cancel := context.WithCancel(t.Context())
		heads, err := asked(ctx, over(t, l), func(ctx context.Context, _ *client.Call) error {
			cancel()
			return ctx.Err()
		})
		if !errors.Is(err, context.Canceled) || len(heads) != 1 || len(l.outcomes) != 1 || l.outcomes[0].Result != client.ResultCancelled {
			t.Errorf("%v, heads %v, outcomes %+v", err, heads, l.outcomes)
		}
	})
}

func TestTheOutcomeIsReportedAlthoughTheCallerPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{t: t}
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_, _ = asked(t.Context(), over(t, l), func(context.Context, *client.Call) error { panic("a bug of the caller") })
		}()
		if len(l.outcomes) != 1 || l.outcomes[0].Result != client.ResultError {
			t.Errorf("outcomes %+v", l.outcomes)
		}
	})
}

func TestALostRouterDelaysCallersBriefly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{t: t, slow: true}
		began := time.Now()
		_, err := asked(t.Context(), over(t, l), func(_ context.Context, call *client.Call) error {
			call.FirstToken()
			return nil
		})
		if took := time.Since(began); err != nil || took > 4*time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}

func TestAWordAfterTheEndIsNotHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{t: t}
		var kept *client.Call
		if _, err := asked(t.Context(), over(t, l), func(_ context.Context, call *client.Call) error { kept = call; return nil }); err != nil {
			t.Fatal(err)
		}
		kept.FirstToken()
		synctest.Wait()
		if len(l.log) != 1 {
			t.Errorf("reported %v", l.log)
		}
	})
}

// Heads that all fail cost a tenth more than the calls, and a few.
func TestAlternativesDrawOnTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, tries := over(t, &ledger{t: t}), 0
		for range 1000 {
			heads, _ := asked(t.Context(), c, func(context.Context, *client.Call) error { return errHead })
			tries += len(heads)
		}
		// Each Do makes two calls: decide and outcome.
		if extra := tries - 1000; extra > 2*100+client.MaxBudget+1 || extra < 100 {
			t.Errorf("%d alternatives for 1000 requests", extra)
		}
	})
}
