// Package rehearse plays a decision log again: under another policy, or without a head.
// The requests are those of the log, the heads are models of engines that are fitted to
// it, and the registry, the policy and the router are those of the service.
package rehearse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"headway/api"
	"headway/internal/engine"
	"headway/internal/policy"
	"headway/internal/sim"
	"headway/internal/workload"
)

// Log is what is played of a decision log, by model type: the newest of it, where all of
// it passes the bound.
type Log struct {
	Profile *engine.Profile // of all heads, in place of one that is fitted; nil: none
	Since   time.Time       // decisions before it are left out, as there are too many; zero: none
	pools   map[string]*Pool
	most    int // requests
	size    size
}

// NewLog plays at most so many requests, and of prompts mostBlocks times as many blocks.
func NewLog(most int) *Log { return &Log{pools: map[string]*Pool{}, most: most} }

// mostBlocks is the mean number of blocks of a prompt up to which the bound of requests
// is the one that holds: 8,192 tokens.
const mostBlocks = 8192 / workload.BlockTokens

// size is what requests take.
type size struct{ requests, blocks int }

func (s *size) add(r *request) {
	s.requests += r.copies()
	s.blocks += r.copies() * len(r.Blocks)
}

// Pool is the part of a log that is of one model type.
type Pool struct {
	Model    string
	requests []request
	heads    map[string]*head
	paces    pace
}

// request is a request with what was measured of it; 0: it was not.
type request struct {
	workload.Known
	at    time.Time
	share float64
	ttft  float64 // ms
	tpot  float64 // ms of each further token of the answer
	kv    float64 // tokens that a KV cache holds, by a head that had no request
}

// copies is how often it is played, at most: as often as it stands for requests that are
// not in the log.
func (r *request) copies() int { return min(max(int(math.Ceil(1/r.share)), 1), mostCopies) }

// mostCopies bounds how often one request is played.
const mostCopies = 1000

type head struct {
	region string
	slower float64
	weight float64
	seen   time.Time // the last time
}

// ErrTooLittle says that a log has too few requests to play.
var ErrTooLittle = errors.New("the decision log has too few requests")

// LeastRequests of a pool are needed to say anything.
const LeastRequests = 50

// Add takes a line of the log.
func (l *Log) Add(d *api.LoggedDecision) {
	if d.DecisionID == "" || d.InputTokens < 1 || !(d.Share > 0) || d.At.Before(l.Since) {
		return
	}
	p := l.pools[d.ModelType]
	if p == nil {
		p = &Pool{Model: d.ModelType, heads: map[string]*head{}}
		l.pools[d.ModelType] = p
	}
	l.size.add(p.add(d))
	if l.size.requests > l.most || l.size.blocks > l.most*mostBlocks {
		l.halve()
	}
}

// halve drops the older half of the decisions, and the heads that none of the others had
// to choose from.
func (l *Log) halve() {
	var times []time.Time
	for _, p := range l.pools {
		for i := range p.requests {
			times = append(times, p.requests[i].at)
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	l.Since, l.size = times[len(times)/2].Add(1), size{}
	for _, p := range l.pools {
		p.requests = slices.DeleteFunc(p.requests, func(r request) bool { return r.at.Before(l.Since) })
		maps.DeleteFunc(p.heads, func(_ string, h *head) bool { return h.seen.Before(l.Since) })
		for i := range p.requests {
			l.size.add(&p.requests[i])
		}
	}
}

// Pools are the model types with enough requests, by name, and the names of the others.
func (l *Log) Pools() (pools []*Pool, few []string) {
	for _, name := range slices.Sorted(maps.Keys(l.pools)) {
		if p := l.pools[name]; len(p.requests) >= LeastRequests {
			pools = append(pools, p)
		} else {
			few = append(few, name)
		}
	}
	return pools, few
}

func (p *Pool) add(d *api.LoggedDecision) *request {
	r := request{at: d.At, share: d.Share}
	r.Input, r.Output, r.Region, r.Session = int(d.InputTokens), 1, d.Region, d.Session
	if o := d.Outcome; o != nil {
		r.measure(o)
	}
	hashes := make([]uint64, 0, len(d.Blocks))
	for _, b := range d.Blocks {
		if n, err := strconv.ParseUint(b, 16, 64); err == nil {
			hashes = append(hashes, n)
		}
	}
	r.Blocks = workload.LoggedBlocks(hashes, r.Input, d.PromptBytes, int(d.BlockTokens))
	for i := range d.Heads {
		h := &d.Heads[i]
		p.heads[h.ID] = &head{h.Region, cmp.Or(h.Slower, 1), cmp.Or(h.Weight, 1), d.At}
		if h.PredictedMs != nil && h.Slower > 0 {
			u := h.UncachedTokens
			p.paces.add(h.AheadTokens+u, u*(float64(d.InputTokens)-u/2), *h.PredictedMs/h.Slower)
		}
		if h.Requests == 0 && h.KVUse > 0 {
			r.kv = float64(d.InputTokens) / h.KVUse
		}
	}
	p.requests = append(p.requests, r)
	return &p.requests[len(p.requests)-1]
}

// measure takes what the outcome says.
func (r *request) measure(o *api.LoggedOutcome) {
	if o.InputTokens != nil && *o.InputTokens > 0 {
		r.Input = int(*o.InputTokens)
	}
	if o.OutputTokens != nil && *o.OutputTokens > 0 {
		r.Output = int(*o.OutputTokens)
	}
	if o.TTFTMs != nil && o.Result == "ok" {
		r.ttft = *o.TTFTMs
		if o.DurationMs != nil && r.Output > 8 && *o.DurationMs > r.ttft {
			r.tpot = (*o.DurationMs - r.ttft) / float64(r.Output-1)
		}
	}
}

// known is what was measured of the requests, sorted.
func (p *Pool) known(of func(*request) float64) (sorted []float64) {
	for i := range p.requests {
		if v := of(&p.requests[i]); v > 0 {
			sorted = append(sorted, v)
		}
	}
	slices.Sort(sorted)
	return sorted
}

// Heads are the ids of the heads that requests had to choose from.
func (p *Pool) Heads() []string { return slices.Sorted(maps.Keys(p.heads)) }

// profile is how the pool's heads are modeled, and what of it is not by the log.
func (l *Log) profile(p *Pool) (profile engine.Profile, unknown []string) {
	if l.Profile != nil {
		return *l.Profile, nil
	}
	profile = engine.ProfileForModel(p.Model)
	usual := profile.Name
	if token, attention, ok := p.paces.fit(); ok {
		profile.B, profile.C = token, attention
	} else {
		unknown = append(unknown, "the time for a token of a prompt is that of "+usual)
	}
	if tpot := p.known(func(r *request) float64 { return r.tpot }); len(tpot) >= LeastRequests {
		times := tpot[len(tpot)/10] / (profile.T0 + profile.W) // while little else runs
		profile.T0, profile.W, profile.E, profile.D = profile.T0*times, profile.W*times, profile.E*times, profile.D*times
	} else {
		unknown = append(unknown, "the time for a token of an answer is that of "+usual)
	}
	if kv := p.known(func(r *request) float64 { return r.kv }); len(kv) >= LeastRequests {
		profile.KVTokens = min(max(int(kv[len(kv)/2]), engine.BlockTokens), math.MaxInt32)
	} else {
		unknown = append(unknown, "the size of the KV cache is that of "+usual)
	}
	profile.Name = "fitted to the log"
	return profile, unknown
}

// Run is one play of a pool.
type Run struct {
	Policy   *policy.Policy
	Has      func(head string) bool // heads that there are; nil: all of the log
	Progress func(int)              // called with the requests that ended; nil: none is
}

// Result is what callers would have seen.
type Result struct {
	Requests int
	Failed   int
	MeanMs   float64 // to the first token, as the others
	P50Ms    float64
	P95Ms    float64
	Goodput  float64 // share of requests within the objectives
	HitRate  float64 // share of prompt tokens that were cached
	InTime   float64 // share of requests that were answered when the last one came
}

// Measured is what the log says itself of the time to the first token; ok is false
// where too little was reported.
func (p *Pool) Measured() (r Result, ok bool) {
	ttft := p.known(func(r *request) float64 { return r.ttft })
	r = Result{Requests: len(ttft)}
	r.times(ttft)
	return r, len(ttft) >= LeastRequests
}

func (r *Result) times(sorted []float64) {
	if len(sorted) == 0 {
		return
	}
	for _, v := range sorted {
		r.MeanMs += v / float64(len(sorted))
	}
	r.P50Ms, r.P95Ms = sorted[len(sorted)/2], sorted[len(sorted)*95/100]
}

// Play plays a pool. Equal plays have equal results. unknown is what the model of the
// heads does not have from the log.
func (l *Log) Play(ctx context.Context, p *Pool, run Run) (r Result, unknown []string, err error) {
	profile, unknown := l.profile(p)
	o := sim.Options{Policy: run.Policy, Model: p.Model, Progress: run.Progress, Seed: 1}
	ids := p.Heads()
	for _, id := range ids {
		if h := p.heads[id]; run.Has == nil || run.Has(id) {
			o.Heads = append(o.Heads, sim.Head{Profile: profile, Speed: 1 / h.slower, Weight: h.weight, Region: h.region})
		}
	}
	if len(o.Heads) == 0 {
		return Result{Requests: len(p.requests), Failed: len(p.requests)}, unknown, nil
	}
	played := p.played()
	o.Source = workload.Exactly(played, 1)
	m, err := sim.Run(ctx, o)
	if err != nil {
		return r, unknown, fmt.Errorf("play the decision log: %w", err)
	}
	r = Result{Requests: m.Requests, Failed: m.Failed, Goodput: m.Goodput(), HitRate: m.HitRate()}
	r.times(m.TTFT)
	answered, _ := slices.BinarySearch(m.Ends, played[len(played)-1].At+1)
	r.InTime = float64(answered) / float64(max(m.Requests, 1))
	return r, unknown, nil
}

// played are the requests by their times. One that stands for others, which are not in
// the log, is played as often, at times nearby and as other conversations.
func (p *Pool) played() []workload.Known {
	random := rand.New(rand.NewPCG(1, 1))
	first := slices.MinFunc(p.requests, func(a, b request) int { return a.at.Compare(b.at) }).at
	var all []workload.Known
	for i := range p.requests {
		r := &p.requests[i]
		times := int(1/r.share + random.Float64())
		for n := range min(max(times, 1), mostCopies) {
			k := r.Known
			k.At = r.at.Sub(first)
			if n > 0 {
				k.At += time.Duration(random.Int64N(int64(time.Second)))
				k.Session, k.Blocks = other(k.Session, n), others(k.Blocks, n)
			}
			all = append(all, k)
		}
	}
	slices.SortStableFunc(all, func(a, b workload.Known) int { return cmp.Compare(a.At, b.At) })
	return all
}

func other(session string, n int) string {
	if session == "" {
		return ""
	}
	return session + "." + strconv.Itoa(n)
}

func others(blocks []uint64, n int) []uint64 {
	list := make([]uint64, len(blocks))
	for i, b := range blocks {
		list[i] = rand.NewPCG(b, uint64(n)).Uint64()
	}
	return list
}
