package decisionlog

import (
	"encoding/json"
	"fmt"
	"math"
	randv2 "math/rand/v2"
	"strconv"

	"headway/api"
	"headway/internal/fleet"
	"headway/internal/prefix"
	"headway/internal/routing"
)

func random() float64 { return randv2.Float64() }

// appendLine appends the line of a decision.
func (l *Log) appendLine(b []byte, e *entry) ([]byte, error) {
	line, err := json.Marshal(l.record(e))
	if err != nil {
		return b, fmt.Errorf("write a decision: %w", err)
	}
	return append(append(b, line...), '\n'), nil
}

func (l *Log) record(e *entry) *api.LoggedDecision {
	d := e.decision
	r := &api.LoggedDecision{
		At: e.at.UTC(), RegretMs: rounded(e.regret), DecisionID: d.ID(), ModelType: d.ModelType, Region: d.Region, Strategy: d.Strategy,
		PolicyRevision: d.PolicyRevision, Share: *rounded(e.share), InputTokens: int64(e.tokens), PromptBytes: e.bytes, BlockTokens: e.perBlock,
		Head: d.Head.ID, Propensity: rounded(e.chance), Candidates: e.count, Heads: make([]api.LoggedHead, len(e.heads)),
	}
	if e.session != 0 {
		session := []uint64{e.session}
		l.session.Apply(session, 0, new(prefix.Scratch))
		r.Session = hexadecimal(session[0])
	}
	for _, b := range e.blocks {
		r.Blocks = append(r.Blocks, hexadecimal(b))
	}
	for i := range e.heads {
		h := &e.heads[i]
		r.Heads[i] = api.LoggedHead{
			ID: h.Head.ID, Region: h.Head.Region, Cost: rounded(h.Cost), PredictedMs: rounded(h.Predicted),
			AheadTokens: figures(h.Ahead), UncachedTokens: figures(h.Uncached), Requests: figures(h.Requests), KVUse: figures(h.KV), Slower: figures(h.Slower),
			Weight: weight(h.Head), Unavailable: math.IsInf(h.Cost, 1),
		}
	}
	if e.outcome != nil {
		r.Outcome = outcome(e.outcome)
		r.Outcome.Late = e.late
	}
	return r
}

// weight is a head's weight, 0 for the usual one.
func weight(h *fleet.Head) float64 {
	if h.Weight == 1 {
		return 0
	}
	return figures(h.Weight)
}

func outcome(o *routing.Outcome) *api.LoggedOutcome {
	logged := &api.LoggedOutcome{
		Result: o.Result.String(), StatusCode: known(o.StatusCode), DurationMs: measured(o.Duration),
		InputTokens: known(o.InputTokens), OutputTokens: known(o.OutputTokens), CachedTokens: known(o.CachedTokens),
	}
	if ms, ok := o.FirstToken(); ok {
		logged.TTFTMs = rounded(ms)
	}
	return logged
}

func known(n int64) *int64 {
	if n == fleet.Unknown || n < 0 {
		return nil
	}
	return &n
}

func measured(ms float64) *float64 {
	if ms < 0 {
		return nil
	}
	return rounded(ms)
}

// rounded is v, nil where it is no number.
func rounded(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	v = figures(v)
	return &v
}

// figures is v with five figures, and 0 where it is no number.
func figures(v float64) float64 {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	if v == math.Trunc(v) && math.Abs(v) < 1e9 {
		return v
	}
	unit := math.Pow(10, math.Floor(math.Log10(math.Abs(v)))-4)
	if unit < 1 { // by the inverse, which is whole and so leaves no digits behind the last one
		return math.Round(v*math.Round(1/unit)) / math.Round(1/unit)
	}
	return math.Round(v/unit) * unit
}

func hexadecimal(n uint64) string {
	s := strconv.FormatUint(n, 16)
	return "0000000000000000"[len(s):] + s
}
