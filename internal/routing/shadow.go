package routing

import (
	"math"

	"headway/internal/fleet"
)

// Shadow is what another strategy would have chosen for a sampled decision.
type Shadow struct {
	Strategy string
	Head     *fleet.Head // nil: none
	Regret   float64     // as Sample.Regret; NaN: unknown, as of a head of another tier
}

// shadow lets the strategies that the policy names choose from what the decision
// sees, for the share of decisions that the policy says. Nothing is reserved, counted
// or remembered, and the decision is the same as without.
func (r *Router) shadow(p *Sample, c *choice, s *scratch) {
	others := c.policy.Shadows()
	if len(others) == 0 {
		return
	}
	in := &s.in
	before, last := in.Before(), s.last
	in.Shadow(0)
	if in.Rand.Float64()*p.Share >= c.policy.ShadowShare() && r.shadowed.Swap(true) { // the first is compared, so that there is one
		in.Restore(&before)
		return
	}
	other := *c
	other.rehearsed = true
	for i := range others {
		if others[i].Spec.Name == c.plan.Spec.Name {
			continue
		}
		other.plan.Instance = others[i]
		in.Restore(&before)
		in.Shadow(i + 1)
		of := Shadow{Strategy: others[i].Spec.Name}
		if pick, n := r.place(&other, s); n > 0 {
			of.Head = s.picks[pick].Head
		}
		p.Shadows = append(p.Shadows, of)
		s.last = last
	}
	in.Restore(&before)
}

// compareShadows finds the regret of what others would have chosen.
func (p *Sample) compareShadows() {
	for i := range p.Shadows {
		p.Shadows[i].Regret = math.NaN()
		for j := range p.Heads {
			if p.Heads[j].Head == p.Shadows[i].Head && p.Best >= 0 {
				p.Shadows[i].Regret = p.Heads[j].Predicted - p.Heads[p.Best].Predicted
			}
		}
	}
}
