// Package peers has the rules of other routers, written from what they publish, as
// strategies beside ours. The program that measures imports it; the product never
// does. It adds the strategies before internal/policy looks them up, which comes later
// in the order of import paths.
package peers

import (
	"math"

	"headway/internal/fleet"
	"headway/internal/strategy"
	"headway/internal/strict"
)

// Peer is the rule of another router. It sees what our strategies see, so that rules
// are compared and not what the routers know: exact counts of the requests and tokens in
// flight, and our index of prefixes. Several of them know less in their own products.
type Peer struct {
	Name    string // as a strategy
	Shown   string
	Source  string
	Formula string
	// Polls says that heads report every 50 ms, as the router reads their metrics.
	Polls bool
	rule  rule
}

// rule writes the cost of each head, the least wins.
type rule func(in *strategy.Input, heads []*fleet.Head, costs []float64)

// blockTokens is the size of a block in rules that count blocks.
const blockTokens = 512

// All are all peers.
var All = []Peer{
	{
		Name: "llmd", Shown: "llm-d 3/2/2",
		Source:  "llm-d 0.8, architecture/core/router/epp/scheduling: prefix-cache-scorer 3, queue-scorer 2, kv-cache-utilization-scorer 2",
		Polls:   true,
		Formula: "argmax 3 · matched + 2 · (max queue - queue) / (max queue - min queue) + 2 · (1 - kv_usage)",
		rule:    llmd,
	},
	{
		Name: "llmd_gate", Shown: "llm-d with its prefix gate",
		Source:  "llm-d, architecture/advanced/latency-predictor: prefix-cache-affinity-filter keeps heads with 80 % of the prompt, unless the best of them is predicted to begin 5 s later than another",
		Polls:   true,
		Formula: "llmd among heads with matched ≥ 0.8 whose predicted wait is at most 5 s above the least",
		rule:    llmdGate,
	},
	{
		Name: "sglang", Shown: "SGLang cache_aware",
		Source:  "sglang-router, cache_aware: cache_threshold 0.3, balance_abs_threshold 64, balance_rel_threshold 1.5",
		Formula: "if max - min > 64 and max > 1.5 · min of requests: argmin requests; else if the best match > 0.3: that head; else the head with the smallest tree",
		rule:    sglang,
	},
	{
		Name: "smg", Shown: "SMG least_load",
		Source:  "lightseekorg/smg, least_load: the load is the length of the prompts in flight",
		Formula: "argmin tokens in flight",
		rule:    each(func(_ *strategy.Input, h strategy.Seen, _ float64) float64 { return float64(h.Head.Live.Tokens()) }),
	},
	{
		Name: "dynamo", Shown: "Dynamo-like KV cost",
		Source:  "Dynamo 1.2, design-docs/router-design: kv-overlap-score-weight 1, router-temperature 0",
		Formula: "argmin prefill blocks, queued and new, + blocks in flight with this request",
		rule: each(func(_ *strategy.Input, h strategy.Seen, tokens float64) float64 {
			return (h.Ahead+h.Uncached)/blockTokens + (float64(h.Head.Live.Tokens())+tokens)/blockTokens
		}),
	},
	{
		Name: "mooncake", Shown: "Mooncake, TTFT",
		Source:  "Mooncake (FAST '25), section 6: the least of queueing and prefill time by a model of lengths, without transfers of cache",
		Formula: "argmin pending + uncached, with attention",
		rule: each(func(in *strategy.Input, h strategy.Seen, tokens float64) float64 {
			return h.Ahead + in.Recalled.Pace.Weigh(tokens, h.Uncached)
		}),
	},
	{
		Name: "lmetric", Shown: "LMetric",
		Source:  "LMetric, arXiv 2603.15202: new prefill tokens, queued and of the request, times the batch",
		Formula: "argmin (pending + uncached) · (requests + 1)",
		rule: each(func(_ *strategy.Input, h strategy.Seen, _ float64) float64 {
			return (h.Ahead + h.Uncached) * (h.Requests + 1)
		}),
	},
	{
		Name: "chwbl", Shown: "CHWBL 1.25",
		Source:  "Mirrokni, Thorup and Zadimoghaddam, 2018: consistent hashing with bounded loads; of the session, without one of the prompt's second block",
		Formula: "argmin hash(session, h) among heads with requests < ⌈1.25 · (Σ requests + 1) / heads⌉",
		rule:    hashed(1.25),
	},
	{
		Name: "sticky", Shown: "sticky sessions",
		Source:  "consistent hashing of the session alone",
		Formula: "argmin hash(session, h)",
		rule:    hashed(math.Inf(1)),
	},
}

func init() {
	for _, p := range All {
		strategy.Add(strategy.Spec{
			Name: p.Name, Summary: p.Shown + ". " + p.Source, Formula: p.Formula,
			New: func(strategy.Values, strategy.Build) (strategy.Strategy, []strict.Fault) {
				return byRule{p.rule}, nil
			},
		})
	}
}

// Unlearned is the strategy adaptive with all heads taken to be equally fast, to see
// what it is worth that it learns their speeds.
const Unlearned = "adaptive_unlearned"

func init() {
	strategy.Add(strategy.Spec{
		Name: Unlearned, Summary: "adaptive, with all heads taken to be equally fast.",
		Formula: "argmin (ahead + (1 + κ) · uncached) · (requests + 16) · (1 + kv²)",
		New: func(strategy.Values, strategy.Build) (strategy.Strategy, []strict.Fault) {
			return byRule{unlearned}, nil
		},
	})
}

// Parameters of adaptive.
const (
	adaptiveBatch = 16
	adaptiveWait  = 8 // s
)

func unlearned(in *strategy.Input, heads []*fleet.Head, costs []float64) {
	tokens, ahead := in.Tokens(), 0.
	for _, h := range heads {
		ahead += in.See(h).Ahead
	}
	kappa := min(ahead/float64(len(heads))*tokenSeconds, adaptiveWait)
	for i, h := range heads {
		seen := in.See(h)
		work := seen.Ahead + (1+kappa)*in.Recalled.Pace.Weigh(tokens, seen.Uncached)
		costs[i] = work * (seen.Requests + adaptiveBatch) * (1 + seen.KV*seen.KV)
	}
}

// byRule is a strategy of a rule.
type byRule struct{ rule rule }

// Score implements strategy.Strategy.
func (s byRule) Score(in *strategy.Input, scores []float64) {
	in.RecallPrompt()
	s.rule(in, in.Heads(), scores)
	for i, h := range in.Heads() {
		if !in.Takes(h) {
			scores[i] = math.Inf(1)
		}
	}
}

// each is a rule that looks at one head after the other.
func each(cost func(in *strategy.Input, h strategy.Seen, tokens float64) float64) rule {
	return func(in *strategy.Input, heads []*fleet.Head, costs []float64) {
		tokens := in.Tokens()
		for i, h := range heads {
			costs[i] = cost(in, in.See(h), tokens)
		}
	}
}

// matched is the part of the prompt that a head has cached.
func matched(in *strategy.Input, h *fleet.Head) float64 {
	tokens := in.Tokens()
	return 1 - in.Uncached(h, tokens)/tokens
}

// Weights of llm-d's scorers.
const (
	llmdPrefix = 3.
	llmdQueue  = 2.
	llmdCache  = 2.
)

func llmd(in *strategy.Input, heads []*fleet.Head, costs []float64) {
	queue := func(h *fleet.Head) float64 { return float64(max(h.Live.Report().Queued, 0)) }
	least, most := math.Inf(1), math.Inf(-1)
	for _, h := range heads {
		least, most = min(least, queue(h)), max(most, queue(h))
	}
	for i, h := range heads {
		free := 1.
		if most > least {
			free = (most - queue(h)) / (most - least)
		}
		costs[i] = -llmdPrefix*matched(in, h) - llmdQueue*free - llmdCache*(1-h.Live.Report().KVCacheUsage)
	}
}

// Constants of llm-d's prefix gate. What waits is converted by the heads' profile.
const (
	gateMatched   = 0.8
	gateWait      = 5. // s
	tokenSeconds  = 65e-6
	gateExplores  = 0.01
	gateExploring = 1 << 32
)

func llmdGate(in *strategy.Input, heads []*fleet.Head, costs []float64) {
	llmd(in, heads, costs)
	wait := func(h *fleet.Head) float64 {
		seen := in.See(h)
		return (seen.Ahead + seen.Uncached) * tokenSeconds
	}
	least, leastMatched := math.Inf(1), math.Inf(1)
	for _, h := range heads {
		least = min(least, wait(h))
		if matched(in, h) >= gateMatched {
			leastMatched = min(leastMatched, wait(h))
		}
	}
	if leastMatched > least+gateWait || in.Rand.Float64() < gateExplores {
		return
	}
	for i, h := range heads {
		if matched(in, h) < gateMatched {
			costs[i] += gateExploring
		}
	}
}

// Thresholds of SGLang's cache_aware.
const (
	sglangMatch = 0.3
	sglangAbs   = 64
	sglangRel   = 1.5
)

// sglang takes the tree of the head for the smallest that got the fewest requests.
func sglang(in *strategy.Input, heads []*fleet.Head, costs []float64) {
	least, most, best := int64(math.MaxInt64), int64(0), 0.
	for _, h := range heads {
		n := h.Live.Requests()
		least, most, best = min(least, n), max(most, n), max(best, matched(in, h))
	}
	for i, h := range heads {
		switch {
		case most-least > sglangAbs && float64(most) > sglangRel*float64(least):
			costs[i] = float64(h.Live.Requests())
		case best > sglangMatch:
			costs[i] = -matched(in, h)
		default:
			costs[i] = float64(h.Live.Picks())
		}
	}
}

// hashed takes the first head by a hash whose requests are within a bound of the mean.
func hashed(bound float64) rule {
	return func(in *strategy.Input, heads []*fleet.Head, costs []float64) {
		all := 0.
		for _, h := range heads {
			all += float64(h.Live.Requests())
		}
		most := math.Ceil(bound * (all + 1) / float64(len(heads)))
		key := sessionOf(in)
		for i, h := range heads {
			costs[i] = math.Inf(1)
			if float64(h.Live.Requests()) < most {
				costs[i] = float64(strategy.Mix(key, h.Hash) >> 11)
			}
		}
	}
}

func sessionOf(in *strategy.Input) uint64 {
	if hash, ok := in.Session(); ok {
		return hash
	}
	if blocks := in.Request.PrefixHashes; len(blocks) > 0 {
		return blocks[min(1, len(blocks)-1)]
	}
	return in.Rand.Uint64()
}
