package routing_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"headway/internal/event"
	"headway/internal/fleet"
	"headway/internal/memstore"
	"headway/internal/registry"
	"headway/internal/routing"
	"headway/internal/strategy"
)

var broke = routing.Outcome{Result: routing.ResultError, StatusCode: 502}

func TestAgainTriesEachHeadOnce(t *testing.T) {
	w := newWorld(t, nil)
	w.policy(`{default_strategy: random, caller_may: []}`) // not even exclude
	heads := []string{"a", "b", "c", "d"}
	for _, id := range heads {
		w.head(id, "us", nil)
	}
	req := strategy.Request{ModelType: "m", SessionKey: "s"}
	d := w.decide(req)
	tried := []string{d.Head.ID}
	for range 3 {
		next, err := w.router.Again(d, &req, broke)
		check(t, err)
		if next.ID() != d.ID() || next.Before() != d {
			t.Fatalf("%s becomes %s, after %v", d.ID(), next.ID(), next.Before())
		}
		if o, ended := d.Outcome(); !ended || o.StatusCode != broke.StatusCode || inFlight(w) != 1 || w.router.Open() != 1 {
			t.Fatalf("the attempt before ended with %v, %t; %d places, %d open", o, ended, inFlight(w), w.router.Open())
		}
		if found, err := w.router.Decision(d.ID()); err != nil || found != next {
			t.Fatalf("the id names %v, %v", found, err)
		}
		if o, err := w.router.Again(d, &req, broke); !errors.Is(err, routing.ErrDecisionEnded) {
			t.Fatalf("an attempt that has ended: %v, %v", o, err)
		}
		if reason, want := string(next.AppendReason(nil)), "; before that "+d.Head.ID+": error 502"; !strings.Contains(reason, want) {
			t.Errorf("the reason %q does not say %q", reason, want)
		}
		d, tried = next, append(tried, next.Head.ID)
	}
	if slices.Sort(tried); !slices.Equal(tried, heads) {
		t.Errorf("tried %q, want each of %q once", tried, heads)
	}
	_, err := w.router.Again(d, &req, broke)
	no, ok := errors.AsType[*routing.NoHeadError](err)
	if !ok || no.Failure != routing.FailTried || !maps.Equal(no.Counts, map[string]int{"tried": 4}) {
		t.Fatalf("no head is left: %v", err)
	}
	if o, ended := d.Outcome(); !ended || o.StatusCode != broke.StatusCode || inFlight(w) != 0 || w.router.Open() != 0 {
		t.Errorf("the last attempt ended with %v, %t; %d places, %d open", o, ended, inFlight(w), w.router.Open())
	}
	if list := w.router.Recent(routing.RecentQuery{Limit: 9}); len(list) != 1 || list[0] != d {
		t.Errorf("%d recent decisions, want the last attempt alone", len(list))
	}
}

// What a caller excludes stays excluded, and is no head that was tried.
func TestAgainKeepsToTheRequest(t *testing.T) {
	w := newWorld(t, nil)
	for _, id := range []string{"a", "b", "c", "d"} {
		w.head(id, "us", func(s *fleet.Spec) {
			if id == "d" {
				s.MaxInFlight = 1
			}
		})
	}
	d := w.decide(strategy.Request{Exclude: []string{"a", "b", "c"}})
	req := strategy.Request{ModelType: "m", Exclude: []string{"a", "b"}, Explain: true}
	second := w.decide(req)
	if second.Head.ID != "c" {
		t.Fatalf("got %s, and d is full", second.Head.ID)
	}
	_, err := w.router.Again(second, &req, broke)
	no, ok := errors.AsType[*routing.NoHeadError](err)
	if !ok || no.Failure != routing.FailAtCapacity || no.Counts["exclude"] != 2 || no.Counts["tried"] != 1 || no.RetryAfter <= 0 {
		t.Fatalf("%v, %+v", err, no)
	}
	w.router.End(d, broke)
	third := w.decide(strategy.Request{Exclude: []string{"d"}})
	fourth, err := w.router.Again(third, &req, broke)
	check(t, err)
	for _, c := range fourth.Explanation().Candidates {
		if want := map[string]string{"a": "exclude", "b": "exclude", "c": "", "d": ""}[c.HeadID]; c.Filter != want && c.Filter != "tried" {
			t.Errorf("%s is filtered by %q, want %q", c.HeadID, c.Filter, want)
		}
	}
}

// A later attempt has its own time, also if the one before it ran out first and
// its slot was dropped.
func TestALaterAttemptExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.head("a", "us", nil)
		w.head("b", "us", nil)
		req := strategy.Request{ModelType: "m", TTL: 10 * time.Second}
		d := w.decide(req)
		time.Sleep(8 * time.Second)
		d, err := w.router.Again(d, &req, broke)
		check(t, err)
		time.Sleep(8 * time.Second)
		if _, ended := d.Outcome(); ended || w.router.Open() != 1 {
			t.Error("the time of the attempt before counts for the later one")
		}
		time.Sleep(3 * time.Second)
		if o, _ := d.Outcome(); o.Result != routing.ResultExpired || w.router.Open() != 0 || inFlight(w) != 0 {
			t.Errorf("the later attempt ended with %v", o)
		}
		if _, err := w.router.Again(d, &req, broke); !errors.Is(err, routing.ErrDecisionEnded) {
			t.Errorf("a decision whose time ran out: %v", err)
		}
		if o, _ := d.Outcome(); o.StatusCode != broke.StatusCode {
			t.Errorf("what was reported late is not kept: %v", o)
		}
	})
}

// ender is a memory that calls ended where an outcome is reported.
type ender struct {
	*strategy.Known
	ended func()
}

func (e ender) Ended(*fleet.Head, string, fleet.Work, strategy.End) { e.ended() }

// An attempt that finds the slot of its decision taken is evicted, as the
// decision would have been.
func TestALaterAttemptOfAForgottenDecisionIsEvicted(t *testing.T) {
	w := newWorld(t, func(o *routing.Options) { o.Recent = 2 })
	w.head("a", "us", nil)
	w.head("b", "us", nil)
	req := strategy.Request{ModelType: "m"}
	d := w.decide(req)
	routing.SetMemory(w.router, ender{strategy.NewKnown(strategy.KnownOptions{Blocks: 1}), func() { w.decide(req); w.decide(req) }})
	next, err := w.router.Again(d, &req, broke)
	check(t, err)
	if o, _ := next.Outcome(); o.Result != routing.ResultEvicted || w.router.Open() != 2 || inFlight(w) != 2 {
		t.Errorf("it ended with %v; %d open, %d places, want 2", o, w.router.Open(), inFlight(w))
	}
}

// In each order of events each head has the places and tokens of its open
// decisions, and in the end none.
func TestPlacesAndTokensAreThoseOfOpenDecisions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		clock := func() time.Time { return now }
		reg, log := prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
		events := event.New(reg)
		heads, err := registry.New(registry.Options{Store: memstore.New(), Events: events, Metrics: reg, Log: log, Lease: lasting, Now: clock})
		ok(t, err)
		ok(t, heads.Load(context.Background()))
		router, err := routing.New(routing.Options{Fleet: heads, Policies: memstore.New(), Events: events, Metrics: reg, Log: log, Now: clock, Recent: 8})
		ok(t, err)
		router.Expire() // as Run does from the start
		lives := map[*fleet.Live]string{}
		register := func(id string) {
			_, err := heads.Register(context.Background(), fleet.Spec{
				ID: id, Endpoint: "http://127.0.0.1:9000", ModelTypes: []string{"m"}, Region: "us", MaxInFlight: 3,
			}, &fleet.StatusReport{Status: fleet.StatusActive, Load: fleet.UnknownLoad()})
			ok(t, err)
			for _, h := range heads.Snapshot().Pools["m"].All.Heads {
				lives[h.Live] = h.ID
			}
		}
		for i := range 4 {
			register(fmt.Sprint("h", i))
		}
		type attempt struct {
			*routing.Decision
			req *strategy.Request
		}
		var attempts []attempt
		var tokens int64
		some := func(t *rapid.T) attempt {
			if len(attempts) == 0 {
				t.Skip("nothing is decided")
			}
			return rapid.SampledFrom(attempts).Draw(t, "attempt")
		}
		t.Repeat(map[string]func(*rapid.T){
			"decide": func(t *rapid.T) {
				req := &strategy.Request{ModelType: "m", InputTokens: rapid.Int64Range(0, 5000).Draw(t, "tokens"), TTL: rapid.SampledFrom([]time.Duration{0, time.Second, time.Hour}).Draw(t, "ttl")}
				if d, err := router.Decide(req); err == nil {
					if got := int64(d.Work().Tokens); got == 0 || req.InputTokens > 0 && got != req.InputTokens {
						t.Fatalf("%d tokens count for a prompt of %d", got, req.InputTokens)
					}
					attempts = append(attempts, attempt{d, req})
				}
			},
			"again": func(t *rapid.T) {
				a := some(t)
				_, ended := a.Outcome()
				d, err := router.Again(a.Decision, a.req, broke)
				no, none := errors.AsType[*routing.NoHeadError](err)
				switch {
				case errors.Is(err, routing.ErrDecisionEnded) == ended && (err == nil || ended || none):
				default:
					t.Fatalf("%v of one that has ended, %t: %v", err, ended, no)
				}
				if err != nil {
					return
				}
				if attempts = append(attempts, attempt{d, a.req}); d.ID() != a.ID() {
					t.Fatalf("%s became %s", a.ID(), d.ID())
				}
				for b := d.Before(); b != nil; b = b.Before() {
					if b.Head.ID == d.Head.ID {
						t.Fatalf("%s is tried twice", d.Head.ID)
					}
				}
			},
			"end": func(t *rapid.T) {
				router.End(some(t).Decision, routing.Outcome{Result: routing.ResultOK})
			},
			"replace a head": func(t *rapid.T) {
				id := fmt.Sprint("h", rapid.IntRange(0, 3).Draw(t, "head"))
				ok(t, heads.Deregister(context.Background(), id))
				register(id)
			},
			"time passes": func(t *rapid.T) {
				now = now.Add(rapid.SampledFrom([]time.Duration{time.Second, time.Minute, time.Hour}).Draw(t, "time"))
				router.Expire()
			},
			"": func(t *rapid.T) {
				places, of := map[*fleet.Live]int64{}, map[*fleet.Live]int64{}
				open := int64(0)
				for _, a := range attempts {
					if _, ended := a.Outcome(); !ended {
						places[a.Head.Live]++
						of[a.Head.Live] += int64(a.Work().Tokens)
						open++
					}
				}
				for l, id := range lives {
					if l.InFlight() != places[l] || l.Tokens() != of[l] {
						t.Fatalf("%s has %d places and %d tokens, want %d and %d", id, l.InFlight(), l.Tokens(), places[l], of[l])
					}
				}
				if router.Open() != open {
					t.Fatalf("%d are open, want %d", router.Open(), open)
				}
			},
		})
		now = now.Add(2 * time.Hour)
		router.Expire()
		for l, id := range lives {
			tokens += l.Tokens()
			if l.InFlight() != 0 {
				t.Fatalf("%s has %d places in the end", id, l.InFlight())
			}
		}
		if tokens != 0 || router.Open() != 0 {
			t.Fatalf("%d tokens are left, and %d decisions open", tokens, router.Open())
		}
	})
}

func ok(t *rapid.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
