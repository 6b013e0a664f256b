package routing_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/audit"
	"headway/internal/event"
	"headway/internal/feed"
	"headway/internal/memstore"
	"headway/internal/policy"
	"headway/internal/routing"
	"headway/internal/strategy"
	"headway/internal/strict"
)

func document(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, faults := policy.Parse([]byte(text), "json")
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return p
}

// apply applies a policy as the given revision's successor.
func (w *world) apply(next *policy.Policy, change routing.Change, expect uint64) (*policy.Policy, error) {
	change.Make, change.Expect = routing.To(next), expect
	return w.router.Apply(w.Context(), change)
}

// diary notes what happens to a change of policy, in order.
type diary struct {
	*memstore.Store
	audit.Unrecorded

	mu     sync.Mutex
	lines  []string
	refuse error // of the intent
}

func (d *diary) note(line string) {
	d.mu.Lock()
	d.lines = append(d.lines, line)
	d.mu.Unlock()
}

func (d *diary) Begin(_ context.Context, e audit.Entry) (audit.EndFunc, error) {
	if d.refuse != nil {
		return nil, d.refuse
	}
	d.note("intent " + e.Action + " " + string(e.Before) + string(e.After))
	return func(o audit.Outcome, _ string, after json.RawMessage) { d.note(string(o) + " " + string(after)) }, nil
}

func (d *diary) SavePolicy(ctx context.Context, expect uint64, p policy.Stored) (uint64, error) {
	d.note("store")
	return d.Store.SavePolicy(ctx, expect, p)
}

func TestAChangeOfPolicyIsRecordedBeforeAndAfter(t *testing.T) {
	d := &diary{Store: memstore.New()}
	w := newWorld(t, func(o *routing.Options) { o.Policies, o.Audit = d, d })
	change := routing.Change{Source: policy.SourceAPI, Note: "calmer"}
	next := document(t, `{"default_strategy":"random","caller_may":[]}`)
	applied, err := w.apply(next, change, 0)
	check(t, err)
	want := []string{
		`intent policy.put {"revision":0}{"source":"api","note":"calmer","changed":["/caller_may/0","/caller_may/1","/caller_may/2","/caller_may/3","/caller_may/4","/caller_may/5","/caller_may/6","/caller_may/7","/default_strategy"],"changed_count":9}`,
		`store`, `success {"revision":1}`,
	}
	if !slices.Equal(d.lines, want) {
		t.Errorf("the diary has\n%s\nwant\n%s", strings.Join(d.lines, "\n"), strings.Join(want, "\n"))
	}

	d.lines = nil
	if again, err := w.apply(next, change, 1); err != nil || again != applied || d.lines != nil {
		t.Errorf("an equal policy: %v, %v, noted %q; want nothing", again, err, d.lines)
	}
	_, err = w.apply(document(t, `{"default_strategy":"round_robin","caller_may":[]}`), change, 0)
	if !errors.Is(err, policy.ErrConflict) || d.lines != nil {
		t.Errorf("an old revision: %v, noted %q; want a conflict", err, d.lines)
	}

	full := errors.New("disk full")
	d.Inject(memstore.Fault{Err: full})
	if _, err = w.apply(policy.Default(), change, 1); !errors.Is(err, full) {
		t.Errorf("a store that fails: %v", err)
	}
	if n := len(d.lines); n != 3 || !strings.HasPrefix(d.lines[2], "failure") || w.router.Policy() != applied {
		t.Errorf("noted %q; want an intent, an attempt and a failure, and the old policy", d.lines)
	}

	d.Inject(memstore.Fault{})
	d.lines, d.refuse = nil, errors.New("no trail")
	if _, err = w.apply(policy.Default(), change, 1); !errors.Is(err, d.refuse) {
		t.Errorf("a trail that cannot be written: %v", err)
	}
	if d.lines != nil || w.router.Policy() != applied {
		t.Errorf("without an intent: noted %q; want nothing done", d.lines)
	}
}

// A store may fail after it has stored, as with a disk that answers late. The
// trail says failure only of what is not in force, now or after a restart.
func TestAPolicyInForceIsNoFailureInTheTrail(t *testing.T) {
	d, late := &diary{Store: memstore.New()}, errors.New("the disk answered late")
	d.Inject(memstore.Fault{Err: late, After: true})
	w := newWorld(t, func(o *routing.Options) { o.Policies, o.Audit = d, d })
	next := document(t, `{"default_strategy":"random","caller_may":[]}`)
	applied, err := w.apply(next, routing.Change{}, 0)
	check(t, err)
	if last := d.lines[len(d.lines)-1]; last != `success {"revision":1}` || w.router.Policy() != applied || applied.Revision != 1 {
		t.Errorf("stored with an error: noted %q, in force is revision %d", last, w.router.Policy().Revision)
	}

	d.Inject(memstore.Fault{Err: late, After: true, Reads: true})
	if _, err := w.apply(policy.Default(), routing.Change{}, 1); !errors.Is(err, late) {
		t.Errorf("a store that does not say what it has: %v", err)
	}
	if last := d.lines[len(d.lines)-1]; !strings.HasPrefix(last, "unknown") {
		t.Errorf("a store that does not say what it has: noted %q; want unknown", last)
	}
}

// Two routers share a store. One that comes too late takes over what the other
// stored, and makes a change that any revision will do for again.
func TestAChangeThatAnotherReplicaOvertookIsMadeAgain(t *testing.T) {
	d := deaf{memstore.New()}
	here := newWorld(t, func(o *routing.Options) { o.Policies = d })
	there := newWorld(t, func(o *routing.Options) { o.Policies = d })
	alias := func(name string) func(*policy.Policy) (*policy.Policy, error) {
		return func(current *policy.Policy) (*policy.Policy, error) {
			next, faults := current.Merge([]byte(`{"aliases":{"` + name + `":"m"}}`))
			return next, strict.Invalid(faults)
		}
	}
	_, err := there.router.Apply(t.Context(), routing.Change{Make: alias("a")})
	check(t, err)
	if _, err := here.router.Apply(t.Context(), routing.Change{Make: alias("b")}); !errors.Is(err, policy.ErrConflict) || here.router.Policy().Revision != 1 {
		t.Errorf("a change of revision 0: %v, in force is revision %d", err, here.router.Policy().Revision)
	}
	_, err = there.router.Apply(t.Context(), routing.Change{Make: alias("c"), Expect: 1})
	check(t, err)
	next, err := here.router.Apply(t.Context(), routing.Change{Make: alias("d"), Expect: routing.AnyRevision})
	check(t, err)
	if next.Revision != 3 || here.router.Policy() != next || len(next.Document.Aliases) != 3 {
		t.Errorf("revision %d with the aliases %v; want 3 with a, c and d", next.Revision, next.Document.Aliases)
	}
}

// deaf is a store of which a router hears nothing but what it asks.
type deaf struct{ *memstore.Store }

func (deaf) WatchPolicy(ctx context.Context, _ uint64) (feed.Changes[policy.Stored], error) {
	<-ctx.Done()
	return feed.Changes[policy.Stored]{}, ctx.Err()
}

// Routers that share a store follow each other; each publishes a change once.
func TestAPolicyThatAnotherReplicaStoredIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New()
		here := newWorld(t, func(o *routing.Options) { o.Policies = store })
		there := newWorld(t, func(o *routing.Options) { o.Policies = store })
		told := []*event.Subscription{here.events.Subscribe(), there.events.Subscribe()}
		next := document(t, `{"default_strategy":"random","caller_may":[]}`)
		synctest.Wait() // both watch, so that the change reaches the one that makes it too
		_, err := there.apply(next, routing.Change{Source: policy.SourceAPI}, 0)
		check(t, err)
		synctest.Wait()
		if got := here.router.Policy(); got.Revision != 1 || !bytes.Equal(got.Canonical, next.Canonical) {
			t.Errorf("in force is revision %d: %s", got.Revision, got.Canonical)
		}
		for i, sub := range told {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			n := 0
			for {
				e, _, err := sub.Next(ctx)
				if err != nil {
					break
				}
				if e.Type == event.PolicyChanged {
					n++
				}
			}
			cancel()
			if n != 1 {
				t.Errorf("router %d published %d changes; want 1", i, n)
			}
		}
		_, err = store.SavePolicy(t.Context(), 1, policy.Stored{Document: []byte(`{"default_strategy":"of a newer version"}`)})
		check(t, err)
		synctest.Wait()
		if got := here.router.Policy().Revision; got != 1 {
			t.Errorf("in force is revision %d, which this version cannot read", got)
		}
	})
}

func TestRestore(t *testing.T) {
	d := &diary{Store: memstore.New()}
	w := newWorld(t, func(o *routing.Options) { o.Policies, o.Audit = d, d })
	for _, strategy := range []string{"random", "round_robin"} {
		_, err := w.apply(document(t, `{"default_strategy":"`+strategy+`","caller_may":[]}`), routing.Change{}, w.router.Policy().Revision)
		check(t, err)
	}
	restored, err := w.router.Restore(t.Context(), 1, "ada", 2)
	check(t, err)
	if restored.Revision != 3 || restored.Document.DefaultStrategy != "random" {
		t.Errorf("restored revision %d with %s", restored.Revision, restored.Document.DefaultStrategy)
	}
	list, err := w.router.Revisions(t.Context(), 10)
	check(t, err)
	if len(list) != 4 || list[0].Source != policy.SourceRestore || list[0].Author != "ada" || list[0].Note != "revision 1" || list[3].Source != policy.SourceDefault {
		t.Errorf("the history is %+v", list)
	}
	original, err := w.router.Restore(t.Context(), 0, "ada", 3)
	check(t, err)
	if !bytes.Equal(original.Canonical, policy.Default().Canonical) {
		t.Errorf("revision 0 is %s", original.Canonical)
	}
	if _, err := w.router.Restore(t.Context(), 17, "ada", 4); !errors.Is(err, policy.ErrNoRevision) {
		t.Errorf("a revision that never was: %v", err)
	}
}

func TestReplay(t *testing.T) {
	w := newWorld(t, nil)
	for _, id := range []string{"a", "b", "c", "d"} {
		w.head(id, "eu", nil)
	}
	w.head("far", "us", nil)
	for range 100 {
		w.decide(strategy.Request{Region: "eu"})
	}
	for range 50 {
		w.decide(strategy.Request{Region: "us"})
	}
	replay := func(text string) routing.Replay {
		return w.router.Replay(document(t, text))
	}
	before, open := w.decide(strategy.Request{Region: "eu"}), w.router.Open()
	same := replay(`{"default_strategy":"adaptive","aliases":{"x":"m"},"caller_may":[]}`)
	if same.Decisions != 151 || same.Moved != 0 || same.Failed != 0 || len(same.Examples) != 0 {
		t.Errorf("a policy that treats all alike moves %+v", same)
	}
	moved := replay(`{"default_strategy":"adaptive","rules":[{"match":{"region":"us"},"strategy":"adaptive"},{"match":{"region":"eu"},"strategy":"round_robin"}],"caller_may":[]}`)
	if moved.Moved < 25 || moved.Moved > 101 || moved.Failed != 0 || len(moved.Examples) != 20 {
		t.Errorf("another strategy for eu moves %d of 101, %d fail, %d examples", moved.Moved, moved.Failed, len(moved.Examples))
	}
	for _, e := range moved.Examples {
		if e.Decision.Region != "eu" || e.Before == e.After || e.StrategyBefore != "adaptive" || e.StrategyNext != "round_robin" {
			t.Errorf("%s of %s moves from %s to %s", e.Decision.ID(), e.Decision.Region, e.StrategyBefore, e.StrategyNext)
		}
	}
	failed := replay(`{"default_strategy":"adaptive","aliases":{"m":"nothing"},"caller_may":[]}`)
	if failed.Failed != 151 || failed.Moved != 0 {
		t.Errorf("a model type that nobody serves fails %+v", failed)
	}
	for text, want := range map[string]int{
		`{"default_strategy":"slo"}`: 151,
		`{"default_strategy":"adaptive","rules":[{"match":{"region":"us"},"strategy":"slo"}]}`:                                                 50,
		`{"default_strategy":"model_specific","strategies":{"model_specific":{"parameters":{"models":[{"match":"m","strategy":"slo"}]}}}}`:     151,
		`{"default_strategy":"model_specific","strategies":{"model_specific":{"parameters":{"models":[{"match":"other","strategy":"slo"}]}}}}`: 0,
	} {
		if got := replay(text); got.Unjudged != want || same.Unjudged != 0 {
			t.Errorf("%s: %d are unjudged, want %d", text, got.Unjudged, want)
		}
	}
	if w.router.Open() != open || w.decide(strategy.Request{}).PolicyRevision != before.PolicyRevision {
		t.Error("the replay left a trace")
	}
}

// A replay compares two policies on one state of the fleet, so that what both
// treat alike does not move while others are decided.
func TestAReplaySeesOneMoment(t *testing.T) {
	w := newWorld(t, nil)
	w.fill(20)
	for range 2000 {
		w.decide(strategy.Request{})
	}
	stop := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				w.decide(strategy.Request{})
			}
		}
	})
	same := w.router.Replay(document(t, `{"default_strategy":"adaptive","aliases":{"x":"m"},"caller_may":[]}`))
	close(stop)
	wait.Wait()
	if same.Decisions == 0 || same.Moved != 0 || same.Failed != 0 {
		t.Errorf("a policy that treats all alike moves %+v", same)
	}
}
