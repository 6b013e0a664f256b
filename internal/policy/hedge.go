package policy

import (
	"strconv"
	"time"

	"headway/internal/fleet"
	"headway/internal/strict"
)

// Hedge says when the data plane sends a request to a second head, since the first
// has not begun to answer. Exactly one of AfterMs and Quantile is given.
type Hedge struct {
	AfterMs    float64  `json:"after_ms,omitzero"`     // 1 to maxHedgeMs
	Quantile   float64  `json:"quantile,omitzero"`     // of what first contents took lately: minQuantile to maxQuantile
	ModelTypes []string `json:"model_types,omitempty"` // patterns; none: all
}

const (
	maxHedgeMs      = 600_000
	minQuantile     = 0.5
	maxQuantile     = 0.999
	maxHedgedModels = 100
)

// After is the time without content after which a request is hedged; 0: see
// Quantile.
func (h *Hedge) After() time.Duration { return time.Duration(h.AfterMs * float64(time.Millisecond)) }

// HedgeOf is how requests of a model type are hedged, nil: they are not.
func (p *Policy) HedgeOf(modelType string) *Hedge {
	if p.Document.Hedge == nil || len(p.hedged) == 0 {
		return p.Document.Hedge
	}
	for _, g := range p.hedged {
		if g.Match(modelType) {
			return p.Document.Hedge
		}
	}
	return nil
}

func (c *compiler) hedge() {
	h := c.doc.Hedge
	if h == nil {
		return
	}
	switch {
	case (h.AfterMs == 0) == (h.Quantile == 0):
		c.faults.Add("/hedge", "want either after_ms or quantile")
	case h.AfterMs != 0 && !(h.AfterMs >= 1 && h.AfterMs <= maxHedgeMs):
		c.faults.Add("/hedge/after_ms", "want a time from 1 to %d ms, not %v", maxHedgeMs, h.AfterMs)
	case h.Quantile != 0 && !(h.Quantile >= minQuantile && h.Quantile <= maxQuantile):
		c.faults.Add("/hedge/quantile", "want a share from %v to %v, not %v", minQuantile, maxQuantile, h.Quantile)
	}
	if n := len(h.ModelTypes); n > maxHedgedModels {
		c.faults.Add("/hedge/model_types", "%d patterns; at most %d are allowed", n, maxHedgedModels)
	}
	for i, m := range h.ModelTypes[:min(len(h.ModelTypes), maxHedgedModels)] {
		c.policy.hedged = append(c.policy.hedged, c.pattern(m, fleet.ModelTypeCharacters, fleet.MaxModelTypeLength, "/hedge/model_types/"+strconv.Itoa(i)))
	}
}

func readHedge(r *strict.Reader) *Hedge {
	var h Hedge
	r.Fields(map[string]func(){
		"after_ms":    func() { h.AfterMs, _, _ = r.Decimal() },
		"quantile":    func() { h.Quantile, _, _ = r.Decimal() },
		"model_types": func() { r.Texts(0, &h.ModelTypes) },
	})
	return &h
}
