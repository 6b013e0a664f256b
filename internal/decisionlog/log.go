// Package decisionlog keeps what decisions had to choose from and what came of it:
// compressed JSON lines, in memory and in files, both bounded. It has no text of
// requests, and hashes alone of prompts and sessions.
package decisionlog

import (
	"cmp"
	"container/list"
	"crypto/rand"
	"errors"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/prefix"
	"headway/internal/routing"
)

// Options are what a Log is made of.
type Options struct {
	Dir       string                // of the files, which is made; "": there are none
	MaxDisk   int64                 // bytes of all files
	MinFree   int64                 // bytes that are left free on the disk
	MaxMemory int64                 // bytes that are kept in memory. Required
	Rate      float64               // decisions a second; beyond it as many by chance. Required
	Metrics   prometheus.Registerer // required
	Log       *slog.Logger          // required
	Now       func() time.Time      // nil: time.Now
}

// Log is a decision log. It is a routing.Watcher, whose calls take a lock for the time
// of a map access; all else is done by Run. All methods are safe for concurrent use.
type Log struct {
	o       Options
	metrics *metrics
	session *prefix.Keys // hashes of sessions are kept by these
	ended   chan *entry  // on their way to Run
	files   *files       // nil: there are none; used by Run alone
	packing packing      // likewise

	mu         sync.Mutex
	open       map[*routing.Decision]*entry // that have not ended, or wait for a late outcome
	unreported list.List                    // those of the latter, as *entry, oldest first
	held       int                          // bytes of what is open or on its way to Run
	maxHeld    int
	share      share
	memory     memory
}

// Bounds of what is on its way.
const (
	maxWaiting  = 1024     // decisions that ended and are not written yet
	maxHeld     = 16 << 20 // bytes of decisions that are not written yet
	maxHeads    = 64       // of one decision
	lateAfter   = 5 * time.Minute
	flushEvery  = 10 * time.Second
	lookedEvery = time.Second
)

// New makes a log. Its files are those of earlier runs and its own.
func New(o Options) (*Log, error) {
	if o.Metrics == nil || o.Log == nil || o.MaxMemory <= 0 || !(o.Rate > 0) {
		return nil, errors.New("decisionlog: MaxMemory, Rate, Metrics and Log are required")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	var secret [16]byte
	_, _ = rand.Read(secret[:]) // it never fails
	l := &Log{
		o: o, session: prefix.NewKeys(secret), ended: make(chan *entry, maxWaiting), open: map[*routing.Decision]*entry{},
		maxHeld: maxHeld, share: share{rate: o.Rate}, memory: memory{most: o.MaxMemory},
	}
	l.metrics = newMetrics(o.Metrics, l)
	if o.Dir != "" && o.MaxDisk > 0 {
		var err error
		if l.files, err = openFiles(o.Dir, o.MaxDisk, o.MinFree); err != nil {
			return nil, err
		}
		l.memory.last = l.files.newest // of an earlier run, where the clock was set back
	}
	return l, nil
}

// entry is a decision until it is written.
type entry struct {
	decision *routing.Decision
	at       time.Time
	share    float64
	session  uint64
	tokens   float64
	bytes    int64
	perBlock int32
	blocks   []uint64
	regret   float64
	chance   float64 // NaN: unknown
	count    int     // of heads
	heads    []routing.Seen
	outcome  *routing.Outcome
	late     bool // the outcome came after the reservation had ended

	// Of a decision whose reservation ended without an outcome: one that is reported until
	// then is that of its line.
	until  time.Time
	waiter *list.Element // of Log.unreported; nil: it does not wait
}

// size is about how many bytes an entry of so many heads and blocks takes.
func size(heads, blocks int) int {
	return int(unsafe.Sizeof(entry{})+unsafe.Sizeof(list.Element{})+unsafe.Sizeof(routing.Decision{})) + heads*int(unsafe.Sizeof(routing.Seen{})) + 8*blocks
}

func (e *entry) size() int { return size(len(e.heads), len(e.blocks)) }

// Sampled implements routing.Watcher.
func (l *Log) Sampled(s *routing.Sample) {
	l.mu.Lock()
	share, ok := l.share.takes(s.At, random())
	room := l.held+size(min(len(s.Heads), maxHeads), len(s.Blocks)) <= l.maxHeld
	l.mu.Unlock()
	switch {
	case !ok:
		return
	case !room:
		l.metrics.dropped("open")
		return
	}
	e := newEntry(s)
	e.share *= share
	l.mu.Lock()
	l.open[e.decision] = e
	l.held += e.size()
	l.mu.Unlock()
	if o, over := e.decision.Outcome(); over { // before it was noted here
		l.Ended(e.decision, &o, false)
	}
}

// Refused implements routing.Watcher. The log is of placements.
func (*Log) Refused(string, string, time.Time) {}

func newEntry(s *routing.Sample) *entry {
	e := &entry{
		decision: s.Decision, at: s.At, share: s.Share, session: s.Session, tokens: s.Tokens, bytes: s.Bytes, perBlock: s.PerBlock,
		blocks: slices.Clone(s.Blocks), regret: s.Regret(), chance: math.NaN(), count: len(s.Heads),
	}
	if s.Chosen >= 0 && s.Heads[s.Chosen].Chance > 0 { // else it was chosen by what costs do not say, as when all are full
		e.chance = s.Heads[s.Chosen].Chance
	}
	e.heads = kept(s)
	return e
}

// kept are the heads of a sample that its line has: all, or of many the chosen one, the
// best one and those of the least costs.
func kept(s *routing.Sample) []routing.Seen {
	if len(s.Heads) <= maxHeads {
		return slices.Clone(s.Heads)
	}
	rank := func(h *routing.Seen) int {
		if s.Chosen >= 0 && h.Head == s.Heads[s.Chosen].Head || s.Best >= 0 && h.Head == s.Heads[s.Best].Head {
			return 0
		}
		return 1
	}
	before := func(a, b routing.Seen) int {
		return cmp.Or(cmp.Compare(rank(&a), rank(&b)), cmp.Compare(-b.Cost, -a.Cost), cmp.Compare(a.Predicted, b.Predicted), -1) // NaN last
	}
	best := make([]routing.Seen, 0, maxHeads+1)
	for _, h := range s.Heads {
		at, _ := slices.BinarySearchFunc(best, h, before)
		if best = slices.Insert(best, at, h); len(best) > maxHeads {
			best = best[:maxHeads]
		}
	}
	return best
}

// Ended implements routing.Watcher.
func (l *Log) Ended(d *routing.Decision, o *routing.Outcome, late bool) {
	if !d.Sampled() {
		return
	}
	l.mu.Lock()
	e := l.open[d]
	if e == nil {
		l.mu.Unlock()
		return
	}
	ended := *e // a reader may have e
	ended.outcome, ended.late = o, late
	if o.Result > routing.ResultCancelled && e.waiter == nil && l.waits(&ended) { // it was not reported, and may be yet
		l.mu.Unlock()
		return
	}
	l.forget(e)
	l.mu.Unlock()
	select {
	case l.ended <- &ended:
	default:
		l.release(&ended)
		l.metrics.dropped("queue")
	}
}

// waits has a decision without an outcome wait for one, if there is room for such. Log.mu
// is held.
func (l *Log) waits(e *entry) bool {
	if l.held > l.maxHeld/2 {
		l.metrics.unawaited.Inc()
		return false
	}
	e.until = l.o.Now().Add(lateAfter)
	e.waiter = l.unreported.PushBack(e)
	l.open[e.decision] = e
	return true
}

// forget takes out a decision that is on its way to Run. Log.mu is held.
func (l *Log) forget(e *entry) {
	delete(l.open, e.decision)
	if e.waiter != nil {
		l.unreported.Remove(e.waiter)
	}
}

// release gives back the room of a decision that is held no more.
func (l *Log) release(e *entry) {
	l.mu.Lock()
	l.held -= e.size()
	l.mu.Unlock()
}

// overdue is a decision whose outcome was not reported in time, and is not waited for any
// more; nil: there is none.
func (l *Log) overdue(now time.Time) *entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	if first := l.unreported.Front(); first != nil {
		if e, _ := first.Value.(*entry); !now.Before(e.until) {
			l.forget(e)
			return e
		}
	}
	return nil
}

// underWay are the decisions that have not ended, oldest first.
func (l *Log) underWay() []*entry {
	l.mu.Lock()
	all := slices.Collect(maps.Values(l.open))
	l.mu.Unlock()
	slices.SortFunc(all, func(a, b *entry) int { return a.at.Compare(b.at) })
	return all
}

// share says which decisions are logged: each while there are few, else so many by
// chance as the rate allows.
type share struct {
	rate   float64
	part   float64 // of decisions, by the second before
	wanted float64 // in this second
	began  time.Time
}

func (s *share) takes(now time.Time, chance float64) (part float64, ok bool) {
	if took := now.Sub(s.began).Seconds(); took >= 1 || took < 0 {
		s.part = 1
		if may := s.rate * took; s.wanted > may && took > 0 {
			s.part = may / s.wanted
		}
		s.began, s.wanted = now, 0
	}
	s.wanted++
	part = min(s.part, s.rate/s.wanted) // it may go on faster than it began
	return part, chance < part
}
