// Package engine models an inference engine with continuous batching, chunked
// prefill and a prefix cache. It has no clock, no randomness and no I/O, so that
// real heads and simulations run the same model.
package engine

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Request is one sequence to generate.
type Request struct {
	PromptTokens int      // at least 1
	OutputTokens int      // at least 1; the sequence ends after as many
	Blocks       []uint64 // chained hashes of the prompt's whole blocks of BlockTokens; more are ignored
}

// Sequence identifies a request in an [Engine]. It is not safe for use during a
// call of the engine.
type Sequence struct {
	request   Request
	stage     stage
	computed  int // tokens whose KV exists
	target    int // tokens that must be computed before the next one is generated
	generated int
	cached    int // tokens found in the cache when admitted first
	expected  int // tokens found in the cache when submitted
	chunk     int // tokens computed in the step under way
	held      []*block
	pages     int // private
}

type stage uint8

const (
	stageWaiting stage = iota
	stageRunning
	stageGone // finished or canceled
)

// Cached is the number of prompt tokens that needed no computation.
func (s *Sequence) Cached() int { return s.cached }

func (s *Sequence) prefilling() bool { return s.computed < s.target }

// Token is one output token of a sequence.
type Token struct {
	At       time.Duration // the end of the step that generated it
	Sequence *Sequence
	N        int  // 1 for the sequence's first token
	Last     bool // the sequence is finished and has left the engine
}

// Errors of [Engine.Submit].
var (
	// ErrTooLong reports a prompt and output beyond the context or the cache.
	ErrTooLong = errors.New("the sequence does not fit the head")
	// ErrQueueFull reports that the waiting queue is full.
	ErrQueueFull = errors.New("too many requests wait at the head")
)

// Counters are an engine's totals. Work counts when its step has ended.
type Counters struct {
	PromptTokens    uint64 // of sequences whose prefill is finished
	OutputTokens    uint64
	ComputedTokens  uint64 // prompt and output, computed again after a preemption included
	PrefixQueries   uint64 // prompt tokens looked up in the cache
	PrefixHits      uint64 // of these, found
	LoadedTokens    uint64 // of these, loaded from the CPU tier
	Preemptions     uint64
	Steps           uint64
	Finished        uint64
	Canceled        uint64
	RefusedTooLong  uint64
	RefusedFullWait uint64
}

// Load is an engine's work at one moment.
type Load struct {
	Running             int
	Waiting             int
	PendingPromptTokens int     // accepted, not cached as far as known, not computed
	KVUsage             float64 // share of the KV cache that sequences hold, 0..1
	KVCapacityTokens    int
	TokensPerSecond     float64 // prompt and output tokens computed lately
	Utilization         float64 // share of recent time in which a step ran, 0..1
}

// Options say what is modeled. Profile and MaxWaiting are required.
type Options struct {
	Profile    Profile
	MaxWaiting int           // requests that may wait until a batch has room for them
	Window     time.Duration // time constant of the rates of [Load]; 0: 2 s
}

// Engine models continuous batching with chunked prefill and prefix caching
// like vLLM V1: decodes first, then prefills in order of arrival. A waiting
// sequence is admitted when its prompt fits the KV cache. If a decode finds no
// memory, the newest sequence is preempted and recomputed. The first token
// comes at the end of the step that finishes the prefill.
//
// Time is passed in and never goes back: an earlier time counts as the last
// one. Each call first plays the steps that end until then, so results do not
// depend on how often [Engine.Advance] is called. An Engine is not safe for
// concurrent use.
type Engine struct {
	profile    Profile
	maxWaiting int
	cache      *kvCache
	waiting    []*Sequence
	running    []*Sequence // in order of admission

	now   time.Duration
	until time.Duration // end of the step under way
	took  time.Duration // that the step takes; 0: idle
	chunk int           // tokens that the step computes

	tokens   []Token // since the last Advance
	returned []Token // by the last Advance, to be reused
	counters Counters
	meter    meter
}

// New makes an idle engine.
func New(o Options) (*Engine, error) {
	if err := o.Profile.validate(); err != nil {
		return nil, fmt.Errorf("make an engine: %w", err)
	}
	if o.MaxWaiting < 1 {
		return nil, fmt.Errorf("make an engine: MaxWaiting is %d, want at least 1", o.MaxWaiting)
	}
	if o.Window <= 0 {
		o.Window = 2 * time.Second
	}
	return &Engine{
		profile: o.Profile, maxWaiting: o.MaxWaiting, cache: newKVCache(&o.Profile),
		meter: meter{window: o.Window.Seconds()},
	}, nil
}

// Next is when the current step ends, or false when the engine is idle. Nothing
// changes before then without a Submit or Cancel.
func (e *Engine) Next() (time.Duration, bool) { return e.until, e.took > 0 }

// Advance plays the model up to a time and returns all tokens since the last
// Advance, by time and within a step by admission. The slice is valid until the
// next Advance.
func (e *Engine) Advance(now time.Duration) []Token {
	e.run(now)
	e.tokens, e.returned = e.returned[:0], e.tokens
	return e.returned
}

func (e *Engine) run(now time.Duration) {
	for e.took > 0 && e.until <= now {
		e.now = e.until
		e.end()
		e.begin()
	}
	e.now = max(e.now, now)
}

// Submit queues a request. Errors wrap [ErrTooLong] or [ErrQueueFull].
func (e *Engine) Submit(now time.Duration, r Request) (*Sequence, error) {
	e.run(now)
	if r.PromptTokens < 1 || r.OutputTokens < 1 {
		return nil, fmt.Errorf("submit %d prompt and %d output tokens: want at least 1 of each",
			r.PromptTokens, r.OutputTokens)
	}
	if limit := e.MaxTokens(); r.PromptTokens > limit || r.OutputTokens > limit-r.PromptTokens {
		e.counters.RefusedTooLong++
		return nil, fmt.Errorf("%w: %d prompt and %d output tokens, at most %d together",
			ErrTooLong, r.PromptTokens, r.OutputTokens, limit)
	}
	if len(e.waiting) >= e.maxWaiting {
		e.counters.RefusedFullWait++
		return nil, fmt.Errorf("%w: %d", ErrQueueFull, len(e.waiting))
	}
	if whole := r.PromptTokens / BlockTokens; len(r.Blocks) > whole {
		r.Blocks = r.Blocks[:whole]
	}
	s := &Sequence{request: r, target: r.PromptTokens}
	resident, tiered := e.cache.match(s.reusable())
	s.expected = (resident + tiered) * BlockTokens
	e.waiting = append(e.waiting, s)
	if e.took == 0 {
		e.begin()
	}
	return s, nil
}

// MaxTokens is the limit on prompt plus output tokens of a request.
func (e *Engine) MaxTokens() int {
	return min(e.profile.MaxContext, e.cache.total*pageTokens)
}

// Cancel removes a sequence and frees its memory. A finished or canceled one is
// ignored.
func (e *Engine) Cancel(now time.Duration, s *Sequence) {
	e.run(now)
	switch s.stage {
	case stageWaiting:
		e.waiting = remove(e.waiting, s)
	case stageRunning:
		e.running = remove(e.running, s)
	case stageGone:
		return
	}
	e.free(s)
	s.stage = stageGone
	e.counters.Canceled++
}

// begin plans the next step, if there is work.
func (e *Engine) begin() {
	var w work
	budget := e.profile.StepTokens
	preempted := e.planDecodes(&w, &budget)
	e.planPrefills(&w, &budget)
	if !preempted {
		e.admit(&w, &budget)
	}
	e.took, e.chunk = 0, w.tokens
	if w.tokens > 0 {
		e.took = max(1, e.profile.duration(&w)) // a step of no time would never end
		e.until = e.now + e.took
	}
}

// planDecodes schedules one token for each prefilled sequence and reports
// whether others were preempted.
func (e *Engine) planDecodes(w *work, budget *int) (preempted bool) {
	for i := 0; i < len(e.running); i++ {
		s := e.running[i]
		if s.prefilling() {
			continue
		}
		for !e.grow(s, s.computed+1) {
			preempted = true
			e.preempt()
			if s.stage != stageRunning {
				return preempted // it was the last one itself
			}
		}
		s.chunk = 1
		w.decode(s.computed)
		*budget--
	}
	return preempted
}

func (e *Engine) planPrefills(w *work, budget *int) {
	for _, s := range e.running {
		if *budget == 0 {
			return
		}
		if s.prefilling() {
			e.planChunk(s, w, budget)
		}
	}
}

func (e *Engine) planChunk(s *Sequence, w *work, budget *int) {
	s.chunk = min(*budget, s.target-s.computed)
	w.prefill(s.chunk, s.computed)
	*budget -= s.chunk
}

// admit moves waiting sequences into the batch in order, until one does not
// fit.
func (e *Engine) admit(w *work, budget *int) {
	n := 0
	for n < len(e.waiting) && *budget > 0 && len(e.running) < e.profile.MaxSequences {
		s := e.waiting[n]
		loaded, ok := e.allocate(s)
		if !ok {
			break
		}
		n++
		s.stage = stageRunning
		e.running = append(e.running, s)
		w.loaded += loaded
		e.planChunk(s, w, budget)
	}
	e.waiting = slices.Delete(e.waiting, 0, n)
}

// allocate reserves the memory for the tokens that a sequence computes before
// its next token, sharing cached blocks. It returns the tokens to load from the
// CPU tier; ok is false if they do not fit.
func (e *Engine) allocate(s *Sequence) (loaded int, ok bool) {
	resident, tiered := e.cache.match(s.reusable())
	hits := s.reusable()[:resident+tiered]
	for _, h := range hits[:resident] {
		s.held = append(s.held, e.cache.hold(h))
	}
	pages := pagesFor(s.target - resident*BlockTokens)
	if !e.cache.take(pages) {
		e.cache.release(s.held)
		s.held = s.held[:0]
		return 0, false
	}
	s.pages = pages
	s.computed = len(hits) * BlockTokens
	e.publish(s)

	e.counters.PrefixQueries += uint64(s.target)
	e.counters.PrefixHits += uint64(s.computed)
	e.counters.LoadedTokens += uint64(tiered) * BlockTokens
	if s.generated == 0 {
		s.cached = s.computed
	}
	return tiered * BlockTokens, true
}

// reusable returns the blocks that may come from the cache. At least one token
// is always computed, since generating needs its activations.
func (s *Sequence) reusable() []uint64 {
	return s.request.Blocks[:min(len(s.request.Blocks), (s.target-1)/BlockTokens)]
}

// publish makes each computed whole prompt block available to others.
func (e *Engine) publish(s *Sequence) {
	for n := len(s.held); n < len(s.request.Blocks) && (n+1)*BlockTokens <= s.computed; n++ {
		s.held = append(s.held, e.cache.publish(s.request.Blocks[n]))
		s.pages -= blockPages
	}
}

func (e *Engine) grow(s *Sequence, n int) bool {
	missing := pagesFor(n-len(s.held)*BlockTokens) - s.pages
	if missing <= 0 {
		return true
	}
	if !e.cache.take(missing) {
		return false
	}
	s.pages += missing
	return true
}

// preempt returns the newest sequence to the head of the queue. Its output is
// kept, its KV is recomputed.
func (e *Engine) preempt() {
	last := len(e.running) - 1
	s := e.running[last]
	e.running = slices.Delete(e.running, last, last+1)
	e.free(s)
	s.stage = stageWaiting
	s.computed, s.chunk, s.expected = 0, 0, 0
	s.target = s.request.PromptTokens + s.generated
	e.waiting = slices.Insert(e.waiting, 0, s)
	e.counters.Preemptions++
}

func (e *Engine) free(s *Sequence) {
	e.cache.release(s.held)
	e.cache.give(s.pages)
	s.held, s.pages = nil, 0
}

func (e *Engine) end() {
	e.counters.Steps++
	e.counters.ComputedTokens += uint64(e.chunk)
	e.meter.add(e.now, e.took, e.chunk)
	kept := e.running[:0]
	for _, s := range e.running {
		s.computed += s.chunk
		advanced := s.chunk > 0 && !s.prefilling()
		s.chunk = 0
		e.publish(s)
		if advanced {
			e.generate(s)
		}
		if s.stage == stageRunning {
			kept = append(kept, s)
		}
	}
	clear(e.running[len(kept):])
	e.running = kept
}

func (e *Engine) generate(s *Sequence) {
	s.generated++
	s.target = s.request.PromptTokens // what is computed past it was generated
	e.counters.OutputTokens++
	t := Token{At: e.now, Sequence: s, N: s.generated, Last: s.generated == s.request.OutputTokens}
	if t.N == 1 {
		e.counters.PromptTokens += uint64(s.request.PromptTokens)
	}
	if t.Last {
		e.free(s)
		s.stage = stageGone
		e.counters.Finished++
	}
	e.tokens = append(e.tokens, t)
}

// Load is the engine's work at a time.
func (e *Engine) Load(now time.Duration) Load {
	e.run(now)
	l := Load{
		Running: len(e.running), Waiting: len(e.waiting),
		KVUsage: e.cache.used(), KVCapacityTokens: e.profile.KVTokens,
	}
	for _, s := range e.waiting {
		l.PendingPromptTokens += s.target - s.expected
	}
	for _, s := range e.running {
		l.PendingPromptTokens += max(0, s.target-s.computed)
	}
	l.TokensPerSecond, l.Utilization = e.meter.rates(e.now)
	return l
}

// Counters are the totals at the time of the last call.
func (e *Engine) Counters() Counters { return e.counters }

func remove(list []*Sequence, s *Sequence) []*Sequence {
	i := slices.Index(list, s)
	return slices.Delete(list, i, i+1)
}

// SetProfile has the engine work by other costs from its next step on. What it holds
// in memory stays as it is.
func (e *Engine) SetProfile(now time.Duration, p Profile) {
	e.run(now)
	e.profile = p
}
