package workload

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"headway/internal/strict"
)

// Traffic is a workload that can be played at any rate: a trace, or what a generator
// makes.
type Traffic struct {
	Name     string   // as it was opened
	Requests int      // how many there are in one play, of sessions on average
	Rate     float64  // requests a second of the trace itself, 0: generated
	Notes    []string // what of the file was left out or changed
	Model    string   // type of all requests; "": the trace names none, or several

	play func(Play) (Source, error)
}

// Play says how traffic is played. Rate is required.
type Play struct {
	Rate    float64  // mean requests per second
	Seed    uint64   // of what is random
	Regions []string // each conversation comes from one of them; none: ""
}

// ErrName reports a name that is no file, and no generator with its parameters.
var ErrName = errors.New("no such workload")

// Sample is the name of the built-in sample of a trace.
const Sample = "sample:"

// Open opens traffic by name: the file of a trace, [Sample], or a generator with its
// parameters, such as "agents:sessions=100". requests is how many are wanted; 0: all of
// a trace, which else is cut or repeated, and the usual number of a generator.
func Open(name string, requests int) (*Traffic, error) {
	if name == Sample {
		return openTrace(name, "", requests)
	}
	if kind, values, is := strings.Cut(name, ":"); is {
		if _, err := os.Stat(name); err != nil {
			return openGenerator(name, kind, values, requests)
		}
	}
	return openTrace(name, name, requests)
}

func openGenerator(name, kind, values string, requests int) (*Traffic, error) {
	g, known := generators[kind]
	if !known {
		names := slices.Sorted(maps.Keys(generators))
		return nil, fmt.Errorf("%w: %s", ErrName, strict.Unknown("generator", kind, names))
	}
	p, err := readParameters(kind, values, g.parameters)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrName, err)
	}
	t := &Traffic{Name: name}
	g.open(t, p, requests)
	return t, nil
}

func openTrace(name, file string, requests int) (*Traffic, error) {
	trace, err := readFile(file)
	if err != nil {
		return nil, err
	}
	rows := trace.Rows
	if requests > 0 {
		rows = rows[:min(requests, len(rows))]
		if rows[len(rows)-1].At == 0 {
			return nil, fmt.Errorf("%s: the first %d requests have the same time", name, len(rows))
		}
	} else {
		requests = len(rows)
	}
	t := &Traffic{Name: name, Requests: requests, Notes: trace.Notes, Model: trace.Model}
	t.Rate = float64(len(rows)) / rows[len(rows)-1].At.Seconds()
	t.play = func(p Play) (Source, error) {
		w, err := New(Options{Rows: trace.spread(rows, p.Seed), Rate: p.Rate, Models: []string{""}, Regions: p.Regions, Seed: p.Seed})
		if err != nil {
			return nil, err
		}
		return &replay{w, requests}, nil
	}
	return t, nil
}

// Play begins a play.
func (t *Traffic) Play(p Play) (Source, error) {
	if len(p.Regions) == 0 {
		p.Regions = []string{""}
	}
	if !(p.Rate > 0) {
		return nil, fmt.Errorf("play %s: a rate of %v, want more than 0", t.Name, p.Rate)
	}
	return t.play(p)
}

// Span is about how long a play at a rate lasts.
func (t *Traffic) Span(rate float64) time.Duration {
	return time.Duration(float64(t.Requests) / rate * float64(time.Second))
}
