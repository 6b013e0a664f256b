package policy

import (
	"slices"
	"strconv"

	"headway/internal/fleet"
	"headway/internal/strict"
)

// Fallback says where the requests that match go if their model type has no head
// for them, or no place.
type Fallback struct {
	Match Match    `json:"match"`
	To    []Target `json:"to"` // tried in this order; 1 to maxTargets
}

// Target is another model type, another region, or both. What is left out stays as
// requested.
type Target struct {
	ModelType string `json:"model_type,omitempty"`
	Region    string `json:"region,omitempty"`
}

const (
	maxFallbacks = 1000
	maxTargets   = 8
)

type compiledFallback struct {
	model, region *strict.Glob
	to            []Target
}

// Fallbacks are the targets of the first fallback that matches. The model type is
// one that Model returned, the region "" when the request names none.
func (p *Policy) Fallbacks(modelType, region string) []Target {
	for i := range p.fallbacks {
		if f := &p.fallbacks[i]; f.model.Match(modelType) && f.region.Match(region) {
			return f.to
		}
	}
	return nil
}

func (c *compiler) fallbacks() {
	if n := len(c.doc.Fallbacks); n > maxFallbacks {
		c.faults.Add("/fallbacks", "%d fallbacks; at most %d are allowed", n, maxFallbacks)
	}
	for i := range min(len(c.doc.Fallbacks), maxFallbacks) {
		doc, at := &c.doc.Fallbacks[i], "/fallbacks/"+strconv.Itoa(i)
		f := compiledFallback{
			model:  c.pattern(doc.Match.ModelType, fleet.ModelTypeCharacters, fleet.MaxModelTypeLength, at+"/match/model_type"),
			region: c.pattern(doc.Match.Region, fleet.NameCharacters, fleet.MaxNameLength, at+"/match/region"),
			to:     doc.To,
		}
		c.names(f.model, f.region)
		if n := len(doc.To); n < 1 || n > maxTargets {
			c.faults.Add(at+"/to", "%d targets; 1 to %d are wanted", n, maxTargets)
		}
		for j, t := range doc.To[:min(len(doc.To), maxTargets)] {
			at := at + "/to/" + strconv.Itoa(j)
			switch {
			case t == Target{}:
				c.faults.Add(at, "names neither a model_type nor a region")
			case t.Region == "" && f.model.Literal && c.policy.Model(t.ModelType) == f.model.Pattern:
				c.faults.Add(at+"/model_type", "is that of the requests that match; name another, or a region")
			}
			if t.ModelType != "" && c.modelName(t.ModelType, at+"/model_type") {
				c.policy.models[t.ModelType] = true
			}
			if t.Region != "" && c.name(t.Region, fleet.NameCharacters, fleet.MaxNameLength, at+"/region") {
				c.policy.regions[t.Region] = t.Region
			}
		}
		c.policy.fallbacks = append(c.policy.fallbacks, f)
	}
}

// names notes the model type and the region that patterns name literally.
func (c *compiler) names(model, region *strict.Glob) {
	if model.Literal {
		c.policy.models[model.Pattern] = true
	}
	if region.Literal {
		c.policy.regions[region.Pattern] = region.Pattern
	}
}

// matching are the patterns of a rule or a fallback.
type matching struct{ model, region *strict.Glob }

// warnOf names those of a list that can never match.
func (c *compiler) warnOf(at, what string, list []matching, warnings *strict.Faults) {
	for i, m := range list {
		at := at + "/" + strconv.Itoa(i)
		if target, ok := c.doc.Aliases[m.model.Pattern]; ok {
			warnings.Add(at+"/match/model_type",
				"never matches: %s is an alias, and %ss see the model type, %s", strict.Quote(m.model.Pattern), what, strict.Quote(target))
			continue
		}
		earlier := slices.IndexFunc(list[:i], func(e matching) bool { return e.model.Covers(m.model) && e.region.Covers(m.region) })
		if earlier >= 0 {
			warnings.Add(at, "never matches: %s %d matches all that it does, and comes first", what, earlier)
		}
	}
}
