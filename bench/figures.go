package main

import "headway/internal/routing"

// sections lists every figure that is promised, and what it is measured
// against.
func sections() []section {
	decide := section{
		name: "Router.Decide in process, reservation and counters included; base: the minimum of as many counters",
		pkg:  "./internal/routing", bench: "^(BenchmarkDecide|BenchmarkArgmin)$",
	}
	limits := map[string]map[string]float64{
		"heads=100":   {"": 1.5},
		"heads=1000":  {"": 12},
		"heads=10000": {"power_of_two": 2, "round_robin": 2},
	}
	for _, heads := range []string{"heads=10", "heads=100", "heads=1000", "heads=10000"} {
		for _, spec := range routing.Specs() {
			limit := limits[heads][""]
			if l, ok := limits[heads][spec.Name]; ok {
				limit = l
			}
			decide.figures = append(decide.figures, figure{
				what: spec.Name + ", " + heads, bench: "Decide/" + spec.Name + "/" + heads,
				base: "Argmin/" + heads, unit: "ns/op", scale: 1e-3, shown: "µs", limit: limit,
			})
		}
	}
	return []section{decide}
}
