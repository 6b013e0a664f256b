package workload

import (
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"
)

// Shape of agent traffic: coding agents with tools. Lengths are in tokens. Together
// these give prompts of 40,000 tokens on average, 94 % of which came before, and an
// answer of one token for 130.
const (
	agentApps         = 6.
	systemLeast       = 5_000 // of the prompt that all sessions of an application share
	systemMost        = 12_000
	agentTurns        = 33.  // mean of a session
	subAgentTurns     = 6.   // mean
	subAgentShare     = 0.02 // of turns
	taskTokens        = 400. // median of what a session begins with
	toolTokens        = 900. // median of a tool's result
	toolSpread        = 1.1  // sigma of its logarithm
	answerTokens      = 180. // median
	answerSpread      = 0.9
	compactAt         = 90_000 // tokens of context, from which a session goes on with a summary
	summaryTokens     = 2_500
	toolPause         = 4. // s, median
	toolPauseSpread   = 1.
	personShare       = 0.06 // of pauses that wait for a person
	personPause       = 45.  // s, median
	personPauseSpread = 0.8
	mostPause         = 600. // s
	mostPrompt        = 120_000
)

// agents is a Source of sessions whose turns follow on one another: each sends all
// that came before with what is new.
type agents struct {
	play     Play
	sessions int // that begin by themselves
	turns    float64
	apps     float64
	random   *rand.Rand
	begun    int
	at       float64 // s
	every    float64 // s between two sessions
	open     map[string]*agent
}

// agent is one session.
type agent struct {
	name     string
	app      int
	region   string
	context  context
	system   int // tokens of the shared prompt
	turn     int
	subs     int // sub-agents that it began
	turns    int
	parent   *agent
	answered int // tokens of the answer that it waits for
	random   *rand.Rand
}

// context is a text by its blocks.
type context struct {
	whole  []uint64 // chained hashes of whole blocks
	last   uint64   // hash of what is behind them
	tokens int
}

// add appends text that is named by id.
func (c *context) add(id uint64, tokens int) {
	for part := uint64(0); tokens > 0; part++ {
		n := min(tokens, BlockTokens-c.tokens%BlockTokens)
		c.last = mix(mix(c.last, id), part<<20|uint64(n))
		c.tokens += n
		tokens -= n
		if c.tokens%BlockTokens == 0 {
			c.whole = append(c.whole, c.last)
		}
	}
}

func (c *context) blocks() []uint64 {
	list := slices.Clone(c.whole)
	if c.tokens%BlockTokens != 0 {
		list = append(list, c.last)
	}
	return list
}

// openAgents completes traffic of agents. Equal plays have equal sessions, if the
// times at which their requests end are equal.
func openAgents(t *Traffic, p parameters, requests int) {
	each := p["turns"] * (1 + subAgentShare*subAgentTurns) // requests of a session
	sessions := p.whole("sessions")
	if requests > 0 {
		sessions = max(int(float64(requests)/each), 1)
	}
	t.Requests = int(float64(sessions) * each)
	t.play = func(play Play) (Source, error) {
		return &agents{
			play: play, sessions: sessions, turns: p["turns"], apps: p["apps"],
			random: rand.New(rand.NewPCG(play.Seed, 7)), every: each / play.Rate, open: map[string]*agent{},
		}, nil
	}
}

// Next is the first request of the next session.
func (w *agents) Next() (a Arrival, ok bool) {
	if w.begun == w.sessions {
		return a, false
	}
	w.begun++
	w.at += w.random.ExpFloat64() * w.every
	s := &agent{name: "agent-" + strconv.Itoa(w.begun), random: rand.New(rand.NewPCG(w.play.Seed, 8+uint64(w.begun)))}
	s.app, s.turns = int(min(s.random.ExpFloat64()*w.apps/3, w.apps-1)), s.length(w.turns)
	s.region = w.play.Regions[s.random.IntN(len(w.play.Regions))]
	w.open[s.name] = s
	s.system = systemLeast + int(mix(uint64(s.app), w.play.Seed)%(systemMost-systemLeast))
	s.context.add(uint64(s.app)+1, s.system)
	s.context.add(s.random.Uint64(), s.lognormal(taskTokens, 0.8))
	return w.ask(s, w.at), true
}

// Ended returns what follows on the end of a request: the next turn, that of a
// sub-agent, or that of the agent which waits for one.
func (w *agents) Ended(a *Arrival, end time.Duration) []Arrival {
	s := w.open[a.Session]
	if s == nil {
		return nil
	}
	at := end.Seconds()
	s.context.add(s.random.Uint64(), s.answered)
	if s.turn >= s.turns {
		delete(w.open, s.name)
		if s = s.parent; s == nil {
			return nil
		}
	} else if s.parent == nil && s.random.Float64() < subAgentShare {
		return []Arrival{w.ask(w.branch(s), at+s.pause(0))}
	}
	s.context.add(s.random.Uint64(), s.lognormal(toolTokens, toolSpread))
	if s.context.tokens > compactAt {
		var fresh context
		fresh.add(uint64(s.app)+1, s.system)
		fresh.add(s.random.Uint64(), summaryTokens)
		s.context = fresh
	}
	return []Arrival{w.ask(s, at+s.pause(personShare))}
}

// branch begins a sub-agent: every second one with all that its parent knows.
func (w *agents) branch(s *agent) *agent {
	s.subs++
	sub := &agent{
		name: s.name + "." + strconv.Itoa(s.subs), app: s.app, system: s.system, parent: s,
		turns: s.length(subAgentTurns), region: s.region, random: s.random,
	}
	if s.random.Uint64()&1 == 0 {
		sub.context = context{slices.Clone(s.context.whole), s.context.last, s.context.tokens}
	} else {
		sub.context.add(uint64(s.app)+1, s.system)
	}
	sub.context.add(s.random.Uint64(), s.lognormal(taskTokens, 0.8))
	w.open[sub.name] = sub
	return sub
}

func (w *agents) ask(s *agent, at float64) Arrival {
	s.turn++
	s.answered = s.lognormal(answerTokens, answerSpread)
	return Arrival{
		At: time.Duration(at * float64(time.Second)), Input: min(s.context.tokens, mostPrompt), Output: s.answered,
		Region: s.region, Session: s.name, Turn: s.turn, hashes: s.context.blocks(),
	}
}

// length is a number of turns, at least 1.
func (s *agent) length(mean float64) int { return 1 + int(s.random.ExpFloat64()*(mean-1)+0.5) }

func (s *agent) pause(person float64) float64 {
	median, spread := toolPause, toolPauseSpread
	if s.random.Float64() < person {
		median, spread = personPause, personPauseSpread
	}
	return min(median*math.Exp(spread*s.random.NormFloat64()), mostPause)
}

func (s *agent) lognormal(median, spread float64) int {
	return max(int(median*math.Exp(spread*s.random.NormFloat64())), 1)
}
