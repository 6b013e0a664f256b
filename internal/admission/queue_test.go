package admission_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"headway/internal/admission"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// desk is an Admission with places that are taken and given back.
type desk struct {
	*admission.Admission
	registry *prometheus.Registry
	mu       sync.Mutex
	free     map[string]int // by lane
	served   []string       // callers in the order in which they got a place
	ends     sync.WaitGroup
}

func newDesk(t testing.TB, most int) *desk {
	t.Helper()
	d := &desk{registry: prometheus.NewRegistry(), free: map[string]int{}}
	var err error
	d.Admission, err = admission.New(admission.Options{Metrics: d.registry, MaxWaiting: most, MaxWait: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *desk) take(caller, lane string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.free[lane] == 0 {
		return false
	}
	d.free[lane]--
	d.served = append(d.served, caller)
	return true
}

// give gives places of a lane, and says so once.
func (d *desk) give(lane string, n int) {
	d.mu.Lock()
	d.free[lane] += n
	d.mu.Unlock()
	d.Freed("m")
}

func (d *desk) order() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.served)
}

// waits starts a request that waits, and returns how it ends.
func (d *desk) waits(ctx context.Context, caller string, change ...func(*admission.Request)) <-chan error {
	r := admission.Request{Pool: "m", Caller: admission.Caller{ID: caller}, Priority: admission.Normal}
	for _, c := range change {
		c(&r)
	}
	end := make(chan error, 1)
	d.ends.Go(func() {
		end <- d.Wait(ctx, &r, func() bool { return d.take(caller, r.Lane) })
	})
	synctest.Wait()
	return end
}

func of(p admission.Priority) func(*admission.Request) {
	return func(r *admission.Request) { r.Priority = p }
}

func in(lane string) func(*admission.Request) {
	return func(r *admission.Request) { r.Lane = lane }
}

func weighing(w int64) func(*admission.Request) {
	return func(r *admission.Request) { r.Caller.Weight = w }
}

func (d *desk) waiting(t testing.TB) (sum float64) {
	t.Helper()
	families, err := d.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "headway_admission_waiting" {
			for _, m := range f.GetMetric() {
				sum += m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func TestPlacesAreGivenInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 100)
		for i := range 5 {
			d.waits(t.Context(), fmt.Sprint("n", i))
		}
		d.waits(t.Context(), "low", of(admission.Low))
		d.waits(t.Context(), "high", of(admission.High))
		if !d.Busy("m") || d.Busy("other") || d.waiting(t) != 7 {
			t.Errorf("busy %t and %t, %v wait", d.Busy("m"), d.Busy("other"), d.waiting(t))
		}
		d.give("", 1)
		synctest.Wait()
		if got := d.order(); !slices.Equal(got, []string{"high"}) {
			t.Fatalf("one place went to %v", got)
		}
		d.give("", 2) // a head with several places joined: all of them are given
		synctest.Wait()
		d.mu.Lock()
		d.free[""] = 10
		d.mu.Unlock()
		d.Changed()
		d.ends.Wait()
		if got := d.order(); !slices.Equal(got, []string{"high", "n0", "n1", "n2", "n3", "n4", "low"}) {
			t.Errorf("places went to %v", got)
		}
		if d.Busy("m") || d.waiting(t) != 0 {
			t.Error("the queue is not empty")
		}
	})
}

// A place that came free between a caller's own look and its joining is not lost.
func TestWhoJoinsAnEmptyQueueLooksOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 1)
		d.mu.Lock()
		d.free[""] = 1
		d.mu.Unlock()
		if err := <-d.waits(t.Context(), "a"); err != nil {
			t.Errorf("the end is %v", err)
		}
	})
}

func TestWhoLeavesLeavesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 3)
		ctx, leave := context.WithCancel(t.Context())
		gone := d.waits(ctx, "gone")
		late := d.waits(t.Context(), "late")
		began := time.Now()
		leave()
		synctest.Wait()
		if err := <-gone; !errors.Is(err, context.Canceled) || time.Since(began) != 0 || d.waiting(t) != 1 {
			t.Errorf("%v after %v, %v wait", err, time.Since(began), d.waiting(t))
		}
		if err := <-late; !errors.Is(err, admission.ErrTimeout) || time.Since(began) != 30*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		d.ends.Wait()
		if d.waiting(t) != 0 || d.Busy("m") {
			t.Error("the queue is not empty")
		}
	})
}

// Requests that need another region's place do not hold those up that find one.
func TestALaneWithoutAPlaceBlocksNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 100)
		for range 3 {
			d.waits(t.Context(), "eu", in("eu"))
		}
		us := d.waits(t.Context(), "us", in("us"), of(admission.Low))
		d.give("us", 1)
		if err := <-us; err != nil {
			t.Fatal(err)
		}
		d.give("eu", 3)
		d.ends.Wait()
		if got := d.order(); !slices.Equal(got, []string{"us", "eu", "eu", "eu"}) {
			t.Errorf("places went to %v", got)
		}
	})
}

func TestAFullQueueKeepsThoseOfHigherRank(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 4)
		low := d.waits(t.Context(), "a", of(admission.Low))
		hog := []<-chan error{d.waits(t.Context(), "hog"), d.waits(t.Context(), "hog"), d.waits(t.Context(), "hog")}
		heavy := d.waits(t.Context(), "b") // takes the place of the low one
		if err := <-low; !errors.Is(err, admission.ErrFull) {
			t.Errorf("the low one ended with %v", err)
		}
		if err := <-d.waits(t.Context(), "hog"); !errors.Is(err, admission.ErrFull) {
			t.Errorf("one more of the same caller: %v", err)
		}
		d.waits(t.Context(), "c") // the last of who waits with most gives way
		if err := <-hog[2]; !errors.Is(err, admission.ErrFull) {
			t.Errorf("the last of the hog ended with %v", err)
		}
		if err := <-d.waits(t.Context(), "d", of(admission.Low)); !errors.Is(err, admission.ErrFull) {
			t.Errorf("one of a lower class: %v", err)
		}
		d.give("", 4)
		d.ends.Wait()
		for _, end := range []<-chan error{hog[0], hog[1], heavy} {
			if err := <-end; err != nil {
				t.Error(err)
			}
		}
		refused, err := testutil.GatherAndCount(d.registry, "headway_admission_refused_total")
		if err != nil || refused != 4 {
			t.Errorf("%d series of refusals, %v", refused, err)
		}
	})
}

func TestAQueueOfOneIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 1)
		low := d.waits(t.Context(), "a", of(admission.Low))
		high := d.waits(t.Context(), "b", of(admission.High))
		if err := <-low; !errors.Is(err, admission.ErrFull) {
			t.Errorf("the low one ended with %v", err)
		}
		d.give("", 1)
		if err := <-high; err != nil {
			t.Error(err)
		}
		d.ends.Wait()
	})
}

func TestWithoutAQueueNoRequestWaits(t *testing.T) {
	d := newDesk(t, 0)
	err := d.Wait(t.Context(), &admission.Request{Pool: "m"}, func() bool { t.Error("it has a turn"); return true })
	if !errors.Is(err, admission.ErrFull) {
		t.Errorf("the end is %v", err)
	}
}

// A panic in a turn passes the turn on.
func TestAPanicPassesTheTurnOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 10)
		d.ends.Go(func() {
			defer func() { _ = recover() }()
			_ = d.Wait(t.Context(), &admission.Request{Pool: "m"}, func() bool {
				d.mu.Lock()
				defer d.mu.Unlock()
				if d.free[""] > 0 {
					panic("a fault")
				}
				return false
			})
		})
		synctest.Wait()
		other := d.waits(t.Context(), "other")
		d.give("", 1)
		if err := <-other; err != nil {
			t.Error(err)
		}
		d.ends.Wait()
	})
}

// Callers that always have requests waiting get places in proportion to their
// weights.
func TestPlacesAreSharedByWeight(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		weights := rapid.SliceOfN(rapid.Int64Range(1, 10), 2, 6).Draw(rt, "weights")
		places := rapid.IntRange(1, 5).Draw(rt, "places")
		seed := rapid.Uint64().Draw(rt, "seed")
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			d := newDesk(t, 1000)
			ctx, end := context.WithCancel(t.Context())
			for i, w := range weights {
				for range 60 { // more than all places
					d.ends.Go(func() {
						caller := fmt.Sprint(i)
						r := admission.Request{Pool: "m", Caller: admission.Caller{ID: caller, Weight: w}, Priority: admission.Normal}
						_ = d.Wait(ctx, &r, func() bool { return d.take(caller, "") })
					})
				}
			}
			synctest.Wait()
			for range 20 { // these leave without a place, which costs their caller nothing
				other, leave := context.WithCancel(ctx)
				i := random.IntN(len(weights))
				d.waits(other, fmt.Sprint(i), weighing(weights[i]))
				leave()
			}
			synctest.Wait()
			for range 10 {
				d.give("", places)
				synctest.Wait()
			}
			end()
			d.ends.Wait()
			checkShares(t, d.order(), weights)
		})
	})
}

// A caller that comes while another has been served for long does not get all places
// first.
func TestWhoJoinsLateStartsWithTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 100)
		for range 20 {
			d.waits(t.Context(), "a")
		}
		d.give("", 10)
		synctest.Wait()
		for range 10 {
			d.waits(t.Context(), "b")
		}
		d.give("", 4)
		synctest.Wait()
		if got := d.order()[10:]; !slices.Equal(got, []string{"b", "a", "b", "a"}) {
			t.Errorf("places went to %v", got)
		}
		d.give("", 100)
		d.ends.Wait()
	})
}

// checkShares compares each prefix of what was served with the shares, as long as
// all callers still wait.
func checkShares(t *testing.T, served []string, weights []int64) {
	t.Helper()
	count, sum := map[string]int{}, 0.0
	for _, w := range weights {
		sum += float64(w)
	}
	for n, caller := range served {
		count[caller]++
		for i, w := range weights {
			share := float64(n+1) * float64(w) / sum
			if diff := float64(count[fmt.Sprint(i)]) - share; math.Abs(diff) > float64(len(weights)) {
				t.Fatalf("after %d places caller %d of weight %d has %d of %.1f (weights %v)", n+1, i, w, count[fmt.Sprint(i)], share, weights)
			}
		}
	}
}

// Many that join, leave, get places and give them back at once: no place is lost,
// no request is left behind, and never do more hold a place than there are.
func TestNoPlaceIsLostUnderLoad(t *testing.T) {
	const places, callers, each = 4, 40, 50
	d := newDesk(t, 25)
	d.free[""] = places
	var held, placed, left, full atomic.Int64
	var all sync.WaitGroup
	for c := range callers {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(c), 7))
			for range each {
				ctx, cancel := context.WithCancel(t.Context())
				if random.IntN(4) == 0 {
					go cancel()
				}
				r := admission.Request{Pool: "m", Priority: admission.Priority(random.IntN(3)), Caller: admission.Caller{ID: fmt.Sprint(c % 7), Weight: int64(c%3 + 1)}}
				err := d.Wait(ctx, &r, func() bool { return d.take("", "") })
				switch {
				case err == nil:
					placed.Add(1)
					if n := held.Add(1); n > places {
						t.Errorf("%d hold a place", n)
					}
					runtime.Gosched()
					held.Add(-1)
					d.give("", 1)
				case errors.Is(err, admission.ErrFull):
					full.Add(1)
				case errors.Is(err, context.Canceled):
					left.Add(1)
				default:
					t.Error(err)
				}
				cancel()
			}
		})
	}
	all.Wait()
	if d.free[""] != places || d.waiting(t) != 0 || d.Busy("m") || placed.Load() == 0 {
		t.Errorf("%d places are free of %d, %v wait, %d were placed, %d left, %d were refused", d.free[""], places, d.waiting(t), placed.Load(), left.Load(), full.Load())
	}
}

// What a waiting request takes beside its goroutine, its timer and its connection.
func TestAWaitingRequestIsSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 10_000
		d := newDesk(t, n)
		ctx, end := context.WithCancel(t.Context())
		heap := func() uint64 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc + m.StackInuse
		}
		before := heap()
		for i := range n {
			d.ends.Go(func() {
				r := admission.Request{Pool: "m", Caller: admission.Caller{ID: fmt.Sprint(i % 1000)}, Priority: admission.Normal}
				_ = d.Wait(ctx, &r, func() bool { return d.take("", "") })
			})
		}
		synctest.Wait()
		each := float64(heap()-before) / n
		t.Logf("%.0f bytes of each of %d waiting requests, stack of the goroutine included", each, n)
		if each > 6<<10 {
			t.Errorf("a waiting request takes %.0f bytes", each)
		}
		end()
		d.ends.Wait()
	})
}
