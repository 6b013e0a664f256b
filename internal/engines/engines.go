// Package engines knows what inference engines say of themselves, and where:
// whether they can work, what they serve, and how loaded they are. What an
// engine does not say is unknown, never 0.
package engines

import (
	"maps"
	"slices"
	"strings"

	"headway/internal/fleet"
)

// Engine is one kind of engine.
type Engine struct {
	Name        string // as heads register it
	MetricsPort string // of a listener of their own, by default; "": metrics stand beside the API

	health  string                   // path that is answered with success while the engine can work; never a completion
	models  query[[]string]          // what it serves
	slots   query[int64]             // requests that it takes at a time, if a call says it
	metrics string                   // path of the metrics in Prometheus' text format; "": none
	load    func(s samples) (l Load) // what they say

	// serves are the requests, beside those of /v1, that clients may send to a head of
	// the engine: that use what it serves, or ask whether it can, and change nothing
	// for others. {} is one part of a path.
	serves []string
}

// Load is what an engine says of its work.
type Load struct {
	fleet.Load
	MaxInFlight int64   // requests that it takes at a time; 0: unknown
	Started     float64 // when its process started, in seconds since 1970; 0: unknown
}

// UnknownLoad is the load of an engine that says nothing.
func UnknownLoad() Load { return Load{Load: fleet.UnknownLoad()} }

var all = func() map[string]*Engine {
	m := map[string]*Engine{}
	for _, e := range []*Engine{&vllm, &sglang, &tgi, &llamacpp, &ollama, &triton, &trtllm, &openai} {
		m[e.Name] = e
	}
	return m
}()

// Names are the names of the engines, sorted.
func Names() []string { return slices.Sorted(maps.Keys(all)) }

// unknown is a head that names no engine of these. Most have this call.
var unknown = Engine{health: "/health"}

// Of returns the engine of that name, in any case of its letters, or what is assumed of
// any other.
func Of(name string) *Engine {
	if e := Find(strings.ToLower(name)); e != nil {
		return e
	}
	return &unknown
}

// Find returns the engine of that name, nil if there is none.
func Find(name string) *Engine { return all[name] }
