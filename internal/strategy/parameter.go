package strategy

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

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
	OneOf   []string // for KindString: the allowed values; empty: any
	Unit    string   // "ms", "s", "requests", "" for a ratio
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

// List is the value of a KindList parameter, nil when left out.
func (v Values) List(name string) []any { l, _ := v[name].([]any); return l }

// Check returns the parameters as values of the kinds and within the
// bounds that the spec declares; those left out stay out.
func (spec *Spec) Check(parameters map[string]any) (Values, []strict.Fault) {
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
			reason = strict.Unknown("parameter of "+spec.Name, name, known)
		} else {
			values[name], reason = spec.Parameters[i].read(parameters[name])
		}
		if reason != "" {
			faults = append(faults, strict.Fault{Pointer: "/" + strict.Escape(name), Reason: reason})
		}
	}
	return values, faults
}

// read returns v as a value of the parameter, or the reason why it is none.
func (p *Parameter) read(v any) (value any, reason string) {
	switch x := v.(type) {
	case float64:
		if p.Kind == KindNumber && (p.unbounded() || x >= p.Min && x <= p.Max) {
			return x, ""
		}
	case string:
		switch {
		case p.Kind != KindString:
		case len(p.OneOf) > 0 && !slices.Contains(p.OneOf, x):
			return nil, strict.Unknown("value", x, p.OneOf)
		case len(x) <= maxTextLength:
			return x, ""
		}
	case []any:
		if p.Kind == KindList && len(x) <= maxListLength {
			return x, ""
		}
	}
	return nil, fmt.Sprintf("want %s, not %s", p.Allowed(), describe(v))
}

func (p *Parameter) unbounded() bool { return p.Min == 0 && p.Max == 0 }

// Allowed says what a value of the parameter may be.
func (p *Parameter) Allowed() string {
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
		return strict.Quote(v)
	case []any:
		return fmt.Sprintf("an array of %d elements", len(v))
	}
	return "an object"
}
