package proxy

import (
	"context"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"headway/internal/openai"
	"headway/internal/policy"
	"headway/internal/routing"
	"headway/internal/upstream"
)

// hedgeShare is the part of the requests that may be sent to a second head.
const hedgeShare = 0.02

// hedging is what is known of the times until first contents, and the budget.
type hedging struct {
	won, lost, failed, refused, forgotten prometheus.Counter

	fleet  routing.Fleet
	budget budget
	mu     sync.Mutex
	times  map[timesKey]*times
}

func newHedging(reg prometheus.Registerer, fleet routing.Fleet) *hedging {
	auto := promauto.With(reg)
	ended := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "headway_proxy_hedges_total", Help: "Requests that were sent to a second head since the first was slow, by result: won, the second one answered; lost, the first did; failed, neither.",
	}, []string{"result"})
	return &hedging{
		won: ended.WithLabelValues("won"), lost: ended.WithLabelValues("lost"), failed: ended.WithLabelValues("failed"),
		refused: auto.NewCounter(prometheus.CounterOpts{
			Name: "headway_proxy_hedges_refused_total", Help: "Requests that were not sent to a second head though the first was slow, since 2 % of them were.",
		}),
		forgotten: auto.NewCounter(prometheus.CounterOpts{
			Name: "headway_proxy_hedge_times_refused_total", Help: "Times until the first content that no quantile for hedging was learnt from, since too many models have one.",
		}),
		fleet: fleet, budget: budget{share: hedgeShare, have: 1}, times: map[timesKey]*times{},
	}
}

type timesKey struct {
	model  string
	stream bool
}

// Bounds of what is kept of times.
const (
	maxTimes  = 2048 // model types, streams apart
	keptTimes = 256  // of each
	leastSeen = 20   // before a quantile of them counts
)

// times are the latest times of one kind of request, in no order once all are kept.
type times struct {
	list []time.Duration
	next int
}

// saw notes the time that one request took until its first content.
func (h *hedging) saw(key timesKey, took time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.times[key]
	if t == nil {
		if len(h.times) >= maxTimes && !h.makeRoom() {
			h.forgotten.Inc()
			return
		}
		t = new(times)
		h.times[key] = t
	}
	if len(t.list) < keptTimes {
		t.list = append(t.list, took)
		return
	}
	t.list[t.next] = took
	t.next = (t.next + 1) % keptTimes
}

// makeRoom forgets the models that no head has any more.
func (h *hedging) makeRoom() bool {
	pools := h.fleet.Snapshot().Pools
	for key := range h.times {
		if pools[key.model] == nil {
			delete(h.times, key)
		}
	}
	return len(h.times) < maxTimes
}

// after is the time without content after which a request is hedged. ok is false
// while it is not known.
func (h *hedging) after(p *policy.Hedge, key timesKey) (after time.Duration, ok bool) {
	if after := p.After(); after > 0 {
		return after, true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.times[key]
	if t == nil || len(t.list) < leastSeen {
		return 0, false
	}
	sorted := slices.Clone(t.list)
	slices.Sort(sorted)
	return sorted[min(int(p.Quantile*float64(len(sorted))), len(sorted)-1)], true
}

// race is a request that is sent to a second head if the first is slow.
type race struct {
	x       *exchange
	primary *side
	second  *side // nil: there is none
	ended   chan *side
	decided atomic.Bool // the second side may write to the caller
	settled bool        // of the sides, only the one that counts is left
}

// side is one of the two attempts. Its goroutine owns it until it has ended.
type side struct {
	*attempt
	cancel   context.CancelFunc
	done     chan struct{}
	res      *upstream.Response
	err      error
	good     bool // its answer is one for the caller, as far as its first content tells
	fails    bool // its stream began with an error
	panicked any
}

// do is Heads.Do for an attempt that may be hedged. The caller calls stop once the
// answer was read.
func (x *exchange) do() (res *upstream.Response, stop func(), err error) {
	p := x.proxy
	hedge := p.o.Router.Policy().HedgeOf(x.decision.ModelType)
	if hedge == nil || x.attempts > 1 || x.upload != nil || x.caller.Endpoint == PassThrough {
		res, err = p.o.Heads.Do(x.ctx, &x.call)
		return res, func() {}, err
	}
	p.hedging.budget.add()
	key := timesKey{x.decision.ModelType, x.fields.Stream}
	saw := func() {
		if hedge.Quantile > 0 && !x.first.IsZero() {
			p.hedging.saw(key, x.first.Sub(x.tried))
		}
	}
	after, known := p.hedging.after(hedge, key)
	if !known {
		res, err = p.o.Heads.Do(x.ctx, &x.call)
		return res, saw, err
	}
	r := race{x: x, ended: make(chan *side, 2)}
	defer r.settle()
	s := r.run(after)
	return s.res, func() { s.cancel(); saw() }, s.err
}

// run returns the side whose answer counts.
func (r *race) run(after time.Duration) *side {
	r.primary = r.start(&r.x.attempt, r.x.call.Silence)
	timer := time.NewTimer(after)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			r.hedge()
		case s := <-r.ended:
			if s.panicked != nil {
				panic(s.panicked)
			}
			other := r.other(s)
			if s.good || other == nil {
				r.won(s, other)
				return s
			}
			r.lost(s)
		}
	}
}

// start begins one side. The second one may write to the caller only once it has
// won, as the first may until it has lost.
func (r *race) start(a *attempt, silence func() (time.Time, error)) *side {
	ctx, cancel := context.WithCancel(r.x.ctx)
	s := &side{attempt: a, cancel: cancel, done: make(chan struct{})}
	s.call.Silence = silence
	go func() {
		defer func() {
			s.panicked = recover()
			close(s.done)
			r.ended <- s
		}()
		if s.res, s.err = s.x.proxy.o.Heads.Do(ctx, &s.call); s.err == nil {
			s.look()
		}
	}()
	return s
}

// look finds out whether an answer is one for the caller. It reads a stream up to its
// first content, and another answer as whole would, and puts that back.
func (s *side) look() {
	s.good = s.res.Status >= 200 && s.res.Status < 300 || s.res.Status == http.StatusNotImplemented ||
		s.res.Status >= 400 && s.res.Status < 500 && s.res.Status != http.StatusTooManyRequests && s.res.Status != http.StatusUnauthorized &&
			s.res.Status != http.StatusProxyAuthRequired && s.res.Status != statusClientGone
	if !s.good || s.res.Status >= 300 {
		return
	}
	s.good = false
	if isEvents(s.res.Header) {
		s.lookAtStream()
	} else {
		s.lookAtWhole()
	}
}

func (s *side) lookAtWhole() {
	answer := openai.Answer{}
	answer.Reset(s.x.caller.Endpoint, "")
	isJSON := mediaType(s.res.Header) == "application/json"
	if s.good = !isJSON && s.res.ContentLength < 0 || s.res.ContentLength > maxWhole; s.good {
		return
	}
	read, err := io.ReadAll(io.LimitReader(s.res.Body, maxWhole))
	s.res.Body.Unread(read)
	if isJSON {
		answer.Flush(answer.Push(nil, read))
		s.fails = len(read) < maxWhole && answer.Failed()
	}
	s.good = err == nil && !s.fails && (len(read) == maxWhole || !answer.Broken())
}

func (s *side) lookAtStream() {
	events := openai.Stream{Endpoint: s.x.caller.Endpoint}
	var read []byte
	defer func() { s.res.Body.Unread(read) }()
	c, _ := chunks.Get().(*chunk)
	defer chunks.Put(c)
	for held := 0; len(read) <= maxHeldBytes; {
		n, err := s.res.Body.Read(c.b[:])
		read = append(read, c.b[:n]...)
		for p := c.b[:n]; len(p) > 0; {
			e, rest, ok := events.Next(p)
			if p = rest; !ok {
				break
			}
			if counts(&e) {
				held++
			}
			switch {
			case e.Class == openai.Failed:
				s.fails = true
				return
			case e.Class == openai.Content || e.Class == openai.Done || held > maxHeldEvents:
				s.good = true
				return
			}
		}
		if err != nil {
			return // Read says so again
		}
	}
	s.good = true
}

// hedge sends the request to a second head, if the budget and the fleet allow it and no
// request waits for the place.
func (r *race) hedge() {
	x, p := r.x, r.x.proxy
	if p.o.Admission.Busy(x.decision.ModelType) { // also where that is a fallback
		return
	}
	if !p.hedging.budget.take() {
		p.hedging.refused.Inc()
		x.unhedged = true
		return
	}
	d, err := p.o.Router.Hedge(x.decision, &x.req)
	if err != nil {
		p.hedging.budget.giveBack()
		return
	}
	if d.Head.Ejected() { // the last resort only
		p.o.Router.End(d, withdrawn())
		p.hedging.budget.giveBack()
		return
	}
	a := &attempt{x: x, decision: d}
	a.start(x.attempts+1, p.o.Now())
	silence := a.call.Silence
	if silence != nil {
		silence = func() (time.Time, error) {
			if !r.decided.Load() {
				return time.Now().Add(p.o.Limits.Comment / 4), nil
			}
			return x.silent()
		}
	}
	r.second = r.start(a, silence)
}

// other is the side beside s that has not ended.
func (r *race) other(s *side) *side {
	for _, o := range []*side{r.primary, r.second} {
		if o != nil && o != s && o.decision != nil {
			return o
		}
	}
	return nil
}

// lost ends the side that failed, while the other goes on.
func (r *race) lost(s *side) {
	p := r.x.proxy
	var f *failure
	switch {
	case s.err != nil:
		f = s.broken(s.err)
	case s.fails:
		s.failing(reasonErrorInside)
		f = &failure{outcome: s.outcome(routing.ResultError, http.StatusBadGateway)}
	case s.res.Status < 300: // it broke off
		_, err := io.Copy(io.Discard, s.res.Body)
		if err == nil {
			err = &upstream.Error{Kind: upstream.EndOfStream, Sent: true, Received: true, Err: io.ErrUnexpectedEOF}
		}
		f = s.broken(err)
	default:
		s.failingStatus(s.res.Status)
		f = s.unusable(s.res)
	}
	s.close()
	s.called(&f.outcome)
	if p.o.Failed != nil && f.outcome.Blames() {
		p.o.Failed(s.decision.Head)
	}
	p.o.Router.End(s.decision, f.outcome)
	if s == r.second {
		r.x.beside = s.decision
	}
	s.decision = nil
	if s == r.primary { // what the second one has begun is the caller's now
		r.x.placed, r.x.attempts = r.second.decision, r.second.number
		r.decided.Store(true)
	}
}

// won makes s the attempt of the exchange, and ends the other one without blame.
func (r *race) won(s, other *side) {
	x, p := r.x, r.x.proxy
	if other != nil {
		other.cancel()
		<-other.done
		other.close()
		o := withdrawn()
		other.called(&o)
		p.o.Router.End(other.decision, o)
		other.decision = nil
	}
	r.decided.Store(true)
	r.settled = true
	if r.second == nil {
		return
	}
	x.attempts = r.second.number
	switch {
	case !s.good:
		p.hedging.failed.Inc()
	case s == r.primary:
		p.hedging.lost.Inc()
	default:
		p.hedging.won.Inc()
	}
	if s == r.primary {
		return
	}
	x.attempt, x.placed = *s.attempt, s.decision
}

func (s *side) close() {
	s.cancel()
	if s.res != nil {
		_ = s.res.Body.Close()
	}
}

// settle ends what runs on after a panic.
func (r *race) settle() {
	for _, s := range []*side{r.primary, r.second} {
		if r.settled || s == nil {
			continue
		}
		s.cancel()
		<-s.done
		s.close()
		if s == r.second && s.decision != nil {
			r.x.proxy.o.Router.End(s.decision, withdrawn())
		}
	}
}
