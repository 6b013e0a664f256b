package policy

import (
	"cmp"
	"slices"
	"strconv"

	"headway/internal/strategy"
	"headway/internal/strict"
)

// Bounds of Document.ShadowShare, and what it is where a document does not say.
const (
	leastShadowShare = 0.01
	usualShadowShare = 0.02
	mostShadowShare  = 0.05
)

// Shadows are the strategies that are asked beside those that decide.
func (p *Policy) Shadows() []Instance { return p.shadows }

// ShadowShare is the part of the decisions for which they are asked.
func (p *Policy) ShadowShare() float64 { return cmp.Or(p.Document.ShadowShare, usualShadowShare) }

// shadow makes the strategies that are asked beside those that decide.
func (c *compiler) shadow() {
	names := c.doc.Shadow
	if len(names) > strategy.MaxShadows {
		c.faults.Add("/shadow", "%d strategies; at most %d are allowed", len(names), strategy.MaxShadows)
		names = names[:strategy.MaxShadows]
	}
	for i, name := range names {
		at := "/shadow/" + strconv.Itoa(i)
		var plan Plan
		switch {
		case slices.Contains(names[:i], name):
			c.faults.Add(at, "%s is named twice", strict.Quote(name))
		case c.alwaysDecides(name):
			c.faults.Add(at, "%s decides for every request itself; name others", strict.Quote(name))
		default:
			c.choose(&plan, name, nil, at, "")
			c.policy.shadows = append(c.policy.shadows, plan.Instance)
		}
	}
}

// alwaysDecides reports whether every request is served by the strategy, unless its
// caller chooses another.
func (c *compiler) alwaysDecides(name string) bool {
	return name == c.doc.DefaultStrategy && !slices.ContainsFunc(c.doc.Rules, func(r Rule) bool { return r.Strategy != name })
}
