package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// zone is what a name resolves to, as the test says.
type zone struct {
	mu      sync.Mutex
	found   []string
	err     error
	lookups []time.Time
}

var (
	noSuchName  = &net.DNSError{Err: "no such host", IsNotFound: true}
	servFailure = &net.DNSError{Err: "server misbehaving", IsTemporary: true}
)

func (z *zone) set(err error, found ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.found, z.err = found, err
}

func (z *zone) lookup(context.Context) ([]string, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.lookups = append(z.lookups, time.Now())
	return z.found, z.err
}

// asked are the times of the lookups since the last call.
func (z *zone) asked() []time.Time {
	z.mu.Lock()
	defer z.mu.Unlock()
	times := z.lookups
	z.lookups = nil
	return times
}

// name is gpu.test, whose addresses are heads of s.
func (s *service) name(z *zone, e *engine, region string) Name {
	return Name{
		Key: "gpu.test", Same: region, Lookup: z.lookup, Interval: 30 * time.Second, Most: 3,
		Head: func(hostPort string) (Head, error) {
			id, _, _ := strings.Cut(hostPort, ":")
			if id == "forbidden" {
				return Head{}, errors.New("forbidden is a link-local address")
			}
			return s.head(id, e, region), nil
		},
	}
}

func (s *service) applyNames(heads []Head, names ...Name) {
	s.t.Helper()
	s.run()
	if _, _, err := s.set.Apply(heads, names); err != nil {
		s.t.Error(err)
	}
}

// counted are the gauges of discovered heads.
func (s *service) counted(followed, refused int) {
	s.t.Helper()
	want := fmt.Sprintf("# HELP headway_discovered_heads %s\n# TYPE headway_discovered_heads gauge\nheadway_discovered_heads{state=\"followed\"} %d\nheadway_discovered_heads{state=\"refused\"} %d\n",
		"Addresses of the names of discovery, as last resolved, by state: followed, or refused since their address is not allowed or the name has more than max_heads.", followed, refused)
	if err := testutil.GatherAndCompare(s.metrics, strings.NewReader(want), "headway_discovered_heads"); err != nil {
		s.t.Error(err)
	}
}

// What a name resolves to is registered and what it resolves to no more is
// drained; a failure of the resolver changes nothing, however long it lasts.
func TestTheAddressesOfANameAreHeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		defer s.stop()
		z, e := &zone{}, vllm()
		z.set(nil, "gpu-1:8000")
		s.applyNames(nil, s.name(z, e, "eu"))
		s.expect(time.Second, "gpu-1 eu active llama")
		z.set(nil, "gpu-1:8000", "gpu-2:8000")
		s.expect(34*time.Second, "gpu-1 eu active llama", "gpu-2 eu active llama")
		s.counted(2, 0)
		for _, failure := range []error{servFailure, context.DeadlineExceeded, errors.New("connection refused")} {
			z.set(failure, "gpu-3:8000")
			s.expect(time.Hour, "gpu-1 eu active llama", "gpu-2 eu active llama")
		}
		z.set(nil, "gpu-2:8000", "gpu-3:8000")
		s.expect(50*time.Second, "gpu-2 eu active llama", "gpu-3 eu active llama")
		s.counted(2, 0)
	})
}

// What a configuration means is known once the set runs and each of its names was
// resolved; a name that is gone is not waited for.
func TestTheSetIsWholeOnceItsNamesAreResolved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		defer s.stop()
		whole := func(want bool) {
			t.Helper()
			synctest.Wait()
			select {
			case <-s.set.Whole():
				if !want {
					t.Fatal("the set is whole")
				}
			default:
				if want {
					t.Fatal("the set is not whole")
				}
			}
		}
		known, failing, e := &zone{}, &zone{}, vllm()
		known.set(nil, "gpu-2:8000")
		failing.set(servFailure)
		one, other := s.name(known, e, "eu"), s.name(failing, e, "us")
		other.Key = "other.test"
		static := []Head{s.head("gpu-1", e, "eu")}
		if _, _, err := s.set.Apply(static, nil); err != nil {
			t.Fatal(err)
		}
		whole(false) // it does not run
		if _, _, err := s.set.Apply(static, []Name{one, other}); err != nil {
			t.Fatal(err)
		}
		s.run()
		time.Sleep(time.Minute)
		whole(false) // one fails
		if got := s.set.Listed(); len(got) != 2 || !got["gpu-1"] || !got["gpu-2"] {
			t.Errorf("listed %v", got)
		}
		s.applyNames(static, one)
		whole(true)
	})
}

// A name that does not exist any more, or has no address, counts once that was
// said three times in a row.
func TestANameWithoutAddresses(t *testing.T) {
	for _, failure := range []error{noSuchName, nil} {
		synctest.Test(t, func(t *testing.T) {
			s := newService(t)
			defer s.stop()
			z := &zone{}
			z.set(nil, "gpu-1:8000")
			s.applyNames(nil, s.name(z, vllm(), "eu"))
			s.expect(time.Second, "gpu-1 eu active llama")
			z.set(failure)
			s.expect(35*time.Second, "gpu-1 eu active llama") // said once or twice
			z.set(servFailure)
			s.expect(time.Hour, "gpu-1 eu active llama")
			z.set(failure)
			s.expect(50 * time.Second)
			z.set(nil, "gpu-1:8000")
			s.expect(35*time.Second, "gpu-1 eu active llama")
		})
	}
}

// A name has at most its bound of heads; those that it has already stay. Addresses
// that no head may have are none.
func TestANameHasABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		defer s.stop()
		z := &zone{}
		z.set(nil, "forbidden:8000", "gpu-2:8000", "gpu-3:8000")
		n := s.name(z, vllm(), "eu")
		n.Most = 2
		s.applyNames(nil, n)
		s.expect(time.Second, "gpu-2 eu active llama", "gpu-3 eu active llama")
		s.counted(2, 1)
		z.set(nil, "forbidden:8000", "gpu-1:8000", "gpu-2:8000", "gpu-3:8000")
		s.expect(time.Minute, "gpu-2 eu active llama", "gpu-3 eu active llama")
		s.counted(2, 2)
		z.set(nil, "gpu-1:8000", "gpu-3:8000")
		s.expect(time.Minute, "gpu-1 eu active llama", "gpu-3 eu active llama")
		s.counted(2, 0)
	})
}

// An engine that is listed and resolved, too, is one head; a name that leaves the
// configuration takes its heads along, and one that changed has them until it is
// resolved again.
func TestNamesFollowTheConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		defer s.stop()
		z, e := &zone{}, vllm()
		z.set(nil, "gpu-1:8000", "gpu-2:8000")
		listed := s.head("gpu-1", e, "us")
		other := s.head("gpu-3", e, "us")
		other.Registration.Endpoint = "http://gpu-2:8000" // by another id
		s.applyNames([]Head{listed, other}, s.name(z, e, "eu"))
		s.expect(time.Second, "gpu-1 us active llama", "gpu-3 us active llama")
		s.applyNames([]Head{listed}, s.name(z, e, "eu"))
		s.expect(5*time.Second, "gpu-1 us active llama", "gpu-2 eu active llama")
		before, _ := s.fleet.Head("gpu-2")
		z.set(servFailure)
		changed := s.name(z, e, "eu")
		changed.Same = "other"
		s.applyNames([]Head{listed}, changed)
		s.expect(time.Minute, "gpu-1 us active llama", "gpu-2 eu active llama")
		if after, _ := s.fleet.Head("gpu-2"); after.Head.Epoch != before.Head.Epoch {
			t.Error("a head of a name that is not resolved yet registered again")
		}
		z.set(nil, "gpu-3:8000")
		s.expect(time.Minute, "gpu-1 us active llama", "gpu-3 eu active llama")
		s.applyNames([]Head{listed})
		s.expect(10*time.Second, "gpu-1 us active llama")
		s.counted(0, 0)
		z.asked()
		s.expect(time.Hour, "gpu-1 us active llama")
		if len(z.asked()) > 0 {
			t.Error("a name that is gone is looked up")
		}
	})
}

// Lookups keep to their interval, give or take a tenth at random, so that
// replicas do not ask in step; after a failure it is shorter.
func TestLookupsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		defer s.stop()
		z := &zone{}
		z.set(nil, "gpu-1:8000")
		n := s.name(z, vllm(), "eu")
		s.applyNames(nil, n)
		s.expect(time.Hour, "gpu-1 eu active llama")
		waits := map[time.Duration]bool{}
		check := func(least, most time.Duration) {
			t.Helper()
			times := z.asked()
			for i := 2; i < len(times); i++ {
				wait := times[i].Sub(times[i-1])
				waits[wait] = true
				if wait < least || wait > most {
					t.Errorf("waited %v", wait)
				}
			}
		}
		check(27*time.Second, 33*time.Second)
		if len(waits) < 50 {
			t.Errorf("%d different waits in an hour", len(waits))
		}
		z.set(servFailure)
		s.expect(33*time.Second, "gpu-1 eu active llama")
		z.asked()
		s.expect(10*time.Minute, "gpu-1 eu active llama")
		check(4500*time.Millisecond, 5500*time.Millisecond)
	})
}
