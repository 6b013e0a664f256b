package strategy

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"headway/internal/strict"
)

// Bounds of the values of parameters.
const (
	maxListLength = 1000 // elements
	maxTextLength = 256  // bytes
)

// Parameter describes one parameter of a strategy.
type Parameter struct {
	Name    string
	Kind    Kind
	Default any // float64 or string; nil for a KindList that may be left out
	Min     float64
	Max     float64
	Unit    string // "ms", "s", "requests", "" for a ratio
	Summary string
}

// Kind is the JSON type of a parameter.
type Kind string

// The kinds of parameters.
const (
	KindNumber Kind = "number"
	KindString Kind = "string"
	KindList   Kind = "array"
)

// Values are the parameters of a strategy by name: float64, string or []any.
type Values map[string]any

// Number is the value of a KindNumber parameter.
func (v Values) Number(name string) float64 { f, _ := v[name].(float64); return f }

// Text is the value of a KindString parameter.
func (v Values) Text(name string) string { s, _ := v[name].(string); return s }

// List is the value of a KindList parameter, nil if it is left out.
func (v Values) List(name string) []any { l, _ := v[name].([]any); return l }

// Check returns the parameters as values of the kinds and within the bounds that
// the spec declares; those left out stay out.
func (spec *Spec) Check(parameters map[string]any) (Values, []strict.Fault) {
	var faults strict.Faults
	values := Values{}
	var known []string
	for _, p := range spec.Parameters {
		known = append(known, p.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		at, v := "/"+strict.Escape(name), parameters[name]
		i := slices.Index(known, name)
		switch {
		case i < 0:
			faults.Add(at, "%s", strict.Unknown("parameter of "+spec.Name, name, known))
		case !spec.Parameters[i].allows(v):
			faults.Add(at, "want %s, not %s", spec.Parameters[i].Allowed(), describe(v))
		default:
			values[name] = v
		}
	}
	return values, faults
}

// allows reports whether v is a value of the parameter.
func (p *Parameter) allows(v any) bool {
	switch x := v.(type) {
	case float64:
		return p.Kind == KindNumber && x >= p.Min && x <= p.Max
	case string:
		return p.Kind == KindString && len(x) <= maxTextLength
	case []any:
		return p.Kind == KindList && len(x) <= maxListLength
	}
	return false
}

// Allowed says what a value of the parameter may be.
func (p *Parameter) Allowed() string {
	switch p.Kind {
	case KindList:
		return fmt.Sprintf("an array of at most %d elements", maxListLength)
	case KindString:
		return fmt.Sprintf("a string of at most %d bytes", maxTextLength)
	}
	decimal := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
	return strings.TrimSpace(fmt.Sprintf("a number from %s to %s %s", decimal(p.Min), decimal(p.Max), p.Unit))
}

// describe names a value for a fault.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		return strict.Quote(v)
	case []any:
		return fmt.Sprintf("an array of %d elements", len(v))
	case map[string]any:
		return "an object"
	}
	return fmt.Sprint(v) // a number or a boolean
}
