package decisionlog_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"headway/api"
	"headway/internal/decisionlog"
	"headway/internal/event"
	"headway/internal/fleet"
	"headway/internal/memstore"
	"headway/internal/policy"
	"headway/internal/registry"
	"headway/internal/routing"
	"headway/internal/strategy"
)

// world is a decision log of a real router.
type world struct {
	testing.TB
	log     *decisionlog.Log
	fleet   *registry.Registry
	router  *routing.Router
	metrics *prometheus.Registry
	said    *bytes.Buffer // by the log of the service
	passed  atomic.Int64  // ns by which the router's clock is ahead
}

// begun is when the clock of each router stands still, but for what a test lets pass.
var begun = time.Now()

func newWorld(t testing.TB, change func(*decisionlog.Options)) *world {
	t.Helper()
	w := &world{TB: t, metrics: prometheus.NewRegistry(), said: new(bytes.Buffer)}
	o := decisionlog.Options{MaxMemory: 1 << 20, MaxDisk: 1 << 20, Rate: 1e6, Metrics: w.metrics, Log: slog.New(slog.NewTextHandler(w.said, nil))}
	if change != nil {
		change(&o)
	}
	var err error
	w.log, err = decisionlog.New(o)
	check(t, err)
	metrics, quiet := prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	events := event.New(metrics)
	w.fleet, err = registry.New(registry.Options{Store: memstore.New(), Events: events, Metrics: metrics, Log: quiet, Lease: registry.LeaseOptions{BaseInterval: time.Hour}})
	check(t, err)
	check(t, w.fleet.Load(t.Context()))
	w.router, err = routing.New(routing.Options{
		Fleet: w.fleet, Policies: memstore.New(), Events: events, Metrics: metrics, Log: quiet, Seed: 1, Watchers: []routing.Watcher{w.log},
		Now: func() time.Time { return begun.Add(time.Duration(w.passed.Load())) },
	})
	check(t, err)
	p, faults := policy.Compile(policy.Document{DefaultStrategy: "random", CallerMay: []string{"strategy"}})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	_, err = w.router.Apply(t.Context(), routing.Change{Make: routing.To(p), Expect: routing.AnyRevision, Source: policy.SourceAPI})
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() { check(t, w.fleet.Run(ctx)) })
	t.Cleanup(func() { cancel(); wait.Wait() })
	return w
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) heads(n int) {
	w.Helper()
	for i := range n {
		spec := fleet.Spec{ID: fmt.Sprintf("head-%d", i), Endpoint: "http://127.0.0.1:9000", ModelTypes: []string{"m"}, Region: "us"}
		_, err := w.fleet.Register(w.Context(), spec, &fleet.StatusReport{Status: fleet.StatusActive, Load: fleet.UnknownLoad()})
		check(w, err)
	}
}

func (w *world) decide(req strategy.Request) *routing.Decision {
	w.Helper()
	req.ModelType = "m"
	w.passed.Add(int64(time.Microsecond)) // no two decisions are of one time
	d, err := w.router.Decide(&req)
	check(w, err)
	return d
}

// dropped is how many decisions were dropped for that reason.
func (w *world) dropped(reason string) float64 {
	w.Helper()
	families, err := w.metrics.Gather()
	check(w, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "headway_decision_log_dropped_total" && m.GetLabel()[0].GetValue() == reason {
				return m.GetCounter().GetValue()
			}
		}
	}
	w.Fatalf("nothing counts %s", reason)
	return 0
}

// counter is the value of a counter without labels.
func (w *world) counter(name string) float64 {
	w.Helper()
	families, err := w.metrics.Gather()
	check(w, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	w.Fatalf("there is no %s", name)
	return 0
}

// answered makes a decision whose request was answered.
func (w *world) answered(req strategy.Request) *routing.Decision {
	w.Helper()
	d := w.decide(req)
	w.router.Begun(d)
	w.router.End(d, routing.Outcome{
		Result: routing.ResultOK, StatusCode: 200, TTFT: 123.4567, Duration: 1000, InputTokens: 2000, OutputTokens: 7, CachedTokens: fleet.Unknown,
	})
	return d
}

func (w *world) read(q decisionlog.Query) []api.LoggedDecision {
	w.Helper()
	w.log.Drain()
	return records(w, func(yield func([]byte) error) error { return w.log.Read(w.Context(), q, yield) })
}

func records(t testing.TB, read func(func([]byte) error) error) (list []api.LoggedDecision) {
	t.Helper()
	check(t, read(func(line []byte) error {
		var d api.LoggedDecision
		if err := json.Unmarshal(line, &d); err != nil {
			t.Errorf("the line %s: %v", line, err)
		}
		list = append(list, d)
		return nil
	}))
	return list
}

func readDir(t testing.TB, dir string) []api.LoggedDecision {
	t.Helper()
	return records(t, func(yield func([]byte) error) error {
		return decisionlog.ReadDir(t.Context(), dir, decisionlog.Query{}, yield, func(decisionlog.Damage) {})
	})
}

// A line has what the decision saw, and neither the session key, nor hashes by which a
// text could be found.
func TestALineHasWhatTheDecisionSaw(t *testing.T) {
	w := newWorld(t, nil)
	w.heads(3)
	hashes := []uint64{1 << 60, 2 << 60}
	d := w.answered(strategy.Request{Region: "us", SessionKey: "alice@example.org", PrefixHashes: hashes, PromptBytes: 600, InputTokens: 150, Strategy: "adaptive"})
	list := w.read(decisionlog.Query{})
	if len(list) != 1 {
		t.Fatalf("%d lines, want 1", len(list))
	}
	r := list[0]
	if r.DecisionID != d.ID() || r.ModelType != "m" || r.Region != "us" || r.Strategy != "adaptive" || r.Head != d.Head.ID || r.Share != 1 || r.PolicyRevision != 1 || !r.At.Equal(d.At) {
		t.Errorf("the decision is %+v", r)
	}
	if r.InputTokens != 150 || r.PromptBytes != 600 || len(r.Blocks) != 2 || r.BlockTokens != 0 {
		t.Errorf("the prompt is %+v", r)
	}
	if r.Propensity == nil || *r.Propensity != 0.33333 || r.Candidates != 3 || len(r.Heads) != 3 || r.Heads[0].Cost == nil || r.Heads[0].UncachedTokens != 150 || r.Heads[0].Slower != 1 {
		t.Errorf("the heads are %+v, propensity %v", r.Heads, r.Propensity)
	}
	if o := r.Outcome; o == nil || o.Result != "ok" || *o.StatusCode != 200 || *o.TTFTMs != 123.46 || *o.OutputTokens != 7 || o.CachedTokens != nil {
		t.Errorf("the outcome is %+v", r.Outcome)
	}
	public := []uint64{strategy.SessionHash("alice@example.org", "m"), hashes[0], hashes[1]}
	for i, kept := range []string{r.Session, r.Blocks[0], r.Blocks[1]} {
		if n, err := strconv.ParseUint(kept, 16, 64); err != nil || len(kept) != 16 || n == public[i] {
			t.Errorf("%q stands for %x: it must be another hash, %v", kept, public[i], err)
		}
	}
	other := newWorld(t, nil)
	other.heads(1)
	other.answered(strategy.Request{SessionKey: "alice@example.org"})
	if again := other.read(decisionlog.Query{}); again[0].Session == r.Session {
		t.Error("two runs have the same hash of a session")
	}
}

// A head's weight is in the log unless it is the usual one.
func TestALineHasWeights(t *testing.T) {
	w := newWorld(t, nil)
	w.heads(3)
	weight := 0.25
	_, err := w.fleet.Patch(t.Context(), "head-1", registry.Patch{Weight: &weight})
	check(t, err)
	d := w.answered(strategy.Request{})
	for _, h := range w.read(decisionlog.Query{})[0].Heads {
		if want := map[string]float64{"head-1": 0.25}[h.ID]; h.Weight != want {
			t.Errorf("of the decision %s head %s has the weight %v, want %v", d.ID(), h.ID, h.Weight, want)
		}
	}
}

// A decision is in the log before it ends, and once when it ended.
func TestADecisionUnderWayIsRead(t *testing.T) {
	w := newWorld(t, nil)
	w.heads(1)
	d := w.decide(strategy.Request{})
	if list := w.read(decisionlog.Query{}); len(list) != 1 || list[0].Outcome != nil {
		t.Fatalf("under way: %+v", list)
	}
	w.router.End(d, routing.Outcome{Result: routing.ResultError, StatusCode: 500, TTFT: -1, Duration: -1})
	w.router.End(d, routing.Outcome{Result: routing.ResultOK})
	list := w.read(decisionlog.Query{})
	if len(list) != 1 || list[0].Outcome == nil || list[0].Outcome.Result != "error" || list[0].Outcome.TTFTMs != nil {
		t.Fatalf("ended: %+v", list)
	}
}

// The time of a whole answer is not logged as that of its first token.
func TestAWholeAnswerHasNoFirstToken(t *testing.T) {
	w := newWorld(t, nil)
	w.heads(1)
	d := w.decide(strategy.Request{})
	w.router.Answered(d)
	w.router.End(d, routing.Outcome{Result: routing.ResultOK, TTFT: 900, Duration: 901, Whole: true})
	if o := w.read(decisionlog.Query{})[0].Outcome; o == nil || o.TTFTMs != nil || o.DurationMs == nil || *o.DurationMs != 901 {
		t.Errorf("%+v", o)
	}
}

func TestTheWorstAreFound(t *testing.T) {
	w := newWorld(t, nil)
	w.heads(4)
	random := rand.New(rand.NewPCG(1, 1))
	for i := range 400 {
		tokens := 100 + random.Int64N(4000)
		d := w.decide(strategy.Request{InputTokens: tokens, PrefixHashes: []uint64{random.Uint64N(20), uint64(i)}})
		w.passed.Add(int64(5*time.Millisecond) + tokens*int64(50*time.Microsecond))
		if i%3 > 0 {
			w.router.Begun(d)
			w.router.End(d, routing.Outcome{Result: routing.ResultOK, CachedTokens: fleet.Unknown})
		}
	}
	var all []float64
	for _, d := range w.read(decisionlog.Query{}) {
		if d.RegretMs != nil {
			all = append(all, *d.RegretMs)
			if best := decisionlog.Best(&d); *d.RegretMs > 1 && (best == nil || best.ID == d.Head || !strings.Contains(decisionlog.Why(&d), "random does not compare heads")) {
				t.Errorf("a regret of %v ms at %s, and the best head is %+v: %s", *d.RegretMs, d.Head, best, decisionlog.Why(&d))
			}
		}
	}
	slices.Sort(all)
	slices.Reverse(all)
	if len(all) < 100 || all[0] <= 0 {
		t.Fatalf("%d of 400 decisions have a regret, the most is %v", len(all), all[:min(len(all), 1)])
	}
	worst := w.read(decisionlog.Query{Limit: 10, Worst: true})
	for i := range worst {
		if *worst[i].RegretMs != all[i] {
			t.Errorf("the worst but %d has a regret of %v, want %v", i, *worst[i].RegretMs, all[i])
		}
	}
	newest := w.read(decisionlog.Query{Limit: 5})
	if len(worst) != 10 || len(newest) != 5 || !slices.IsSortedFunc(newest, func(a, b api.LoggedDecision) int { return a.At.Compare(b.At) }) {
		t.Errorf("%d worst, the newest are %+v", len(worst), newest)
	}
	if got := w.read(decisionlog.Query{Since: newest[1].At, Until: newest[4].At}); len(got) != 3 {
		t.Errorf("%d decisions of a time that has 3", len(got))
	}
}

func TestFilesOutlastTheProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	inDir := func(o *decisionlog.Options) { o.Dir = dir }
	w := newWorld(t, inDir)
	w.heads(2)
	w.answered(strategy.Request{})
	w.log.Drain()
	w.log.Flush()
	w.answered(strategy.Request{})
	w.decide(strategy.Request{})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	check(t, w.log.Run(ended)) // writes what is left, also of what has not ended
	if list := readDir(t, dir); len(list) != 3 {
		t.Fatalf("%d decisions in files, want 3", len(list))
	}
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		if info, _ := f.Info(); info.Mode() != 0o600 {
			t.Errorf("%s has the mode %v", f.Name(), info.Mode())
		}
	}
	if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 || len(files) != 1 {
		t.Errorf("%d files in a directory of mode %v", len(files), info.Mode())
	}
	again := newWorld(t, inDir)
	again.heads(1)
	for i := range 3 {
		again.answered(strategy.Request{})
		again.log.Drain()
		if i < 2 {
			again.log.Flush()
		}
		if list := again.read(decisionlog.Query{}); len(list) != 4+i {
			t.Errorf("%d decisions, want those of the run before and %d", len(list), i+1)
		}
	}
}

// What a process that was killed had written is read as far as it goes, and what is
// damaged is left out, said, and no more than that.
func TestATornFileIsRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	w := newWorld(t, func(o *decisionlog.Options) { o.Dir = dir })
	w.heads(1)
	for range 3 {
		for range 100 {
			w.answered(strategy.Request{PrefixHashes: []uint64{rand.Uint64(), rand.Uint64()}, InputTokens: 100})
		}
		w.log.Drain()
		w.log.Flush()
	}
	files, _ := os.ReadDir(dir)
	path := filepath.Join(dir, files[0].Name())
	whole, err := os.ReadFile(path)
	check(t, err)
	header := []byte{0x1f, 0x8b, 8}
	second, third := 1+bytes.Index(whole[1:], header), bytes.LastIndex(whole, header)
	zeroed := func(at int) []byte { return slices.Concat(whole[:at], make([]byte, 50), whole[at+50:]) }
	for _, c := range []struct {
		what        string
		text        []byte
		least, most int
		from, to    int // of what is damaged
	}{
		{"nothing is wrong", whole, 300, 300, 0, 0},
		{"a part is torn", whole[:len(whole)-len(whole)/10], 200, 299, third, len(whole) - len(whole)/10},
		{"the header of a part is torn", whole[:third+6], 200, 200, third, third + 6},
		{"something else behind it", append(slices.Clone(whole), "garbage, and more of it"...), 300, 300, len(whole), len(whole) + 23},
		{"bytes of the first part are wrong", zeroed(100), 200, 299, 0, second},
		{"bytes of the second part are wrong", zeroed(second + 2000), 200, 299, second, third},
		{"the header of the second part is wrong", zeroed(second), 200, 200, second, third},
		{"a long part of something else", slices.Concat(whole[:third], bytes.Repeat(header, 43_689), whole[third:]), 300, 300, third, third + 3*43_689},
		{"nothing", nil, 0, 0, 0, 0},
	} {
		check(t, os.WriteFile(path, c.text, 0o600))
		var damage []decisionlog.Damage
		list := records(t, func(yield func([]byte) error) error {
			return decisionlog.ReadDir(t.Context(), dir, decisionlog.Query{}, yield, func(d decisionlog.Damage) { damage = append(damage, d) })
		})
		if len(list) < c.least || len(list) > c.most {
			t.Errorf("%s: %d decisions are read, want %d to %d", c.what, len(list), c.least, c.most)
		}
		var want []decisionlog.Damage
		if c.to > 0 {
			want = []decisionlog.Damage{{File: path, From: int64(c.from), Bytes: int64(c.to - c.from)}}
		}
		if !slices.Equal(damage, want) {
			t.Errorf("%s: damaged is %+v, want %+v", c.what, damage, want)
		}
	}
}

func TestTheLogIsBounded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	const most = 64 << 10
	w := newWorld(t, func(o *decisionlog.Options) { o.Dir, o.MaxDisk, o.MaxMemory = dir, most, most/4 })
	w.heads(8)
	var made []string
	for range 40 {
		for range 20 {
			d := w.answered(strategy.Request{PrefixHashes: []uint64{rand.Uint64(), rand.Uint64(), rand.Uint64()}, InputTokens: 100})
			if d.Sampled() {
				made = append(made, d.ID())
			}
		}
		w.log.Drain()
		w.log.Flush()
	}
	size, files := int64(0), 0
	check(t, filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if info, _ := d.Info(); d.Type().IsRegular() {
			size += info.Size()
			files++
		}
		return err
	}))
	if size > most || size < most/2 || files < 8 {
		t.Errorf("%d files have %d bytes, want up to %d", files, size, most)
	}
	var left []string
	for _, d := range w.read(decisionlog.Query{}) {
		left = append(left, d.DecisionID)
	}
	if n := len(left); n < 100 || n > len(made)-10 || !slices.Equal(left, made[len(made)-n:]) {
		t.Errorf("%d of %d decisions are left; want the newest of them", n, len(made))
	}
	bound := `
# HELP headway_decision_log_disk_bytes Size of the files of the decision log.
# TYPE headway_decision_log_disk_bytes gauge
headway_decision_log_disk_bytes %d
`
	if err := testutil.GatherAndCompare(w.metrics, strings.NewReader(fmt.Sprintf(bound, size)), "headway_decision_log_disk_bytes"); err != nil {
		t.Error(err)
	}
}

// A disk that takes nothing takes nothing from the memory, and is said once.
func TestADiskThatFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	w := newWorld(t, func(o *decisionlog.Options) { o.Dir = dir })
	w.heads(1)
	write := func(n int) {
		for range n {
			w.answered(strategy.Request{})
			w.log.Drain()
			w.log.Flush()
		}
	}
	check(t, os.RemoveAll(dir))
	check(t, os.WriteFile(dir, nil, 0o600)) // no directory
	write(3)
	if n := strings.Count(w.said.String(), "cannot be written"); n != 1 {
		t.Errorf("it was said %d times: %s", n, w.said)
	}
	check(t, os.Remove(dir))
	check(t, os.Mkdir(dir, 0o700))
	write(2)
	if list := w.read(decisionlog.Query{}); len(list) != 5 {
		t.Errorf("%d decisions in memory and files, want 5", len(list))
	}
	if list := readDir(t, dir); len(list) != 2 || strings.Count(w.said.String(), "again") != 1 {
		t.Errorf("%d decisions in files, want 2; it was said: %s", len(list), w.said)
	}
}

func TestADiskThatIsNearlyFullIsLeftToOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	w := newWorld(t, func(o *decisionlog.Options) { o.Dir, o.MinFree = dir, math.MaxInt64/2 })
	w.heads(1)
	w.answered(strategy.Request{})
	w.log.Drain()
	w.log.Flush()
	if list := readDir(t, dir); len(list) != 0 || len(w.read(decisionlog.Query{})) != 1 {
		t.Errorf("%d decisions in files, %d in all; want them in memory alone", len(list), len(w.read(decisionlog.Query{})))
	}
}

// No decision waits while nothing writes the log: what is too much is counted.
func TestDecisionsDoNotWaitForTheLog(t *testing.T) {
	w := newWorld(t, nil)
	w.heads(1)
	const n = 3000
	for range n {
		w.answered(strategy.Request{})
	}
	kept := len(w.read(decisionlog.Query{}))
	dropped := fmt.Sprintf(`
# HELP headway_decision_log_dropped_total Decisions that were to be in the decision log and are not: too many were under way (open), or too many ended at once (queue).
# TYPE headway_decision_log_dropped_total counter
headway_decision_log_dropped_total{reason="open"} 0
headway_decision_log_dropped_total{reason="queue"} %d
`, n-kept)
	if err := testutil.GatherAndCompare(w.metrics, strings.NewReader(dropped), "headway_decision_log_dropped_total"); err != nil || kept == 0 || kept == n {
		t.Errorf("%d of %d are in the log: %v", kept, n, err)
	}
}

// Beyond the rate each decision has the same chance, and lines say which.
func TestTheRateIsKept(t *testing.T) {
	takes := decisionlog.Sampling(100)
	random := rand.New(rand.NewPCG(1, 1))
	at := time.Now()
	for second, wanted := range []int{50, 100, 1000, 5000, 5000, 80} {
		taken, stands := 0., 0.
		for i := range wanted {
			share, ok := takes(at.Add(time.Duration(i)*time.Second/time.Duration(wanted)), random.Float64())
			if ok {
				taken++
				stands += 1 / share
			}
		}
		at = at.Add(time.Second)
		most := 100. + 40
		if wanted > 100 && second < 4 { // it grew
			most = 100 * (2 + math.Log(float64(wanted)/100))
		}
		if taken > most || wanted <= 100 && second < 2 && taken != float64(wanted) || math.Abs(stands-float64(wanted)) > 0.4*float64(wanted)+30 {
			t.Errorf("second %d: %v of %d are taken, which stand for %.0f", second, taken, wanted, stands)
		}
	}
}

// Beyond the rate lines say which share of the decisions they are, so that all together
// stand for all there were.
func TestLinesStandForAllDecisions(t *testing.T) {
	w := newWorld(t, func(o *decisionlog.Options) { o.Rate = 100 })
	w.heads(1)
	const n = 1000 // at once
	for range n {
		w.answered(strategy.Request{})
	}
	list, stands := w.read(decisionlog.Query{}), 0.
	for _, d := range list {
		stands += 1 / d.Share
	}
	if len(list) > n/2 || math.Abs(stands-n) > 600 {
		t.Errorf("%d lines stand for %.0f decisions of %d", len(list), stands, n)
	}
}

// A line is in a file ten seconds after the first that waits, however few there are.
func TestLinesAreWrittenSoon(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	var passed time.Duration
	w := newWorld(t, func(o *decisionlog.Options) {
		o.Dir, o.Now = dir, func() time.Time { return begun.Add(passed) }
	})
	w.heads(1)
	w.answered(strategy.Request{})
	w.log.Drain()
	for _, c := range []struct {
		after time.Duration
		lines int
	}{{9 * time.Second, 0}, {time.Second, 1}} {
		passed += c.after
		w.log.Look()
		if list := readDir(t, dir); len(list) != c.lines {
			t.Errorf("after %v %d lines are in files, want %d", passed, len(list), c.lines)
		}
	}
}

// What an earlier run logged is read also where the clock was set back since.
func TestAClockThatWasSetBackHidesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	for run, clock := range []time.Duration{0, -time.Hour} {
		w := newWorld(t, func(o *decisionlog.Options) {
			o.Dir, o.Now = dir, func() time.Time { return time.Now().Add(clock) }
		})
		w.heads(1)
		for range 2 {
			w.answered(strategy.Request{})
			w.log.Drain()
			w.log.Flush()
		}
		if list := w.read(decisionlog.Query{}); len(list) != 2*(run+1) {
			t.Errorf("%d decisions are read, want %d", len(list), 2*(run+1))
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		check(t, w.log.Run(ended))
	}
}

// Of many heads the best are kept, and those that matter among them.
func TestOfManyHeadsTheBestAreKept(t *testing.T) {
	w := newWorld(t, nil)
	w.heads(100)
	for range 20 {
		d := w.answered(strategy.Request{Strategy: "least_loaded"})
		list := w.read(decisionlog.Query{Limit: 1})
		if r := list[0]; r.Candidates != 100 || len(r.Heads) != 64 || decisionlog.Chosen(&r) == nil || r.DecisionID != d.ID() {
			t.Fatalf("%d candidates, %d heads, %s chosen", r.Candidates, len(r.Heads), r.Head)
		}
	}
}

// Of a fleet of 100,000 heads a line has 64, and no more are copied for it.
func TestALineOfALargeFleetIsBounded(t *testing.T) {
	w := newWorld(t, nil)
	w.heads(1)
	d := w.decide(strategy.Request{})
	random := rand.New(rand.NewPCG(1, 1))
	s := &routing.Sample{Decision: d, At: d.At, Share: 1, Heads: make([]routing.Seen, 100_000), Chosen: 77_777, Best: 33_333}
	for i := range s.Heads {
		head := &fleet.Head{Spec: fleet.Spec{ID: strconv.Itoa(i), Weight: 1}}
		s.Heads[i] = routing.Seen{Seen: strategy.Seen{Head: head, Predicted: 100 + random.Float64()}, Cost: random.Float64()}
	}
	s.Heads[77_777].Head, s.Heads[77_777].Cost = d.Head, 2
	s.Heads[33_333].Predicted, s.Heads[33_333].Cost = 1, 3
	costs := []float64{}
	for i := range s.Heads {
		costs = append(costs, s.Heads[i].Cost)
	}
	slices.Sort(costs)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w.log.Sampled(s)
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 256<<10 {
		t.Errorf("a line takes %d bytes", took)
	}
	list := w.read(decisionlog.Query{})
	r := list[len(list)-1]
	if r.Candidates != 100_000 || len(r.Heads) != 64 || r.Heads[0].ID != d.Head.ID || r.Heads[1].ID != "33333" {
		t.Fatalf("%d candidates, %d heads, the first are %+v", r.Candidates, len(r.Heads), r.Heads[:2])
	}
	for i, h := range r.Heads[2:] {
		if *h.Cost != decisionlog.Figures(costs[i]) {
			t.Fatalf("number %d of the least costs is %v, want %v", i, *h.Cost, costs[i])
		}
	}
}

// What decisions take that have not ended, or are not written, is bounded, long prompts
// too.
func TestDecisionsUnderWayAreBounded(t *testing.T) {
	w := newWorld(t, nil)
	w.heads(1)
	const most = 160 << 10
	w.log.Hold(most)
	prompt := make([]uint64, 100)
	for i := range prompt {
		prompt[i] = rand.Uint64()
	}
	var open []*routing.Decision
	for range 300 {
		open = append(open, w.decide(strategy.Request{PrefixHashes: prompt, InputTokens: 50_000}))
	}
	if held, dropped := w.log.Held(), w.dropped("open"); held > most || held < most*9/10 || dropped < 140 || dropped > 220 {
		t.Errorf("%d bytes of %d are held, %v of 300 decisions dropped", held, most, dropped)
	}
	for _, d := range open {
		w.router.End(d, routing.Outcome{Result: routing.ResultOK})
	}
	if held := w.log.Held(); held < most*9/10 {
		t.Errorf("%d bytes are held of what is not written yet", held)
	}
	w.log.Drain()
	if held := w.log.Held(); held != 0 {
		t.Errorf("%d bytes are held of nothing", held)
	}
}

// An outcome that is reported after the reservation's time is that of the line, within
// five minutes.
func TestALateOutcomeIsLogged(t *testing.T) {
	var w *world
	w = newWorld(t, func(o *decisionlog.Options) {
		o.Now = func() time.Time { return begun.Add(time.Duration(w.passed.Load())) }
	})
	w.heads(1)
	const late, never = 0, 1
	made := []*routing.Decision{w.decide(strategy.Request{}), w.decide(strategy.Request{})}
	pass := func(d time.Duration) {
		w.passed.Add(int64(d))
		w.router.Expire()
		w.log.Look()
	}
	outcomes := func() (list []string) {
		for _, d := range made {
			for _, r := range w.read(decisionlog.Query{}) {
				if r.DecisionID == d.ID() && r.Outcome != nil {
					list = append(list, fmt.Sprintf("%s %v", r.Outcome.Result, r.Outcome.Late))
				}
			}
		}
		return list
	}
	for range 10 { // a reservation ends by steps
		pass(time.Minute)
		if len(outcomes()) == 2 {
			break
		}
	}
	if got := outcomes(); !slices.Equal(got, []string{"expired false", "expired false"}) {
		t.Fatalf("after their time the outcomes are %q", got)
	}
	pass(4 * time.Minute)
	w.router.End(made[late], routing.Outcome{Result: routing.ResultOK})
	if got := outcomes(); !slices.Equal(got, []string{"ok true", "expired false"}) {
		t.Errorf("an outcome came late: %q", got)
	}
	pass(time.Minute)
	w.router.End(made[never], routing.Outcome{Result: routing.ResultOK})
	if got := outcomes(); !slices.Equal(got, []string{"ok true", "expired false"}) {
		t.Errorf("an outcome came too late: %q", got)
	}
	if held := w.log.Held(); held != 0 {
		t.Errorf("%d bytes are held of nothing", held)
	}
}

// Where decisions that were not reported take much room, none waits for its outcome.
func TestLateOutcomesAreNotWaitedForAtAnyCost(t *testing.T) {
	w := newWorld(t, nil)
	w.heads(1)
	const most = 160 << 10
	w.log.Hold(most)
	var last *routing.Decision
	for range 300 {
		last = w.decide(strategy.Request{PrefixHashes: make([]uint64, 100), InputTokens: 50_000})
		w.router.End(last, routing.Outcome{Result: routing.ResultExpired})
		w.log.Drain()
	}
	if held := w.log.Held(); held < most/3 || held > most*2/3 {
		t.Errorf("%d bytes of %d are held", held, most)
	}
	if n := w.log.Waiting(); n == 0 || w.counter("headway_decision_log_unawaited_total") != float64(300-n) {
		t.Errorf("%d of 300 wait, and %v are counted that do not", n, w.counter("headway_decision_log_unawaited_total"))
	}
	w.router.End(last, routing.Outcome{Result: routing.ResultOK})
	if r := w.read(decisionlog.Query{Limit: 1})[0]; r.DecisionID != last.ID() || r.Outcome.Result != "expired" {
		t.Errorf("the last one is %s with %+v", r.DecisionID, r.Outcome)
	}
}

// One that was reported late, or is not waited for any more, takes no room.
func TestWhatWasReportedLateTakesNoRoom(t *testing.T) {
	w := newWorld(t, func(o *decisionlog.Options) { o.Now = func() time.Time { return begun } })
	w.heads(1)
	var waiting []*routing.Decision
	for range 100 {
		waiting = append(waiting, w.decide(strategy.Request{}))
	}
	for _, d := range waiting {
		w.router.End(d, routing.Outcome{Result: routing.ResultExpired})
	}
	if n := w.log.Waiting(); n != 100 {
		t.Fatalf("%d of 100 wait for an outcome", n)
	}
	for _, d := range waiting {
		w.router.End(d, routing.Outcome{Result: routing.ResultOK})
		w.log.Drain()
	}
	if n, held := w.log.Waiting(), w.log.Held(); n != 0 || held != 0 {
		t.Errorf("%d decisions wait, with %d bytes", n, held)
	}
	if n := w.counter("headway_decision_log_unawaited_total"); n != 0 {
		t.Errorf("%v decisions are counted as not waited for", n)
	}
}

// While the log is written and read at once, each decision is read once.
func TestReadingBesideWriting(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	w := newWorld(t, func(o *decisionlog.Options) { o.Dir, o.MaxMemory = dir, 4<<10 })
	w.heads(1)
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() {
		for range 60 {
			for range 10 {
				w.answered(strategy.Request{PrefixHashes: []uint64{rand.Uint64()}, InputTokens: 100})
			}
			w.log.Drain()
			w.log.Flush()
		}
		cancel()
	})
	for ctx.Err() == nil {
		seen := map[string]bool{}
		err := w.log.Read(t.Context(), decisionlog.Query{}, func(line []byte) error {
			var d api.LoggedDecision
			check(t, json.Unmarshal(line, &d))
			if seen[d.DecisionID] {
				t.Errorf("%s is there twice", d.DecisionID)
			}
			seen[d.DecisionID] = true
			return nil
		})
		check(t, err)
	}
	wait.Wait()
	if list := w.read(decisionlog.Query{}); len(list) != 600 {
		t.Errorf("%d decisions of 600", len(list))
	}
}

func TestWhy(t *testing.T) {
	number := func(v float64) *float64 { return &v }
	head := func(id string, predicted, cost, ahead, uncached, slower, kv float64) api.LoggedHead {
		return api.LoggedHead{ID: id, PredictedMs: number(predicted), Cost: number(cost), AheadTokens: ahead, UncachedTokens: uncached, Slower: slower, KVUse: kv}
	}
	best := head("best", 100, 20, 50, 100, 1, 0.1)
	for _, c := range []struct {
		chosen api.LoggedHead
		want   string
	}{
		{head("chosen", 900, 10, 8000, 100, 1, 0.1), "8000 tokens ahead against 50; s saw a lower cost, 10 against 20"},
		{head("chosen", 900, 20, 50, 3000, 1, 0.1), "3000 tokens of the prompt not cached against 100; s saw the same cost, 20"},
		{head("chosen", 900, 30, 50, 100, 2, 0.9), "2 times as slow as the pool against 1, KV cache 90% full against 10%; s took it by chance, its cost was 30 against 20"},
		{head("chosen", 101, 10, 51, 100, 1, 0.1), "small differences add up; s saw a lower cost, 10 against 20"},
		{head("best", 100, 20, 50, 100, 1, 0.1), "it was the best one"},
		{head("other", 100, 20, 50, 100, 1, 0.1), "the head was not among those compared"},
	} {
		d := api.LoggedDecision{Strategy: "s", Head: "chosen", Heads: []api.LoggedHead{c.chosen, best}}
		if c.chosen.ID == "best" {
			d.Head = "best"
		}
		if got := decisionlog.Why(&d); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	unknown := api.LoggedDecision{Head: "a", Heads: []api.LoggedHead{{ID: "a"}}}
	if got := decisionlog.Why(&unknown); got != "too little is known of the pool" {
		t.Errorf("nothing is predicted: %q", got)
	}
}

func TestNumbersHaveFiveFigures(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 123456: "123456", 0.1 + 0.2: "0.3", 1. / 3: "0.33333", -2. / 3: "-0.66667", 123456.789: "123460", 1e-9 / 3: "3.3333e-10", 98765.4: "98765",
	} {
		if got := strconv.FormatFloat(decisionlog.Figures(v), 'g', -1, 64); got != want {
			t.Errorf("%v becomes %s, want %s", v, got, want)
		}
	}
	if decisionlog.Figures(math.NaN()) != 0 || decisionlog.Figures(math.Inf(1)) != 0 {
		t.Error("what is no number is not 0")
	}
}

func TestWhatALogNeeds(t *testing.T) {
	if _, err := decisionlog.New(decisionlog.Options{}); err == nil {
		t.Error("a log of nothing")
	}
}

// Without files the log is as long as the memory that it may take.
func TestTheMemoryIsBounded(t *testing.T) {
	const most = 16 << 10
	w := newWorld(t, func(o *decisionlog.Options) { o.MaxMemory = most })
	w.heads(8)
	for range 40 {
		for range 20 {
			w.answered(strategy.Request{PrefixHashes: []uint64{rand.Uint64(), rand.Uint64()}, InputTokens: 100})
		}
		w.log.Drain()
		w.log.Flush()
	}
	list := w.read(decisionlog.Query{})
	if n := len(list); n < 40 || n > 400 {
		t.Errorf("%d of 800 decisions are in a memory of %d bytes", n, most)
	}
	found, err := w.metrics.Gather()
	check(t, err)
	for _, f := range found {
		if f.GetName() == "headway_decision_log_memory_bytes" && (f.GetMetric()[0].GetGauge().GetValue() > most || f.GetMetric()[0].GetGauge().GetValue() < most/4) {
			t.Errorf("the metric says %v bytes", f.GetMetric()[0].GetGauge().GetValue())
		}
	}
}
