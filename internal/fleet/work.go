package fleet

import (
	"math"
	"time"
)

// Work is what a request brings to a head beside taking a place.
type Work struct {
	Tokens  int32 // of the prompt; 0: unknown
	New     int32 // of those, what the head has not cached, as far as known
	Pending int32 // what these weigh: as many, and more where they attend to much before them
}

// Answers gives back the pending tokens of a place whose answer began: with the first
// token, or whole, so that its first token was not seen. The caller does it once, or
// leaves them to the place.
func (l *Live) Answers(pending int32, whole bool) {
	l.pending.Add(-int64(pending))
	if whole {
		step(&l.unseen, endsOne)
	} else {
		step(&l.unseen, -endsOne)
	}
}

// sameStep is by how much requests may come apart and still be computed together, so
// that the first token of the later one says nothing of the other.
const sameStep = 100 * time.Millisecond

// Began notes the first token of a request that was placed then.
func (l *Live) Began(placed time.Time) {
	at := placed.UnixNano()
	for {
		if old := l.began.Load(); old >= at || l.began.CompareAndSwap(old, at) {
			return
		}
	}
}

// Passed reports whether a request that was placed later than then began to be answered.
func (l *Live) Passed(placed time.Time) bool {
	return l.began.Load()-int64(sameStep) > placed.UnixNano()
}

// Silent gives back the pending tokens of a place whose request gives no sign of life.
// The caller does it once, and leaves none to the place.
func (l *Live) Silent(pending int32) { l.pending.Add(-int64(pending)) }

// OwnPending is the weight of the prompts that this router sent and whose first token
// has not been seen.
func (l *Live) OwnPending() int64 { return l.pending.Load() }

// KVCapacity is how many tokens the head's KV cache holds by its reports, 0:
// unknown.
func (l *Live) KVCapacity() int64 { return l.capacity.Load() }

// Others is what other routers count at a head.
type Others struct {
	InFlight, Tokens, Pending int64
}

// SetOthers notes what all other routers together count at the head now.
func (l *Live) SetOthers(o Others) { l.others.Store(&o) }

func (l *Live) otherRouters() Others {
	if o := l.others.Load(); o != nil {
		return *o
	}
	return Others{}
}

// Own is what this router counts at the head, for the others.
func (l *Live) Own() Others { return Others{l.InFlight(), l.Tokens(), max(l.pending.Load(), 0)} }

// Requests is the number of requests that all routers count at the head, as far as
// they say.
func (l *Live) Requests() int64 { return l.InFlight() + l.otherRouters().InFlight }

// pair are two numbers in a word, which are read together.
func pair(a, b float64) uint64 {
	return uint64(math.Float32bits(float32(a)))<<32 | uint64(math.Float32bits(float32(b)))
}

func unpair(word uint64) (a, b float64) {
	return float64(math.Float32frombits(uint32(word >> 32))), float64(math.Float32frombits(uint32(word)))
}

// waiting is how many requests wait for their first token: those that are queued, or
// all where only these are counted.
func (l *Load) waiting() int64 {
	if l.Queued != Unknown {
		return l.Queued
	}
	return max(l.Requests(), 0)
}

// takeTokens notes what a report says of tokens. beyond is how many requests it has
// beyond ours, where it counts any.
//
// Live.aside are the requests beyond ours, or -1 where there is no count, and the
// pending tokens beyond ours; where the report has only the number of prompts that
// wait, these as a negative number. Live.kv is the part of the KV cache that is not
// of our tokens, and that which a token takes; -1 and 0 where nothing is known of it.
func (l *Live) takeTokens(load *Load, beyond float64, counted bool) {
	others := l.otherRouters()
	waits := -min(beyond, float64(load.waiting()))
	if load.PendingPromptTokens != Unknown {
		waits = float64(max(load.PendingPromptTokens-l.pending.Load()-others.Pending, 0))
		l.unsent.Store(load.PendingPromptTokens - l.sent.Load())
	}
	if !counted {
		beyond = -1
	}
	l.aside.Store(pair(beyond, waits))
	if load.KVCapacityTokens > 0 {
		l.capacity.Store(load.KVCapacityTokens)
	}
	each := 0.
	if holds := l.capacity.Load(); holds > 0 {
		each = 1 / float64(holds)
	}
	used := 0.
	switch {
	case !math.IsNaN(load.KVCacheUsage):
		used = load.KVCacheUsage - float64(l.Tokens()+others.Tokens)*each
	case each == 0:
		used = -1
	}
	l.kv.Store(pair(used, each))
}

// Burden is what strategies that count tokens know of a head.
type Burden struct {
	Requests float64 // that the routers count there
	Ahead    float64 // weight of their prompts whose first token has not been seen, in tokens
	Beyond   float64 // requests beyond those by the last report; below 0: it has no count
	Waiting  float64 // weight of the prompts beyond those, in tokens
	KV       float64 // the part of the KV cache that is used with one prompt more, 0 and up; below 0: nothing is known of it
	Reported bool    // Ahead is that of the last report and of what was sent since, all of it
}

// Burden estimates what the head has to do before and beside a prompt of so many
// tokens. Prompts of which a report has only the number count as usual tokens each.
// Where our own counts are not valid, those of the report and what was sent since
// stand in for them; own says that they are valid. It writes into b, since copying what
// was just written takes longer than all the rest.
func (l *Live) Burden(b *Burden, tokens, usual float64) (own bool) {
	there := float64(l.tokens.Load())
	b.Requests, b.Ahead = float64(l.load.Load()>>1), float64(max(l.pending.Load(), 0))
	b.Reported = false
	if o := l.others.Load(); o != nil {
		there += float64(o.Tokens)
		b.Requests += float64(o.InFlight)
		b.Ahead += float64(o.Pending)
	}
	b.Beyond, b.Waiting = unpair(l.aside.Load())
	used, each := unpair(l.kv.Load())
	if b.KV = used; each > 0 {
		b.KV = max(used+(there+tokens)*each, 0)
	}
	if b.Waiting < 0 {
		b.Waiting *= -usual
	}
	own = l.OwnCounts()
	if report := l.report.Load(); (!own || l.unseen.Load() > 0) && report != nil {
		l.byReport(b, report, own, usual)
	}
	return own
}

// byReport takes what the report says in place of our own counts that are not
// valid: that of pending tokens where first tokens are not seen, and that of requests
// where no ends are.
func (l *Live) byReport(b *Burden, report *Report, counts bool, usual float64) {
	pending := report.PendingPromptTokens != Unknown
	b.Reported = pending
	reported := float64(max(l.unsent.Load()+l.sent.Load(), 0))
	if counts {
		if pending { // what has ended since the report is not ahead any more
			b.Ahead, b.Waiting = min(reported, b.Ahead+b.Waiting), 0
		}
		return
	}
	since := int64(l.Picks() - report.Picks)
	if b.Ahead = reported; !pending {
		b.Ahead = float64(report.waiting()+since) * usual
	}
	b.Beyond = max(b.Beyond, 0)
	b.Requests = max(float64(max(report.Load.Requests(), 0)+since)-b.Beyond, 0)
	b.Ahead = max(b.Ahead-b.Waiting, 0)
}
