package registry_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"headway/internal/feed"
	"headway/internal/fleet"
	"headway/internal/memstore"
	"headway/internal/registry"
)

// slowStore delays each write, so that changes queue up into batches, and fails
// some of them before it wrote anything.
type slowStore struct {
	*memstore.Store
	random *rand.Rand // one call at a time
	fails  float64
}

func (s *slowStore) Save(ctx context.Context, changes []feed.Change[fleet.Record]) error {
	time.Sleep(time.Duration(s.random.IntN(10)) * time.Millisecond)
	if s.random.Float64() < s.fails {
		return fmt.Errorf("%w: as the test wants it", fleet.ErrStoreUnavailable)
	}
	return s.Store.Save(ctx, changes)
}

// call is what a client asks of one head, answer what it was answered.
type call struct {
	kind, id string
	epoch    uint64  // of a report
	weight   float64 // of a patch
	endpoint string  // of a registration
	takeOver bool
}

type answer struct {
	err     string // "", not_found, stale, contested, unavailable
	created bool
	epoch   uint64
	weight  float64 // the operator's
}

// known is one head as the calls so far have left it.
type known struct {
	registered bool
	epoch      uint64 // the last that was given, over deregistrations too
	weight     float64
	endpoint   string
}

// heads says which answers are right when calls of one head follow each other.
var heads = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byID := map[string][]porcupine.Operation{}
		for _, o := range history {
			id := o.Input.(call).id
			byID[id] = append(byID[id], o)
		}
		var parts [][]porcupine.Operation
		for _, part := range byID {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return known{} },
	Step: func(state, input, output any) (bool, any) {
		is, in, out := state.(known), input.(call), output.(answer)
		switch {
		case out.err == "unavailable":
			return in.kind != "report" && in.kind != "read", is
		case in.kind == "register":
			if is.registered && in.endpoint != is.endpoint && !in.takeOver {
				return out.err == "contested", is
			}
			right := out.err == "" && out.created != is.registered && out.epoch > is.epoch && out.weight == is.weight
			return right, known{true, out.epoch, is.weight, in.endpoint}
		case !is.registered:
			return out.err == "not_found", is
		case in.kind == "deregister":
			return out.err == "", known{epoch: is.epoch}
		case in.kind == "report":
			if in.epoch != is.epoch {
				return out.err == "stale", is
			}
			return out.err == "" && out.epoch == is.epoch, is
		case in.kind == "patch":
			is.weight = in.weight
		}
		return out == answer{epoch: is.epoch, weight: is.weight}, is // of a patch or a read
	},
	Equal: func(a, b any) bool { return a.(known) == b.(known) },
	DescribeOperation: func(input, output any) string {
		return fmt.Sprintf("%+v -> %+v", input, output)
	},
}

// do makes the call and returns what was answered.
func (w *world) do(c call) answer {
	seen := func(v fleet.View, err error) answer {
		a := answer{err: reason(w, err)}
		if err == nil {
			a.epoch, a.weight = v.Lease.Epoch, v.Record.Admin.Weight
			if v.Head == nil || v.Head.Epoch != a.epoch || v.Head.ID != c.id {
				w.Errorf("%+v was answered %+v with the lease %+v", c, v.Head, v.Lease)
			}
		}
		return a
	}
	switch c.kind {
	case "register":
		register := w.Register
		if c.takeOver {
			register = w.TakeOver
		}
		s := spec(c.id)
		s.Endpoint = c.endpoint
		r, err := register(w.Context(), s, active())
		a := seen(r.View, err)
		a.created = r.Created
		if r.Lease.Epoch != a.epoch {
			w.Errorf("the lease has epoch %d, the head %d", r.Lease.Epoch, a.epoch)
		}
		return a
	case "report":
		l, err := w.Report(c.id, fleet.StatusReport{Epoch: c.epoch, Status: fleet.StatusActive, Load: fleet.UnknownLoad()})
		return answer{err: reason(w, err), epoch: l.Epoch}
	case "patch":
		return seen(w.Patch(w.Context(), c.id, registry.Patch{Weight: &c.weight}))
	case "deregister":
		return answer{err: reason(w, w.Deregister(w.Context(), c.id))}
	}
	return seen(w.Head(c.id))
}

func reason(t testing.TB, err error) string {
	for text, known := range map[string]error{
		"not_found": fleet.ErrHeadNotFound, "stale": fleet.ErrStaleEpoch, "unavailable": fleet.ErrStoreUnavailable,
	} {
		if errors.Is(err, known) {
			return text
		}
	}
	if _, contested := errors.AsType[*fleet.ContestedError](err); contested {
		return "contested"
	}
	must(t, err)
	return ""
}

func TestCallsOfManyClientsAreLinearizable(t *testing.T) {
	for seed := range uint64(12) {
		for _, fails := range []float64{0, 0.2} {
			t.Run(fmt.Sprintf("seed %d fails %g", seed, fails), func(t *testing.T) {
				var history []porcupine.Operation
				synctest.Test(t, func(t *testing.T) { history = tryClients(t, seed, fails) })
				if got := porcupine.CheckOperationsTimeout(heads, history, time.Minute); got != porcupine.Ok {
					t.Errorf("whether the answers of %d calls fit an order of them: %s", len(history), got)
				}
			})
		}
	}
}

func tryClients(t *testing.T, seed uint64, fails float64) []porcupine.Operation {
	store := &slowStore{Store: memstore.New(), random: rand.New(rand.NewPCG(seed, 0)), fails: fails}
	w := start(t, store.Store, func(o *registry.Options) { o.Store = store })
	var clock, registered atomic.Int64
	var mu sync.Mutex
	var history []porcupine.Operation
	given := map[uint64]bool{}
	var clients sync.WaitGroup
	for client := range 8 {
		random := rand.New(rand.NewPCG(seed, uint64(client)+1))
		clients.Go(func() {
			epoch := map[string]uint64{}
			for range 40 {
				kinds := []string{"register", "register", "deregister", "report", "patch", "read"}
				c := call{kind: kinds[random.IntN(len(kinds))], id: []string{"a", "b"}[random.IntN(2)]}
				c.endpoint = []string{"http://10.0.0.1:1", "http://10.0.0.2:1"}[random.IntN(8)/7]
				c.takeOver = random.IntN(3) == 0
				c.epoch, c.weight = epoch[c.id], float64(1+random.IntN(9))
				at := clock.Add(1)
				a := w.do(c)
				o := porcupine.Operation{ClientId: client, Input: c, Call: at, Output: a, Return: clock.Add(1)}
				mu.Lock()
				history = append(history, o)
				if c.kind == "register" && a.err == "" {
					registered.Add(1)
					epoch[c.id] = a.epoch
					if given[a.epoch] {
						t.Errorf("epoch %d was given twice", a.epoch)
					}
					given[a.epoch] = true
				}
				mu.Unlock()
				time.Sleep(time.Duration(random.IntN(3)) * time.Millisecond)
			}
		})
	}
	clients.Wait()
	if got := value(t, w.metrics, "head_registrations_total"); got != float64(registered.Load()) {
		t.Errorf("%g registrations were counted, %d answered", got, registered.Load())
	}
	return history
}
