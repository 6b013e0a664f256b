package strategy

import (
	"fmt"
	"math"

	"headway/internal/strict"
)

var modelSpecificSpec = Spec{
	Name:    "model_specific",
	Summary: "Another strategy for each model type, by the first pattern that matches.",
	Formula: "strategy(first of models whose match fits the model type, else fallback)",
	Use:     "For callers that choose a strategy by one name for all models; in a policy, rules do the same and are shown better. It wins and loses with the strategies that it names.",
	Parameters: []Parameter{
		{
			Name: "models", Kind: KindList,
			Summary: "Rules {match, strategy, parameters?}: match is a pattern with * and ?.",
		},
		{
			Name: "fallback", Kind: KindString, Default: "least_loaded",
			Summary: "The strategy of model types that no rule matches.",
		},
	},
	New: newModelSpecific,
}

type modelSpecific struct {
	rules    []modelRule
	fallback modelRule
}

type modelRule struct {
	match    *strict.Glob
	name     string
	strategy Chooser
}

func newModelSpecific(v Values, build Build) (Strategy, []strict.Fault) {
	m := &modelSpecific{fallback: modelRule{name: v.Text("fallback")}}
	fallback, found := build(m.fallback.name, nil)
	m.fallback.strategy = ChooserOf(fallback)
	var faults strict.Faults
	for _, f := range found {
		faults.Add("/fallback"+f.Pointer, "%s", f.Reason)
	}
	for i, element := range v.List("models") {
		at := fmt.Sprintf("/models/%d", i)
		if object, ok := element.(map[string]any); ok {
			m.rules = append(m.rules, newModelRule(&faults, at, object, build))
		} else {
			faults.Add(at, "want an object {match, strategy, parameters?}")
		}
	}
	return m, faults
}

func newModelRule(faults *strict.Faults, at string, object map[string]any, build Build) (rule modelRule) {
	for name := range object {
		if name != "match" && name != "strategy" && name != "parameters" {
			faults.Add(at+"/"+strict.Escape(name), "%s", strict.Unknown("field", name, []string{"match", "strategy", "parameters"}))
		}
	}
	pattern, ok := object["match"].(string)
	if !ok || pattern == "" || len(pattern) > strict.MaxPattern {
		faults.Add(at+"/match", "want a pattern of 1 to %d bytes", strict.MaxPattern)
		pattern = "*"
	}
	rule.match = strict.NewGlob(pattern)
	parameters, ok := object["parameters"].(map[string]any)
	if !ok && object["parameters"] != nil {
		faults.Add(at+"/parameters", "want an object")
	}
	if rule.name, ok = object["strategy"].(string); !ok {
		faults.Add(at+"/strategy", "want the name of a strategy")
		return rule
	}
	delegate, found := build(rule.name, parameters)
	for _, f := range found {
		if f.Pointer == "" {
			faults.Add(at+"/strategy", "%s", f.Reason)
		} else {
			faults.Add(at+"/parameters"+f.Pointer, "%s", f.Reason)
		}
	}
	rule.strategy = ChooserOf(delegate)
	return rule
}

// rule is the rule of a model type.
func (m *modelSpecific) rule(modelType string) *modelRule {
	for i := range m.rules {
		if m.rules[i].match.Match(modelType) {
			return &m.rules[i]
		}
	}
	return &m.fallback
}

func (m *modelSpecific) Choose(in *Input, picks []Pick) int {
	return m.rule(in.ModelType).strategy.Choose(in, picks)
}

func (m *modelSpecific) Score(in *Input, scores []float64) {
	m.rule(in.ModelType).strategy.Score(in, scores)
}

// Terms implements Explainer.
func (m *modelSpecific) Terms(in *Input, costs []float64, i int) []Term {
	return Terms(m.rule(in.ModelType).strategy, in, costs, i)
}

// Objective implements Refuser.
func (m *modelSpecific) Objective(in *Input) float64 {
	if r, ok := m.rule(in.ModelType).strategy.(Refuser); ok {
		return r.Objective(in)
	}
	return math.NaN()
}

// Stays implements Resident.
func (m *modelSpecific) Stays(modelType, region string) bool {
	r, ok := m.rule(modelType).strategy.(Resident)
	return ok && r.Stays(modelType, region)
}

// Delegate names the strategy that decides for a model type.
func (m *modelSpecific) Delegate(modelType string) string { return m.rule(modelType).name }

// Models are the model types that the rules name literally.
func (m *modelSpecific) Models() (names []string) {
	for _, r := range m.rules {
		if r.match.Literal {
			names = append(names, r.match.Pattern)
		}
	}
	return names
}
