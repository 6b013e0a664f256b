package policy

import (
	"bytes"

	"headway/internal/strict"
)

// maxFaults is the most faults of one document that are listed.
const maxFaults = 1000

// Parse reads a document, format json or yaml, and compiles it. It returns the
// policy, or its faults: at most 1,000, each with its place and what is allowed
// there, for YAML with its line. Names given twice, unknown fields, values of
// another type and null are faults.
func Parse(data []byte, format string) (*Policy, []strict.Fault) {
	var faults strict.Faults
	var r *strict.Reader
	o := strict.Options{Most: maxFaults, Document: true}
	switch {
	case len(data) > MaxBytes:
		faults.Add("", "the document has %d bytes; at most %d are read", len(data), MaxBytes)
		return nil, faults
	case format == "yaml" && len(bytes.TrimSpace(data)) == 0:
		faults.Add("", "want an object, not an empty document")
		return nil, faults
	case format == "json":
		r = strict.NewJSON(data, o)
	case format == "yaml":
		r = strict.NewYAML(data, o)
	default:
		faults.Add("", "unknown format %s; allowed are json, yaml", strict.Quote(format))
		return nil, faults
	}
	object := r.Kind() == strict.Object
	c := newCompiler(read(r))
	if object {
		c.check()
		r.Merge(&c.faults)
	}
	found, err := r.Done()
	if err != nil {
		faults.Add("", "%v", err)
		return nil, faults
	}
	if len(found) > 0 {
		return nil, found
	}
	return c.finish()
}

// read reads a document. Required fields that are missing are left to the compiler.
func read(r *strict.Reader) (doc Document) {
	r.Fields(map[string]func(){
		"default_strategy": func() { r.Text(&doc.DefaultStrategy) },
		"rules":            func() { r.Array(0, func(int) { doc.Rules = append(doc.Rules, readRule(r)) }) },
		"regions": func() {
			doc.Regions = strict.Map(r, func() (region RegionDoc) {
				r.Fields(map[string]func(){
					"distances_ms": func() {
						region.DistancesMs = strict.Map(r, func() float64 { v, _, _ := r.Decimal(); return v })
					},
				})
				return region
			})
		},
		"strategies": func() {
			doc.Strategies = strict.Map(r, func() (s StrategyDoc) {
				r.Fields(map[string]func(){"parameters": func() { s.Parameters = strict.Map(r, r.Any) }})
				return s
			})
		},
		"aliases": func() {
			doc.Aliases = strict.Map(r, func() (target string) { r.Text(&target); return target })
		},
		"fallbacks": func() {
			r.Array(0, func(int) { doc.Fallbacks = append(doc.Fallbacks, readFallback(r)) })
		},
		"pools": func() {
			doc.Pools = strict.Map(r, func() (pool PoolDoc) {
				r.Fields(map[string]func(){"max_in_flight": func() { r.Whole(&pool.MaxInFlight, 1, maxPoolPlaces) }})
				return pool
			})
		},
		"hedge":        func() { doc.Hedge = readHedge(r) },
		"shadow":       func() { r.Texts(0, &doc.Shadow) },
		"shadow_share": func() { r.Number(&doc.ShadowShare, leastShadowShare, mostShadowShare) },
		"caller_may": func() {
			doc.CallerMay = []string{}
			r.Texts(0, &doc.CallerMay)
		},
	})
	return doc
}

func readRule(r *strict.Reader) (rule Rule) {
	matched(r, &rule.Match, map[string]func(){
		"strategy":    func() { r.Text(&rule.Strategy) },
		"region_mode": func() { r.Text(&rule.RegionMode) },
		"parameters":  func() { rule.Parameters = strict.Map(r, r.Any) },
	})
	return rule
}

func readFallback(r *strict.Reader) (f Fallback) {
	matched(r, &f.Match, map[string]func(){
		"to": func() {
			r.Array(0, func(int) {
				var t Target
				r.Fields(map[string]func(){
					"model_type": func() { r.Text(&t.ModelType) },
					"region":     func() { r.Text(&t.Region) },
				})
				f.To = append(f.To, t)
			})
		},
	})
	return f
}

// matched reads an object with a match, which is required: one that matches
// everything by oversight would end the list.
func matched(r *strict.Reader, m *Match, fields map[string]func()) {
	lacksMatch := r.Kind() == strict.Object
	fields["match"] = func() {
		lacksMatch = false
		r.Fields(map[string]func(){
			"model_type": func() { r.Text(&m.ModelType) },
			"region":     func() { r.Text(&m.Region) },
		})
	}
	r.Fields(fields)
	if lacksMatch {
		r.FaultIn("match", "is required; {} matches every request")
	}
}
