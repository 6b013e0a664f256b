// Package effectiveness measures what placements lead to, by strategy and model
// type: how soon requests had their first token, how much sooner another head was
// expected to be, and whether what was expected is what came.
package effectiveness

import (
	"cmp"
	"errors"
	"maps"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/fleet"
	"headway/internal/routing"
	"headway/internal/strategy"
)

// Options are what a Watch is made of.
type Options struct {
	Known     *strategy.Known       // required; of the router that is watched
	Metrics   prometheus.Registerer // required
	Now       func() time.Time
	Objective Objective // zero: 2 s and 3
}

// Objective is the time within which a request should have its first token.
type Objective struct {
	Least  time.Duration // however short the prompt
	Factor float64       // of what a head without other requests is expected to take, nothing of the prompt cached
}

// maxCells bounds the pairs of strategy and model type with counts of their own, and
// those of shadows with them. Beyond
// them the model type counts as other.
const maxCells = 200

const other = "other"

type key struct {
	strategy, model string
	shadow          string // that was asked beside; "": the strategy itself
}

// Watch implements routing.Watcher. All methods are safe for concurrent use; none
// takes a lock but for a pair of strategy and model type that is new.
type Watch struct {
	o       Options
	metrics *metrics
	cells   atomic.Pointer[map[key]*cell]
	mu      sync.Mutex // guards the making of cells
}

// New makes a Watch.
func New(o Options) (*Watch, error) {
	if o.Known == nil || o.Metrics == nil {
		return nil, errors.New("effectiveness: Known and Metrics are required")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Objective = cmp.Or(o.Objective, Objective{2 * time.Second, 3})
	w := &Watch{o: o, metrics: newMetrics()}
	w.cells.Store(&map[key]*cell{})
	return w, o.Metrics.Register(w)
}

// cell is where to count.
func (w *Watch) cell(k key) *cell {
	if _, c := find(*w.cells.Load(), k); c != nil {
		return c
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	old := *w.cells.Load()
	k, c := find(old, k)
	if c != nil {
		return c
	}
	next := maps.Clone(old)
	k.model = strings.Clone(k.model) // it may be of a registration that is not kept
	next[k] = new(cell)
	w.cells.Store(&next)
	return next[k]
}

// find is where k counts, and the cell that is there already.
func find(cells map[key]*cell, k key) (key, *cell) {
	c := cells[k]
	if c == nil && len(cells) >= maxCells {
		k.model = other
		c = cells[k]
	}
	return k, c
}

// Sampled implements routing.Watcher.
func (w *Watch) Sampled(s *routing.Sample) {
	n := w.cell(key{s.Decision.Strategy, s.Decision.ModelType, ""}).at(s.At)
	weight := 1 / s.Share
	if regret := s.Regret(); !math.IsNaN(regret) {
		n.add(compared, weighed(1, weight))
		n.add(regretTime, weighed(regret, weight))
	}
	if requests, above := uneven(s.Heads); requests > 0 {
		n.add(requestsSeen, weighed(requests, weight))
		n.add(requestsAbove, weighed(above, weight))
	}
	for i := range s.Shadows {
		w.shadowed(s, &s.Shadows[i])
	}
}

// shadowed compares what another strategy would have chosen with what was. Of
// samples each one is as likely to be compared, so that they count alike.
func (w *Watch) shadowed(s *routing.Sample, other *routing.Shadow) {
	n := w.cell(key{s.Decision.Strategy, s.Decision.ModelType, other.Strategy}).at(s.At)
	n.add(decisions, 1)
	if other.Head == s.Decision.Head {
		n.add(agreed, 1)
	}
	if regret := s.Regret(); !math.IsNaN(regret) && !math.IsNaN(other.Regret) {
		n.add(compared, 1000)
		n.add(regretTime, microseconds(regret))
		n.add(shadowRegretTime, microseconds(other.Regret))
	}
}

// weighed is a value of a sample for as many decisions as the sample stands for,
// in thousandths.
func weighed(v, weight float64) int64 { return int64(math.Round(1000 * v * weight)) }

// uneven returns the requests in flight at the heads, and how many of them are above
// an even share by the heads' weights, rounded up: those that would have to be
// elsewhere for the heads to be even.
func uneven(heads []routing.Seen) (requests, above float64) {
	weights := 0.
	for i := range heads {
		requests += heads[i].Requests
		weights += heads[i].Head.Weight
	}
	for i := range heads {
		h := &heads[i]
		above += max(0, h.Requests-math.Ceil(requests*h.Head.Weight/weights))
	}
	return requests, above
}

// Ended implements routing.Watcher.
func (w *Watch) Ended(d *routing.Decision, o *routing.Outcome, late bool) {
	at := o.At
	if at.IsZero() { // it made room for another
		at = w.o.Now()
	}
	n := w.cell(key{d.Strategy, d.ModelType, ""}).at(at)
	if !late {
		n.add(decisions, 1)
	}
	switch {
	case o.Blames():
		n.add(missed, 1)
	case o.Result == routing.ResultOK || o.Result == routing.ResultCancelled:
		w.firstToken(n, d, o)
		delivered(n, d, o)
	}
}

// Refused implements routing.Watcher.
func (w *Watch) Refused(by, modelType string, at time.Time) {
	w.cell(key{by, modelType, ""}).at(at).add(refused, 1)
}

// firstToken compares the time to the first token with what was expected and with
// the objective.
func (w *Watch) firstToken(n counter, d *routing.Decision, o *routing.Outcome) {
	took, ok := o.FirstToken()
	if at := d.FirstTokenAt(); took <= 0 && !at.IsZero() {
		took, ok = float64(at.Sub(d.At))/float64(time.Millisecond), !o.Whole
	}
	if took <= 0 {
		return
	}
	if !ok { // the first token came no later than the whole answer, and when is not known
		if took <= w.objective(d) {
			n.add(met, 1)
		}
		return
	}
	n.add(observed, 1)
	n.add(observedTime, microseconds(took))
	if expected := d.Predicted(); !math.IsNaN(expected) {
		n.add(predictions, 1)
		n.add(predictedTime, microseconds(expected))
		n.add(comparedTime, microseconds(took))
		n.add(errorTime, microseconds(math.Abs(expected-took)))
	}
	if took <= w.objective(d) {
		n.add(met, 1)
	} else {
		n.add(missed, 1)
	}
}

// microseconds is a time in ms as it is counted. A head that says it took years counts
// with a day.
func microseconds(ms float64) int64 { return int64(1000 * min(ms, 24*3600*1000)) }

// objective is the longest time to the first token in ms that meets the objective.
func (w *Watch) objective(d *routing.Decision) float64 {
	least := float64(w.o.Objective.Least) / float64(time.Millisecond)
	if p := w.o.Known.Paces()[d.ModelType]; p != nil {
		if alone := w.o.Objective.Factor * p.Alone(float64(d.Work().Tokens)); alone > least {
			return alone
		}
	}
	return least
}

// delivered compares what of the prompt the head had cached with what was promised.
func delivered(n counter, d *routing.Decision, o *routing.Outcome) {
	work := d.Work()
	if o.CachedTokens == fleet.Unknown || work.Tokens == 0 {
		return
	}
	promised := int64(work.Tokens - work.New)
	n.add(promises, 1)
	n.add(promisedTokens, promised)
	n.add(deliveredTokens, o.CachedTokens)
	n.add(keptTokens, min(promised, o.CachedTokens))
}
