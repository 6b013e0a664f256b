package routing

import (
	"container/heap"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/event"
	"headway/internal/fleet"
	"headway/internal/memstore"
	"headway/internal/strategy"
)

// The herd: replicas of the router that share heads but not their counts. 100
// equal heads of 8 slots, requests that take 1 s on average (exponential),
// 80 % load; heads report their true number of requests at intervals. A rule
// that sends all requests to the head that looked best in the last report makes a
// herd, and the mean response of 1 s grows to several.
const (
	herdHeads    = 100
	herdSlots    = 8
	herdLoad     = 0.8
	herdRequests = 40_000
	herdWarmUp   = 8_000
)

// herdHead is a head's queue: what runs and what waits.
type herdHead struct {
	running int
	waiting []herdRequest
}

type herdRequest struct {
	arrived time.Duration
	service time.Duration
	done    func() // reports the end to the replica; nil: it is not reported
}

type herdEvent struct {
	at  time.Duration
	run func()
}

type herdQueue []herdEvent

func (q herdQueue) Len() int           { return len(q) }
func (q herdQueue) Less(i, j int) bool { return q[i].at < q[j].at }
func (q herdQueue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *herdQueue) Push(x any)        { *q = append(*q, x.(herdEvent)) } //nolint:forcetypeassert // heap's own
func (q *herdQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

// herd simulates one rule. Each replica is a real Router over its own fleet of
// the same heads.
type herd struct {
	rand     *rand.Rand
	now      time.Duration
	queue    herdQueue
	heads    [herdHeads]herdHead
	replicas []*Router
	fleets   []*herdFleet
	total    time.Duration
	counted  int
	late     time.Duration // of reports
}

// herdFleet is one replica's view of the heads.
type herdFleet struct {
	snapshot *fleet.Snapshot
	reports  []func(requests int64)
}

func (f *herdFleet) Snapshot() *fleet.Snapshot { return f.snapshot }

var herdEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newHerd(t *testing.T, replicas int, tracked bool, limit int64, seed uint64) *herd {
	t.Helper()
	h := &herd{rand: rand.New(rand.NewPCG(seed, 1))}
	for i := range replicas {
		f := &herdFleet{}
		var joined []fleet.Step
		for n := range herdHeads {
			live, id := new(fleet.Live), fmt.Sprintf("h%03d", n)
			live.ForgetReport()
			for i := 0; tracked && i < 200; i++ {
				live.ReportedLate()
			}
			joined = append(joined, fleet.Step{Next: &fleet.Head{
				Spec:   fleet.Spec{ID: id, ModelTypes: []string{"m"}, Region: "r", Weight: 1, MaxInFlight: limit},
				Status: fleet.StatusActive, Health: fleet.HealthFresh, Hash: fleet.HashID(id), Instance: uint64(n + 1), Live: live,
			}})
			f.reports = append(f.reports, func(requests int64) {
				load := fleet.UnknownLoad()
				load.InFlight = requests
				live.TakeReport(&load, herdEpoch.Add(h.now), limit, time.Second, 0)
			})
		}
		f.snapshot, _ = new(fleet.Snapshot).With(joined)
		reg := prometheus.NewRegistry()
		events := event.New(reg)
		r, err := New(Options{
			Policies: memstore.New(),
			Fleet:    f, Events: events, Metrics: reg, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
			Now: func() time.Time { return herdEpoch.Add(h.now) }, Seed: seed + uint64(i) + 1, Recent: 1 << 12,
		})
		if err != nil {
			t.Fatal(err)
		}
		h.replicas, h.fleets = append(h.replicas, r), append(h.fleets, f)
	}
	return h
}

func (h *herd) at(delay time.Duration, run func()) {
	heap.Push(&h.queue, herdEvent{h.now + delay, run})
}

func (h *herd) exponential(mean time.Duration) time.Duration {
	return time.Duration(h.rand.ExpFloat64() * float64(mean))
}

// run returns the mean response in seconds.
func (h *herd) run(t *testing.T, strategy string, reportEvery time.Duration, outcomes bool) float64 {
	t.Helper()
	for id := range h.heads {
		var report func()
		report = func() {
			requests := int64(h.heads[id].running + len(h.heads[id].waiting))
			h.at(h.late, func() {
				for _, f := range h.fleets {
					f.reports[id](requests)
				}
			})
			h.at(time.Duration(float64(reportEvery)*(0.9+0.2*h.rand.Float64())), report)
		}
		h.at(time.Duration(h.rand.Float64()*float64(reportEvery)), report)
	}
	between := time.Duration(float64(time.Second) / (herdLoad * herdHeads * herdSlots))
	arrivals := 0
	var arrive func()
	arrive = func() {
		h.arrive(t, strategy, outcomes, arrivals >= herdWarmUp)
		if arrivals++; arrivals < herdRequests {
			h.at(h.exponential(between), arrive)
		}
	}
	h.at(0, arrive)
	for len(h.queue) > 0 && arrivals < herdRequests {
		e, _ := heap.Pop(&h.queue).(herdEvent)
		h.now = e.at
		e.run()
	}
	return h.total.Seconds() / float64(h.counted)
}

func (h *herd) arrive(t *testing.T, name string, outcomes, counts bool) {
	t.Helper()
	r := h.replicas[h.rand.IntN(len(h.replicas))]
	d, err := r.Decide(&strategy.Request{ModelType: "m", Strategy: name, SessionKey: fmt.Sprint(h.rand.Uint64())})
	if err != nil {
		t.Fatal(err)
	}
	var id int
	if _, err := fmt.Sscanf(d.Head.ID, "h%d", &id); err != nil {
		t.Fatal(err)
	}
	head := &h.heads[id]
	req := herdRequest{arrived: h.now, service: h.exponential(time.Second)}
	req.done = func() {
		if outcomes {
			r.End(d, Outcome{Result: ResultOK})
		}
		if counts {
			h.total += h.now - req.arrived
			h.counted++
		}
	}
	if head.running == herdSlots {
		head.waiting = append(head.waiting, req)
		return
	}
	h.start(head, req)
}

func (h *herd) start(head *herdHead, req herdRequest) {
	head.running++
	h.at(req.service, func() {
		head.running--
		req.done()
		if len(head.waiting) > 0 {
			next := head.waiting[0]
			head.waiting = head.waiting[1:]
			h.start(head, next)
		}
	})
}

// No strategy may be worse than chance where ten replicas share reports that
// come every 5 s, whether callers report outcomes or not.
func TestNoStrategyMakesAHerd(t *testing.T) {
	if testing.Short() {
		t.Skip("simulates two million requests")
	}
	settings := []struct {
		name     string
		replicas int
		every    time.Duration
	}{
		{"1 replica, 1 s", 1, time.Second},
		{"10 replicas, 1 s", 10, time.Second},
		{"10 replicas, 5 s", 10, 5 * time.Second},
	}
	strategies := strategyNames()
	if raceEnabled { // ten times slower, and the race detector has nothing to find here
		settings, strategies = settings[2:], []string{"adaptive", "least_loaded"}
	}
	out := tabwriter.NewWriter(t.Output(), 0, 0, 2, ' ', 0)
	defer func() { _ = out.Flush() }()
	for _, outcomes := range []bool{true, false} {
		fmt.Fprintf(out, "outcomes reported: %v\n", outcomes)
		byChance := map[string]float64{}
		for _, name := range append([]string{"random"}, strategies...) {
			fmt.Fprintf(out, "  %s", name)
			for i, s := range settings {
				mean := newHerd(t, s.replicas, outcomes, 0, 7).run(t, name, s.every, outcomes)
				fmt.Fprintf(out, "\t%s %.2f", s.name, mean)
				if name == "random" {
					byChance[s.name] = mean
				}
				last := i == len(settings)-1
				if last && mean > 1.03*byChance[s.name] {
					t.Errorf("%s with outcomes=%v: mean response %.2f s with %s; by chance %.2f s", name, outcomes, mean, s.name, byChance[s.name])
				}
				if name == "least_loaded" && outcomes && mean > 1.10 {
					t.Errorf("least_loaded with outcomes: mean response %.2f s with %s; want at most 1.10 s", mean, s.name)
				}
				if math.IsNaN(mean) {
					t.Errorf("%s: nothing was measured", name)
				}
			}
			fmt.Fprintln(out)
		}
	}
}

// Reports that count our own requests as they were a second ago, of which most
// have ended since, are no load of others: counting them twice must not
// make heads swing between too much and too little.
func TestNoStrategyMakesAHerdOfLateReports(t *testing.T) {
	strategies := []string{"least_loaded", "power_of_two", "session_affinity"}
	if raceEnabled {
		strategies = strategies[:1]
	}
	for _, replicas := range []int{1, 2} {
		for _, strategy := range strategies {
			h := newHerd(t, replicas, true, 0, 7)
			h.late = time.Second
			if mean := h.run(t, strategy, time.Second, true); mean > 1.15 {
				t.Errorf("%s, %d replicas, reports late by 1 s: mean response %.2f s; want at most 1.15 s", strategy, replicas, mean)
			}
		}
	}
}

// Nor may any where heads say that they are full: ten routers that all turn away
// from a head at once fill the others.
func TestNoStrategyMakesAHerdOfFullHeads(t *testing.T) {
	strategies := strategyNames()
	if raceEnabled {
		strategies = []string{"round_robin"} // which full heads harm most
	}
	chance := newHerd(t, 10, true, 0, 7).run(t, "random", 5*time.Second, true)
	for _, limit := range []int64{herdSlots, herdSlots * 5 / 4} {
		for _, strategy := range strategies {
			mean := newHerd(t, 10, true, limit, 7).run(t, strategy, 5*time.Second, true)
			t.Logf("max_in_flight %d, %s: %.2f s", limit, strategy, mean)
			if mean > 1.03*chance {
				t.Errorf("%s, max_in_flight %d: mean response %.2f s; by chance %.2f s", strategy, limit, mean, chance)
			}
		}
	}
}

// Ten routers that see the same differences in the reports even out a tenth each.
func TestNoStrategyMakesAHerdOfTen(t *testing.T) {
	for _, strategy := range []string{"least_loaded", "geo_preferred"} {
		if mean := newHerd(t, 10, true, 0, 3).run(t, strategy, time.Second, true); mean > 1.10 {
			t.Errorf("%s: mean response %.2f s; want at most 1.10 s", strategy, mean)
		}
	}
}

func strategyNames() (names []string) {
	for _, s := range strategy.Specs() {
		names = append(names, s.Name)
	}
	return names
}
