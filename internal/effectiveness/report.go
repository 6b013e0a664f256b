package effectiveness

import (
	"maps"
	"math"
	"slices"
	"time"
)

// Bounds of a window.
const (
	LeastWindow = time.Minute
	UsualWindow = 15 * time.Minute
	MostWindow  = span * time.Minute
)

// Effect is what placements of a strategy led to. What is not known is NaN.
type Effect struct {
	Decisions   int64   // that ended
	TTFT        float64 // ms, the mean time to the first token
	Regret      float64 // ms, the mean
	Compared    float64 // decisions that the regret is known of, as estimated of the samples
	Predictions int64   // decisions with a time to the first token and one that was expected
	Calibration float64 // the error of what was expected: Σ |expected − observed| / Σ observed
	Bias        float64 // Σ (expected − observed) / Σ observed
	Imbalance   float64 // the part of the requests in flight above an even share, 0 to 1
	Promises    int64   // decisions of which the head said what it had cached
	Promised    int64   // tokens of prompts that heads were expected to have cached
	Delivered   int64   // tokens that they had, promised or not
	Kept        int64   // tokens of those promised that they had
	Met, Missed int64   // decisions by the objective
	Refused     int64   // requests that the strategy refused
}

// Regret says little while what is expected is far from what is observed, or was
// compared with it too seldom.
const (
	MostCalibrationError = 0.5
	LeastPredictions     = 30
)

// Reliable reports whether the regret is reliable: what was expected is near
// enough to what was observed.
func (e *Effect) Reliable() bool {
	return e.Predictions >= LeastPredictions && e.Calibration <= MostCalibrationError
}

// Report is the effect of each strategy that decided within the last window, by
// name; of one model type, or with "" of all. A window begins with a minute.
func (w *Watch) Report(window time.Duration, model string) map[string]Effect {
	now, minutes := w.o.Now(), minutesOf(window)
	found := map[string]*sums{}
	for k, c := range *w.cells.Load() {
		if k.shadow != "" || model != "" && model != k.model {
			continue
		}
		if found[k.strategy] == nil {
			found[k.strategy] = new(sums)
		}
		c.last(found[k.strategy], now, minutes)
	}
	effects := make(map[string]Effect, len(found))
	for name, s := range found {
		effects[name] = s.effect()
	}
	return effects
}

func minutesOf(window time.Duration) int {
	return int(min(max(window, LeastWindow), MostWindow) / time.Minute)
}

// Unknown is the effect of a strategy that did not decide.
func Unknown() Effect { return new(sums).effect() }

// ratio is a as a part of b, NaN without b.
func (s *sums) ratio(a, b kind) float64 {
	if s[b] == 0 {
		return math.NaN()
	}
	return float64(s[a]) / float64(s[b])
}

func (s *sums) effect() Effect {
	ratio := s.ratio
	return Effect{
		Decisions: s[decisions], TTFT: ratio(observedTime, observed) / 1000,
		Regret: ratio(regretTime, compared), Compared: float64(s[compared]) / 1000,
		Predictions: s[predictions], Calibration: ratio(errorTime, comparedTime), Bias: ratio(predictedTime, comparedTime) - 1,
		Imbalance: ratio(requestsAbove, requestsSeen),
		Promises:  s[promises], Promised: s[promisedTokens], Delivered: s[deliveredTokens], Kept: s[keptTokens],
		Met: s[met], Missed: s[missed], Refused: s[refused],
	}
}

// Shadowed compares a strategy with another that was asked beside it.
type Shadowed struct {
	Strategy, Shadow     string
	Decisions            int64
	Agreement            float64 // the part of the decisions with the same head
	Regret, ShadowRegret float64 // ms, the means of the same decisions; NaN: not known
}

// Shadows compares the strategies that decided within the last window with those
// that were asked beside them, by their names; of one model type, or with "" of all.
func (w *Watch) Shadows(window time.Duration, model string) []Shadowed {
	now, minutes := w.o.Now(), minutesOf(window)
	found := map[key]*sums{}
	for k, c := range *w.cells.Load() {
		if k.shadow == "" || model != "" && model != k.model {
			continue
		}
		k.model = ""
		if found[k] == nil {
			found[k] = new(sums)
		}
		c.last(found[k], now, minutes)
	}
	list := make([]Shadowed, 0, len(found))
	for _, k := range slices.SortedFunc(maps.Keys(found), key.compare) {
		if s := found[k]; s[decisions] > 0 {
			list = append(list, Shadowed{
				Strategy: k.strategy, Shadow: k.shadow, Decisions: s[decisions], Agreement: s.ratio(agreed, decisions),
				Regret: s.ratio(regretTime, compared), ShadowRegret: s.ratio(shadowRegretTime, compared),
			})
		}
	}
	return list
}
