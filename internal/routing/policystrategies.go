package routing

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"headway/internal/strict"
)

// Bounds of what one policy makes, whatever its document asks for.
const (
	maxInstances  = 10000 // strategies, those that others delegate to included
	maxListLength = 1000  // of a list that is a parameter
	maxTextLength = 256   // bytes of a string that is a parameter
)

// strategyBuilder makes the strategies of one policy.
type strategyBuilder struct {
	base      map[string]Values   // what the document says of a strategy, by name
	unsound   map[string]bool     // the strategies of which it says something wrong
	made      map[string]instance // those with no parameters but base
	building  []string            // what is being made, outermost first
	instances int
}

// build is the Build of the policy: parameters are laid over what the document
// says of the strategy, and that over the defaults. Faults have pointers
// relative to parameters; that of the name itself is "".
func (b *strategyBuilder) build(name string, parameters map[string]any) (Strategy, []strict.Fault) {
	fault := func(reason string) (Strategy, []strict.Fault) {
		return nothing{}, []strict.Fault{{Reason: reason}}
	}
	spec := findSpec(name)
	switch {
	case spec == nil:
		return fault(unknownStrategy(name))
	case slices.Contains(b.building, name):
		return fault(fmt.Sprintf("%s would delegate to itself", name))
	}
	if made, ok := b.made[name]; ok && len(parameters) == 0 {
		return made.strategy, nil
	}
	values, faults := checkParameters(spec, parameters)
	switch {
	case len(faults) > 0:
		return nothing{}, faults
	case b.unsound[name]:
		return nothing{}, nil // said where the document says it
	case b.instances >= maxInstances:
		return fault(fmt.Sprintf("the policy needs more than %d strategies", maxInstances))
	}
	b.instances++
	complete := Values{}
	for _, p := range spec.Parameters {
		if p.Default != nil {
			complete[p.Name] = p.Default
		}
	}
	maps.Copy(complete, b.base[name])
	maps.Copy(complete, values)
	b.building = append(b.building, name)
	s, faults := spec.New(complete, b.build)
	b.building = b.building[:len(b.building)-1]
	if len(faults) > 0 {
		return nothing{}, faults
	}
	return s, nil
}

// nothing stands for a strategy that could not be made; the policy that it
// would be part of is refused.
type nothing struct{}

func (nothing) Choose(*Input, []Pick) int { return 0 }

func (nothing) Score(_ *Input, scores []float64) {
	for i := range scores {
		scores[i] = math.NaN()
	}
}

// findSpec returns the spec of that name, or nil.
func findSpec(name string) *Spec {
	for i := range specs {
		if specs[i].Name == name {
			return &specs[i]
		}
	}
	return nil
}

func specNames() []string {
	names := make([]string, len(specs))
	for i := range specs {
		names[i] = specs[i].Name
	}
	return names
}

// checkParameters returns the parameters as values of the kinds and within the
// bounds that the spec declares; those left out stay out.
func checkParameters(spec *Spec, parameters map[string]any) (Values, []strict.Fault) {
	var faults []strict.Fault
	values := Values{}
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		i := slices.IndexFunc(spec.Parameters, func(p Parameter) bool { return p.Name == name })
		var reason string
		if i < 0 {
			known := make([]string, len(spec.Parameters))
			for j := range known {
				known[j] = spec.Parameters[j].Name
			}
			reason = unknownName("parameter of "+spec.Name, name, known)
		} else {
			values[name], reason = spec.Parameters[i].read(parameters[name])
		}
		if reason != "" {
			faults = append(faults, strict.Fault{Pointer: "/" + escapePointer(name), Reason: reason})
		}
	}
	return values, faults
}

// read returns v as a value of the parameter, or the reason why it is none.
func (p *Parameter) read(v any) (value any, reason string) {
	v, sound := plain(v, 0)
	if !sound {
		return nil, fmt.Sprintf("want %s", p.allowed())
	}
	switch x := v.(type) {
	case float64:
		if p.Kind == KindNumber && (p.unbounded() || x >= p.Min && x <= p.Max) {
			return x, ""
		}
	case string:
		switch {
		case p.Kind != KindString:
		case len(p.OneOf) > 0 && !slices.Contains(p.OneOf, x):
			return nil, unknownName("value", x, p.OneOf)
		case len(x) <= maxTextLength:
			return x, ""
		}
	case []any:
		if p.Kind == KindList && len(x) <= maxListLength {
			return x, ""
		}
	}
	return nil, fmt.Sprintf("want %s, not %s", p.allowed(), describe(v))
}

func (p *Parameter) unbounded() bool { return p.Min == 0 && p.Max == 0 }

// allowed says what a value of the parameter may be.
func (p *Parameter) allowed() string {
	switch {
	case p.Kind == KindList:
		return fmt.Sprintf("an array of at most %d elements", maxListLength)
	case p.Kind == KindString && len(p.OneOf) > 0:
		return fmt.Sprintf("one of %q", p.OneOf)
	case p.Kind == KindString:
		return fmt.Sprintf("a string of at most %d bytes", maxTextLength)
	}
	unit := ""
	if p.Unit != "" {
		unit = " " + p.Unit
	}
	if p.unbounded() {
		return "a finite number" + unit
	}
	return fmt.Sprintf("a number from %s to %s%s", decimal(p.Min), decimal(p.Max), unit)
}

func decimal(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// describe names a value for a fault.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(v)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case string:
		return quote(v)
	case []any:
		return fmt.Sprintf("an array of %d elements", len(v))
	}
	return "an object"
}

// plain returns v made of the types that JSON is read into; false when JSON
// cannot hold it.
func plain(v any, depth int) (any, bool) {
	if depth > maxDepth {
		return nil, false
	}
	switch v := v.(type) {
	case nil, bool:
		return v, true
	case string:
		return v, utf8.ValidString(v)
	case float64:
		return v, !math.IsNaN(v) && !math.IsInf(v, 0)
	case int:
		return float64(v), true
	case []any:
		list := make([]any, len(v))
		for i := range v {
			var ok bool
			if list[i], ok = plain(v[i], depth+1); !ok {
				return nil, false
			}
		}
		return list, true
	case map[string]any:
		m := make(map[string]any, len(v))
		for name, member := range v {
			p, ok := plain(member, depth+1)
			if !ok || !utf8.ValidString(name) {
				return nil, false
			}
			m[name] = p
		}
		return m, true
	}
	return nil, false
}
