package workload

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// generator makes traffic that no trace has.
type generator struct {
	does       string
	parameters []parameter
	// open completes traffic by the parameters, for so many requests; 0: the usual
	// number.
	open func(t *Traffic, p parameters, requests int)
}

// most is the bound of what counts.
const most = 1e7

var generators = map[string]generator{
	"agents": {
		does: "sessions of agents with tools, whose turns follow on one another",
		parameters: []parameter{
			{"sessions", 260, 1, most, "that begin by themselves; sub-agents come beside them"},
			{"turns", agentTurns, 1, 10_000, "of a session on average"},
			{"apps", agentApps, 1, 10_000, "whose sessions share a long system prompt"},
		},
		open: openAgents,
	},
	"poisson": {
		does:       "requests that come independently of one another",
		parameters: lengths(),
		open:       openRandom(func(parameters) gaps { return func(r *rand.Rand, _ float64) float64 { return r.ExpFloat64() } }),
	},
	"gamma": {
		does:       "requests that come in bursts",
		parameters: append(lengths(), parameter{"cv", 3, 0.1, 100, "coefficient of variation of the times between requests; 1 is poisson"}),
		open:       openRandom(bursts),
	},
	"diurnal": {
		does: "requests whose rate rises and falls",
		parameters: append(lengths(),
			parameter{"depth", 0.7, 0, 1, "by which part of the mean it rises and falls"},
			parameter{"days", 4, 0.1, 1000, "how often it does, over the whole play"}),
		open: openRandom(days),
	},
}

// Generators describes the generators and their parameters with the usual values, a
// line each.
func Generators() (lines []string) {
	for _, name := range slices.Sorted(maps.Keys(generators)) {
		g := generators[name]
		lines = append(lines, fmt.Sprintf("%-10s %s", name+":", g.does))
		for _, p := range g.parameters {
			lines = append(lines, fmt.Sprintf("  %-16s %s", fmt.Sprintf("%s=%v", p.name, p.usual), p.does))
		}
	}
	return lines
}

// lengths are the parameters of requests that stand alone.
func lengths() []parameter {
	return []parameter{
		{"requests", 10_000, 2, most, "in one play"},
		{"input", 3000, 1, maxTokens / 8, "tokens of a prompt on average, the shared part included"},
		{"output", 300, 1, maxTokens / 8, "tokens of an answer on average"},
		{"prefixes", 20, 1, most, "system prompts that there are, the first of them the most usual"},
		{"shared", 1000, 0, maxTokens / 8, "tokens of a system prompt"},
	}
}

// gaps draws the time to the next request in units of the mean, at a part of the play.
type gaps func(r *rand.Rand, at float64) float64

func bursts(p parameters) gaps {
	shape := 1 / (p["cv"] * p["cv"])
	return func(r *rand.Rand, _ float64) float64 { return gamma(r, shape) / shape }
}

// days draws from a Poisson process whose rate follows a sine; gaps are short beside a
// day, so that the rate at their begin counts.
func days(p parameters) gaps {
	depth, days := p["depth"], p["days"]
	return func(r *rand.Rand, at float64) float64 {
		rate := 1 - depth*math.Cos(2*math.Pi*days*at)
		return r.ExpFloat64() / max(rate, 0.02)
	}
}

// gamma draws from a gamma distribution of scale 1 (Marsaglia and Tsang, 2000).
func gamma(r *rand.Rand, shape float64) float64 {
	if shape < 1 {
		return gamma(r, shape+1) * math.Pow(1-r.Float64(), 1/shape)
	}
	d := shape - 1./3
	c := 1 / math.Sqrt(9*d)
	for {
		x := r.NormFloat64()
		v := 1 + c*x
		if v <= 0 {
			continue
		}
		v = v * v * v
		if math.Log(1-r.Float64()) < x*x/2+d-d*v+d*math.Log(v) {
			return d * v
		}
	}
}

func openRandom(of func(parameters) gaps) func(*Traffic, parameters, int) {
	return func(t *Traffic, p parameters, requests int) {
		if requests == 0 {
			requests = p.whole("requests")
		}
		t.Requests = requests
		t.play = func(play Play) (Source, error) {
			return &generated{p: p, play: play, gap: of(p), requests: requests, random: rand.New(rand.NewPCG(play.Seed, 9))}, nil
		}
	}
}

// lengthSpread is the sigma of the logarithm of generated lengths, about that of
// chats.
const lengthSpread = 1.

// generated is a Source of requests that stand alone.
type generated struct {
	p        parameters
	play     Play
	gap      gaps
	random   *rand.Rand
	requests int
	n        int
	at       float64 // s
}

func (g *generated) Next() (a Arrival, ok bool) {
	if g.n == g.requests {
		return a, false
	}
	g.at += g.gap(g.random, float64(g.n)/float64(g.requests)) / g.play.Rate
	g.n++
	var text context
	shared := g.p.whole("shared")
	if shared > 0 {
		text.add(g.prefix(), shared)
	}
	own := max(g.p["input"]-float64(shared), 1)
	text.add(g.random.Uint64(), g.length(own))
	return Arrival{
		At: time.Duration(g.at * float64(time.Second)), Input: min(text.tokens, maxTokens), Output: g.length(g.p["output"]),
		Region: g.play.Regions[g.random.IntN(len(g.play.Regions))], hashes: text.blocks(),
	}, true
}

func (*generated) Ended(*Arrival, time.Duration) []Arrival { return nil }

// length draws a number of tokens of a mean.
func (g *generated) length(mean float64) int {
	const shift = lengthSpread * lengthSpread / 2
	return max(int(mean*math.Exp(lengthSpread*g.random.NormFloat64()-shift)), 1)
}

// prefix draws one of the system prompts, each less usual than the one before it: the
// weight of number n is 1/n.
func (g *generated) prefix() uint64 {
	n := g.p["prefixes"]
	return uint64(math.Pow(n+1, g.random.Float64()))
}
