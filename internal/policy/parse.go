package policy

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"headway/internal/strict"
)

// Parse reads a document, format json or yaml, and compiles it: every strategy
// is built, every pattern and distance prepared. It returns the policy, or every
// fault and no policy: at most 1,000 by name, each with its place and what is
// allowed there; for YAML the reason begins with the line.
//
// Both formats are read strictly: names given twice, unknown fields and values
// of another type are faults, and null is not the same as leaving out.
func Parse(data []byte, format string) (*Policy, []strict.Fault) {
	t := &tree{}
	if len(data) > MaxBytes {
		t.fault(root, 0, "the document has %d bytes; at most %d are read", len(data), MaxBytes)
		return nil, t.faults.all()
	}
	var n *node
	switch format {
	case "json":
		n = t.readJSON(data)
	case "yaml":
		n = t.readYAML(data)
	default:
		t.fault(root, 0, "unknown format %s; allowed are json, yaml", strict.Quote(format))
		return nil, t.faults.all()
	}
	if !t.is(n, kindObject, root) {
		return nil, t.faults.all()
	}
	c := newCompiler(t.document(n))
	c.check()
	t.faults.addElsewhere(&c.faults, n.lineOf)
	if faults := t.faults.all(); len(faults) > 0 {
		return nil, faults
	}
	return c.finish()
}

// fields reads the members of an object, each with the function under its
// name. Required ones that are missing are left to Compile.
func (t *tree) fields(n *node, at *place, read map[string]func(*node, *place)) {
	if !t.is(n, kindObject, at) {
		return
	}
	for i, name := range n.names {
		if f := read[name]; f != nil {
			f(n.values[i], at.member(name))
			continue
		}
		if t.faults.full() {
			continue
		}
		t.fault(at.member(name), n.values[i].line, "%s", strict.Unknown("field", name, slices.Sorted(maps.Keys(read))))
	}
}

// is notes a fault unless n is of the kind.
func (t *tree) is(n *node, want kind, at *place) bool {
	if n.kind == want {
		return true
	}
	if n.kind != kindNone {
		t.fault(at, n.line, "want %v, not %v%s", want, n.kind, advice(want, n.kind))
	}
	return false
}

func advice(want, got kind) string {
	if want == kindString && (got == kindNumber || got == kindBool) {
		return "; put it in quotes"
	}
	return ""
}

func (t *tree) text(into *string) func(*node, *place) {
	return func(n *node, at *place) {
		if t.is(n, kindString, at) {
			*into = n.text
		}
	}
}

func (t *tree) document(n *node) Document {
	var doc Document
	t.fields(n, root, map[string]func(*node, *place){
		"default_strategy": t.text(&doc.DefaultStrategy),
		"rules":            func(n *node, at *place) { doc.Rules = t.rules(n, at) },
		"regions": func(n *node, at *place) {
			doc.Regions = object(t, n, at, t.regionDoc)
		},
		"strategies": func(n *node, at *place) {
			doc.Strategies = object(t, n, at, func(n *node, at *place) (s StrategyDoc) {
				t.fields(n, at, map[string]func(*node, *place){
					"parameters": func(n *node, at *place) { s.Parameters = t.parameters(n, at) },
				})
				return s
			})
		},
		"aliases": func(n *node, at *place) {
			doc.Aliases = object(t, n, at, func(n *node, at *place) (s string) { t.text(&s)(n, at); return s })
		},
		"caller_may": func(n *node, at *place) {
			if t.is(n, kindList, at) {
				doc.CallerMay = make([]string, len(n.values))
				for i, v := range n.values {
					t.text(&doc.CallerMay[i])(v, at.element(i))
				}
			}
		},
	})
	return doc
}

func (t *tree) rules(n *node, at *place) []Rule {
	if !t.is(n, kindList, at) {
		return nil
	}
	rules := make([]Rule, len(n.values))
	for i, v := range n.values {
		r, at := &rules[i], at.element(i)
		t.fields(v, at, map[string]func(*node, *place){
			"match": func(n *node, at *place) {
				t.fields(n, at, map[string]func(*node, *place){
					"model_type": t.text(&r.Match.ModelType),
					"region":     t.text(&r.Match.Region),
				})
			},
			"strategy":    t.text(&r.Strategy),
			"region_mode": t.text(&r.RegionMode),
			"parameters":  func(n *node, at *place) { r.Parameters = t.parameters(n, at) },
		})
		// A rule that matches everything by oversight would end the list.
		if v.kind == kindObject && !slices.Contains(v.names, "match") {
			t.fault(at.member("match"), v.line, "is required; {} matches every request")
		}
	}
	return rules
}

func (t *tree) regionDoc(n *node, at *place) (r RegionDoc) {
	t.fields(n, at, map[string]func(*node, *place){
		"distances_ms": func(n *node, at *place) {
			r.DistancesMs = object(t, n, at, func(n *node, at *place) float64 {
				t.is(n, kindNumber, at)
				return n.number
			})
		},
	})
	return r
}

// object reads an object whose names are free. It is nil when there is none
// and when it is empty, which is the same to a policy.
func object[V any](t *tree, n *node, at *place, read func(*node, *place) V) map[string]V {
	if !t.is(n, kindObject, at) || len(n.names) == 0 {
		return nil
	}
	m := make(map[string]V, len(n.names))
	for i, name := range n.names {
		m[name] = read(n.values[i], at.member(name))
	}
	return m
}

// parameters reads an object that only the strategy can judge.
func (t *tree) parameters(n *node, at *place) map[string]any {
	return object(t, n, at, t.free)
}

// free reads a value of any kind.
func (t *tree) free(n *node, at *place) any {
	switch n.kind {
	case kindBool:
		return n.flag
	case kindNumber:
		return n.number
	case kindString:
		return n.text
	case kindList:
		list := make([]any, len(n.values))
		for i, v := range n.values {
			list[i] = t.free(v, at.element(i))
		}
		return list
	case kindObject:
		m := make(map[string]any, len(n.names))
		for i, name := range n.names {
			m[name] = t.free(n.values[i], at.member(name))
		}
		return m
	}
	return nil // null, or noted
}

// lineOf is the line of the value that the pointer names, or of the nearest
// one that is there around it.
func (n *node) lineOf(pointer string) int {
	line := n.line
	for pointer != "" {
		name, ok := firstToken(pointer)
		if !ok {
			break
		}
		at := -1
		switch n.kind {
		case kindObject:
			at = slices.Index(n.names, name)
		case kindList:
			if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(n.values) {
				at = i
			}
		}
		if at < 0 {
			break
		}
		n = n.values[at]
		line = max(n.line, line)
		if end := strings.IndexByte(pointer[1:], '/'); end < 0 {
			pointer = ""
		} else {
			pointer = pointer[1+end:]
		}
	}
	return line
}
