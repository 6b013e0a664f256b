package engine

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// BlockTokens is the size of a prefix block, the unit of shared KV cache.
// Mooncake's traces use the same size.
const BlockTokens = 512

// Profile is the cost model of one model on one set of accelerators. A step
// over a batch takes
//
//	T0 + max(W, B·tokens) + C·Σ chunk·(context + chunk/2)
//	   + E·Σ decode context + D·sequences + LD·tokens loaded
//
// milliseconds: fixed overhead, reading the weights or multiplying by them
// (the longer of the two), attention of prefill chunks and of decodes,
// sampling, and loading blocks from the CPU tier.
type Profile struct {
	Name string

	T0 float64 // ms a step
	W  float64 // ms a step, to read the weights
	B  float64 // ms a token
	C  float64 // ms a (token of a chunk × token of its context)
	E  float64 // ms a token of decode context
	D  float64 // ms a sequence
	LD float64 // ms a token loaded from the CPU tier

	KVTokens     int // tokens that fit the KV cache
	CPUTokens    int // tokens that fit the CPU tier behind it, 0: none
	StepTokens   int // most tokens computed in a step
	MaxSequences int // most sequences in a batch
	MaxContext   int // most tokens of prompt and output of one sequence
}

// All profiles but llama70b-h100x4 run vLLM V1's defaults of 8,192 tokens and
// 256 sequences a step.
var profiles = []Profile{
	{ // 45 % of an H100's peak
		Name: "llama8b-h100",
		T0:   3, W: 6.4, B: 0.036, C: 6e-7, E: 5.6e-5, D: 0.02,
		KVTokens: 404_000, StepTokens: 8192, MaxSequences: 256, MaxContext: 131_072,
	},
	{ // 15,928 tokens/s, measured by llm-d
		Name: "qwen32b-h100x2",
		T0:   3, W: 13, B: 0.0580, C: 1.2e-6, E: 5.6e-5, D: 0.03, LD: 0.0055,
		KVTokens: 275_000, CPUTokens: 1_500_000, StepTokens: 8192, MaxSequences: 256, MaxContext: 131_072,
	},
	{ // Preble's fit
		Name: "llama70b-h100x2",
		T0:   0, W: 18.67, B: 0.0799, C: 7.44e-7, E: 6.5e-5, D: 0.03,
		KVTokens: 205_000, StepTokens: 8192, MaxSequences: 256, MaxContext: 131_072,
	},
	{ // Splitwise's measurements
		Name: "llama70b-h100x4",
		T0:   2, W: 28, B: 0.104, C: 1.3e-6, E: 4.5e-5, D: 0.12,
		KVTokens: 448_000, StepTokens: 2048, MaxSequences: 256, MaxContext: 131_072,
	},
}

// ProfileForModel picks the profile for the parameter count in a model's name:
// 70b and 72b, 30b to 34b, else the smallest.
func ProfileForModel(model string) Profile {
	model = strings.ToLower(model)
	holds := func(size string) bool { return strings.Contains(model, size) }
	name := "llama8b-h100"
	switch {
	case holds("70b"), holds("72b"):
		name = "llama70b-h100x2"
	case holds("30b"), holds("32b"), holds("34b"):
		name = "qwen32b-h100x2"
	}
	return profileNamed(name)
}

// Profiles are all of the table.
func Profiles() []Profile { return slices.Clone(profiles) }

// profileNamed is a profile of the table.
func profileNamed(name string) Profile {
	return profiles[slices.IndexFunc(profiles, func(p Profile) bool { return p.Name == name })]
}

func (p *Profile) validate() error {
	for _, c := range []float64{p.T0, p.W, p.B, p.C, p.E, p.D, p.LD} {
		if c < 0 || math.IsNaN(c) || math.IsInf(c, 0) {
			return fmt.Errorf("profile %q: a cost is %v, want a finite number of at least 0", p.Name, c)
		}
	}
	switch {
	case p.T0+p.W <= 0:
		return fmt.Errorf("profile %q: a step must take time: T0 + W is 0", p.Name)
	case p.KVTokens < BlockTokens:
		return fmt.Errorf("profile %q: %d KV tokens, want at least one block of %d", p.Name, p.KVTokens, BlockTokens)
	case p.CPUTokens < 0:
		return fmt.Errorf("profile %q: %d tokens in the CPU tier", p.Name, p.CPUTokens)
	case p.StepTokens < 1 || p.MaxSequences < 1 || p.MaxSequences > p.StepTokens:
		return fmt.Errorf("profile %q: %d sequences in a step of %d tokens; want 1 ≤ sequences ≤ tokens",
			p.Name, p.MaxSequences, p.StepTokens)
	case p.MaxContext < 2:
		return fmt.Errorf("profile %q: a context of %d tokens, want at least 2", p.Name, p.MaxContext)
	}
	return nil
}

// work is one step in the terms of the cost formula.
type work struct {
	tokens        int     // prefill and decode
	attention     float64 // Σ chunk·(context + chunk/2)
	decodeContext int
	sequences     int
	loaded        int // tokens from the CPU tier
}

// prefill adds a chunk of n tokens behind context tokens.
func (w *work) prefill(n, context int) {
	w.tokens += n
	w.sequences++
	w.attention += float64(n) * (float64(context) + float64(n)/2)
}

func (w *work) decode(context int) {
	w.tokens++
	w.sequences++
	w.decodeContext += context
}

func (p *Profile) duration(w *work) time.Duration {
	ms := p.T0 + max(p.W, p.B*float64(w.tokens)) + p.C*w.attention +
		p.E*float64(w.decodeContext) + p.D*float64(w.sequences) + p.LD*float64(w.loaded)
	return time.Duration(ms * float64(time.Millisecond))
}

// Faster is the profile of a head whose every step takes 1/times as long.
func (p Profile) Faster(times float64) Profile {
	for _, c := range []*float64{&p.T0, &p.W, &p.B, &p.C, &p.E, &p.D, &p.LD} {
		*c /= times
	}
	return p
}

// Prefill is how long an idle head takes to the first token of a prompt of which it
// has nothing in its cache.
func (p *Profile) Prefill(tokens int) (took time.Duration) {
	for computed := 0; computed < tokens; {
		var w work
		chunk := min(tokens-computed, p.StepTokens)
		w.prefill(chunk, computed)
		took += p.duration(&w)
		computed += chunk
	}
	return took
}

// Decode is how long an idle head takes from the first to the last token of an answer.
func (p *Profile) Decode(prompt, output int) time.Duration {
	var w work
	w.decode(prompt + output/2)
	return time.Duration(max(output-1, 0)) * p.duration(&w)
}
