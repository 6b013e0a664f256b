package decisionlog

import (
	"fmt"
	"strings"

	"headway/api"
)

// Best is the head of a decision with the least predicted time to the first token, of
// those that were available; nil: nothing is predicted.
func Best(d *api.LoggedDecision) (best *api.LoggedHead) {
	for i := range d.Heads {
		h := &d.Heads[i]
		if h.PredictedMs != nil && !h.Unavailable && (best == nil || *h.PredictedMs < *best.PredictedMs) {
			best = h
		}
	}
	return best
}

// Chosen is the head that a decision chose, nil if it is not among those compared.
func Chosen(d *api.LoggedDecision) *api.LoggedHead {
	for i := range d.Heads {
		if d.Heads[i].ID == d.Head {
			return &d.Heads[i]
		}
	}
	return nil
}

// Parts by which a head must be worse to be named as a reason.
const (
	moreTokens = 64
	moreTimes  = 1.05
	moreKV     = 0.1
)

// Why says by which terms the chosen head was predicted to answer later than the best
// one, and why the strategy took it nevertheless.
func Why(d *api.LoggedDecision) string {
	chosen, best := Chosen(d), Best(d)
	switch {
	case chosen == nil:
		return "the head was not among those compared"
	case best == nil:
		return "too little is known of the pool"
	case chosen.ID == best.ID:
		return "it was the best one"
	}
	var terms []string
	term := func(worse bool, format string, args ...any) {
		if worse {
			terms = append(terms, fmt.Sprintf(format, args...))
		}
	}
	term(chosen.AheadTokens-best.AheadTokens > moreTokens, "%.0f tokens ahead against %.0f", chosen.AheadTokens, best.AheadTokens)
	term(chosen.UncachedTokens-best.UncachedTokens > moreTokens, "%.0f tokens of the prompt not cached against %.0f", chosen.UncachedTokens, best.UncachedTokens)
	term(chosen.Slower > moreTimes*best.Slower, "%.2g times as slow as the pool against %.2g", chosen.Slower, best.Slower)
	term(chosen.KVUse-best.KVUse > moreKV, "KV cache %.0f%% full against %.0f%%", 100*chosen.KVUse, 100*best.KVUse)
	if len(terms) == 0 {
		terms = append(terms, "small differences add up")
	}
	return strings.Join(terms, ", ") + "; " + despite(d.Strategy, chosen, best)
}

// despite says why a strategy took a head that another would have beaten.
func despite(strategy string, chosen, best *api.LoggedHead) string {
	switch {
	case chosen.Cost == nil || best.Cost == nil:
		return strategy + " does not compare heads"
	case *chosen.Cost < *best.Cost:
		return fmt.Sprintf("%s saw a lower cost, %.4g against %.4g", strategy, *chosen.Cost, *best.Cost)
	case *chosen.Cost == *best.Cost:
		return fmt.Sprintf("%s saw the same cost, %.4g", strategy, *chosen.Cost)
	}
	return fmt.Sprintf("%s took it by chance, its cost was %.4g against %.4g", strategy, *chosen.Cost, *best.Cost)
}
