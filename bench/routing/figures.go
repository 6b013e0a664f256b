package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"headway/bench/routing/peers"
)

// ours is the strategy whose figures are promised.
const ours = "adaptive"

// figure is a promise: values beside their goals.
type figure struct {
	what  string
	at    []string // what each value is at
	goals []float64
	least bool // the goals are the least, else the most
	value func(l *lab) []float64
	quick bool // measured by the tests as well
	// detail has lines below the value, nil: none.
	detail func(l *lab) []string
}

// reached reports whether value i meets its goal.
func (f *figure) reached(i int, value float64) bool {
	if f.least {
		return value >= f.goals[i]
	}
	return value <= f.goals[i]
}

func loads(of ...float64) (names []string) {
	for _, l := range of {
		names = append(names, fmt.Sprint(l))
	}
	return names
}

// ttft is the mean time to first token of a run in ms.
func (l *lab) ttft(r run) float64 { return l.get(r).TTFT.Mean }

// ratios are those of our mean times to that of another contender.
func ratios(workload, scenario, other string, loads ...float64) func(*lab) []float64 {
	return func(l *lab) (values []float64) {
		for _, load := range loads {
			mine := run{workload: workload, contender: ours, load: load, scenario: scenario}
			theirs := mine
			theirs.contender = other
			values = append(values, ratio(l.ttft(mine), l.ttft(theirs)))
		}
		return values
	}
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return math.NaN()
	}
	return a / b
}

// rules are the peers that count as rules of peers; sticky sessions are the plain form
// of one of them.
func rules() (names []string) {
	for _, p := range peers.All {
		if p.Name != "sticky" {
			names = append(names, p.Name)
		}
	}
	return names
}

// toBestPeer are the ratios of our mean times to those of the best peer.
func toBestPeer(workload, scenario string, loads ...float64) func(*lab) []float64 {
	return func(l *lab) (values []float64) {
		for _, load := range loads {
			best := math.Inf(1)
			for _, name := range rules() {
				best = min(best, l.ttft(run{workload: workload, contender: name, load: load, scenario: scenario}))
			}
			values = append(values, ratio(l.ttft(run{workload: workload, contender: ours, load: load, scenario: scenario}), best))
		}
		return values
	}
}

const threeSpeeds = "speeds=1:1.6:2.5"

// figures are all that are promised. Load 1.0 is what `headway simulate` says of it.
func figures() []figure { return slices.Concat(ofConversation(), ofFleets(), ofKnowledge()) }

// ofConversation are the figures of the conversation trace on equal heads, and the worst
// of all.
func ofConversation() []figure {
	return []figure{
		{
			what: "conversation: mean time to first token ÷ round_robin", at: loads(0.6, 0.8, 0.95), goals: []float64{0.45, 0.20, 0.08},
			value: ratios("conversation", "", "round_robin", 0.6, 0.8, 0.95), quick: true,
		},
		{
			what: "÷ least_loaded", at: loads(0.8, 0.95), goals: []float64{0.60, 0.40},
			value: ratios("conversation", "", "least_loaded", 0.8, 0.95), quick: true,
		},
		{
			what: "÷ greedy oracle", at: loads(0.6, 0.8, 0.95, 1.1), goals: []float64{1.05, 1.08, 1.12, 1.25},
			value: ratios("conversation", "", "oracle", 0.6, 0.8, 0.95, 1.1),
		},
		{
			what: "load carried at 95 % goodput ÷ round_robin", at: []string{""}, goals: []float64{2.4}, least: true,
			value: func(l *lab) []float64 {
				return []float64{ratio(l.carries("conversation", ours), l.carries("conversation", "round_robin"))}
			},
		},
		{
			what: "goodput", at: loads(1.1), goals: []float64{0.9}, least: true,
			value: func(l *lab) []float64 {
				return []float64{l.get(run{workload: "conversation", contender: ours, load: 1.1}).Goodput}
			},
		},
		{
			what: "÷ the best of round_robin, least_loaded and a Dynamo-like cost, the worst of all workloads, loads and scenarios", at: []string{""}, goals: []float64{1.03},
			value:  func(l *lab) []float64 { return []float64{compared(l)[0].ratio} },
			detail: func(l *lab) []string { return lines(compared(l)) },
		},
	}
}

// ofFleets are the figures of heads of several speeds, and of agents.
func ofFleets() []figure {
	return []figure{
		{
			what: "three speeds (1 : 1.6 : 2.5) ÷ greedy oracle", at: loads(0.8, 0.95), goals: []float64{1.03, 1.03},
			value: ratios("conversation", threeSpeeds, "oracle", 0.8, 0.95),
		},
		{
			what: "three speeds ÷ best rule of a peer", at: loads(0.8, 0.95), goals: []float64{0.8, 0.8},
			value: toBestPeer("conversation", threeSpeeds, 0.8, 0.95),
		},
		{
			what: "agents ÷ greedy oracle", at: loads(0.6, 0.8, 0.95), goals: []float64{1.03, 1.06, 1.10},
			value: ratios("agents", "", "oracle", 0.6, 0.8, 0.95),
		},
		{
			what: "agents ÷ best rule of a peer", at: loads(0.6, 0.8, 0.95), goals: []float64{1, 1, 1},
			value: toBestPeer("agents", "", 0.6, 0.8, 0.95),
		},
		{
			what: "agents: mean completion of a session ÷ the better of sticky sessions and CHWBL", at: loads(0.8), goals: []float64{0.9},
			value: func(l *lab) []float64 {
				session := func(name string) float64 {
					return l.get(run{workload: "agents", contender: name, load: 0.8}).Session.Mean
				}
				return []float64{ratio(session(ours), min(session("sticky"), session("chwbl")))}
			},
		},
	}
}

// ofKnowledge are the figures of routers that know less, or learn.
func ofKnowledge() []figure {
	return []figure{
		{
			what: "decision API with reports every 1 s ÷ proxy", at: loads(0.6, 0.8, 0.95), goals: []float64{1.05, 1.05, 1.05},
			value: func(l *lab) (values []float64) {
				for _, load := range []float64{0.6, 0.8, 0.95} {
					r := run{workload: "conversation", contender: ours, load: load, scenario: "blind"}
					blind := l.ttft(r)
					r.scenario = ""
					values = append(values, ratio(blind, l.ttft(r)))
				}
				return values
			},
		},
		{
			what: "8 routers, state each 20 ms and each 5 ms, ÷ one", at: []string{"20 ms", "5 ms"}, goals: []float64{1.05, 1.03},
			value: func(l *lab) []float64 {
				one := run{workload: "conversation", contender: ours, load: 0.8}
				r20, r5 := one, one
				r20.routers, r20.window = 8, 20*time.Millisecond
				r5.routers, r5.window = 8, 5*time.Millisecond
				return []float64{ratio(l.ttft(r20), l.ttft(one)), ratio(l.ttft(r5), l.ttft(one))}
			},
		},
		{
			what: "equal heads: with learned speed ÷ without, the worst of all workloads and loads", at: []string{""}, goals: []float64{1.02},
			value:  func(l *lab) []float64 { return []float64{learned(l)[0].ratio} },
			detail: func(l *lab) []string { return lines(learned(l)) },
		},
		{
			what: "rank correlation of mean regret with mean time to first token, over 15 strategies", at: loads(0.6, 0.8, 0.95), goals: []float64{0.85, 0.85, 0.85}, least: true,
			value: rankCorrelations,
		},
	}
}

// learned are our mean times with learned speeds beside those without, on equal heads,
// the worst first.
func learned(l *lab) (places []place) {
	for _, w := range workloads {
		for _, load := range []float64{0.6, 0.8, 0.95} {
			with := run{workload: w.name, contender: ours, load: load}
			without := with
			without.contender = peers.Unlearned
			places = append(places, place{run: with, ratio: ratio(l.ttft(with), l.ttft(without)), other: "without"})
		}
	}
	return worstFirst(places)
}

// ranked are the strategies whose regret is compared with their mean time.
func ranked() []string {
	return append([]string{ours, "least_loaded", "round_robin", "random", "power_of_two", "session_affinity", "sticky"}, rules()...)
}

// rankCorrelations are those of the mean regret of strategies with their mean time to
// the first token (Spearman).
func rankCorrelations(l *lab) (values []float64) {
	for _, load := range []float64{0.6, 0.8, 0.95} {
		var regret, ttft []float64
		for _, name := range ranked() {
			r := l.get(run{workload: "conversation", contender: name, load: load})
			regret, ttft = append(regret, r.regret), append(ttft, r.TTFT.Mean)
		}
		values = append(values, spearman(regret, ttft))
	}
	return values
}

// spearman is the rank correlation of two lists.
func spearman(a, b []float64) float64 {
	ra, rb := ranks(a), ranks(b)
	sum := 0.
	for i := range ra {
		sum += (ra[i] - rb[i]) * (ra[i] - rb[i])
	}
	n := float64(len(ra))
	return 1 - 6*sum/(n*(n*n-1))
}

// ranks are the places of values in order; they are not equal.
func ranks(values []float64) []float64 {
	sorted := slices.Sorted(slices.Values(values))
	list := make([]float64, len(values))
	for i, v := range values {
		list[i] = float64(slices.Index(sorted, v))
	}
	return list
}

// place is where a strategy was compared with others.
type place struct {
	run
	ratio float64
	other string
}

// shortRun is how many requests runs have of which there are many.
const shortRun = 4000

// everywhere are the runs in which we must not be worse than simple rules.
func everywhere() (runs []run) {
	for _, w := range workloads {
		for _, load := range []float64{0.8, 0.95} {
			for _, scenario := range []string{"", threeSpeeds, "brownout", "death", "region-loss", "fail-fast", "slow-join", "stale-reports", "blind"} {
				runs = append(runs, run{workload: w.name, contender: ours, load: load, scenario: scenario, requests: shortRun})
			}
		}
	}
	return runs
}

// simple are the rules that no other may do worse than.
var simple = []string{"round_robin", "least_loaded", "dynamo"}

// compared are all places of everywhere beside the best of the simple rules there, the
// worst first.
func compared(l *lab) (places []place) {
	for _, r := range everywhere() {
		p := place{run: r}
		for _, name := range simple {
			theirs := r
			theirs.contender = name
			if v := ratio(l.ttft(r), l.ttft(theirs)); !(v <= p.ratio) {
				p.ratio, p.other = v, name
			}
		}
		places = append(places, p)
	}
	return worstFirst(places)
}

func worstFirst(places []place) []place {
	slices.SortStableFunc(places, func(a, b place) int { return cmp.Compare(b.ratio, a.ratio) })
	return places
}

// lines name the first places.
func lines(places []place) (text []string) {
	for _, p := range places[:8] {
		text = append(text, fmt.Sprintf("%s at %v %s: %.3f × %s", p.workload, p.load, p.scenario, p.ratio, p.other))
	}
	return text
}
