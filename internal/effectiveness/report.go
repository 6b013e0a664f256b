package effectiveness

import (
	"math"
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
	now, minutes := w.o.Now(), int(min(max(window, LeastWindow), MostWindow)/time.Minute)
	found := map[string]*sums{}
	for k, c := range *w.cells.Load() {
		if model != "" && model != k.model {
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

// Unknown is the effect of a strategy that did not decide.
func Unknown() Effect { return new(sums).effect() }

func (s *sums) effect() Effect {
	ratio := func(a, b kind) float64 {
		if s[b] == 0 {
			return math.NaN()
		}
		return float64(s[a]) / float64(s[b])
	}
	return Effect{
		Decisions: s[decisions], TTFT: ratio(observedTime, observed) / 1000,
		Regret: ratio(regretTime, compared), Compared: float64(s[compared]) / 1000,
		Predictions: s[predictions], Calibration: ratio(errorTime, comparedTime), Bias: ratio(predictedTime, comparedTime) - 1,
		Imbalance: ratio(requestsAbove, requestsSeen),
		Promises:  s[promises], Promised: s[promisedTokens], Delivered: s[deliveredTokens], Kept: s[keptTokens],
		Met: s[met], Missed: s[missed],
	}
}
