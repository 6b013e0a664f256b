// Package decisionlog keeps what decisions had to choose from and what came of it:
// compressed JSON lines, in memory and in files, both bounded. It has no text of
// requests, and hashes alone of prompts and sessions.
package decisionlog

import (
	"cmp"
	"crypto/rand"
	"errors"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

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

	mu     sync.Mutex
	open   map[*routing.Decision]*entry // that have not ended
	seen   int                          // heads of those
	share  share
	memory memory
}

// Bounds of what is on its way.
const (
	maxWaiting  = 1024    // decisions that ended and are not written yet
	maxSeen     = 200_000 // heads of decisions that have not ended, about 80 bytes each
	maxHeads    = 64      // of one decision
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
		share: share{rate: o.Rate}, memory: memory{most: o.MaxMemory},
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
}

// Sampled implements routing.Watcher.
func (l *Log) Sampled(s *routing.Sample) {
	l.mu.Lock()
	share, ok := l.share.takes(s.At, random())
	room := l.seen+min(len(s.Heads), maxHeads) <= maxSeen
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
	l.seen += len(e.heads)
	l.mu.Unlock()
	if o, over := e.decision.Outcome(); over { // before it was noted here
		l.Ended(e.decision, &o, false)
	}
}

func newEntry(s *routing.Sample) *entry {
	e := &entry{
		decision: s.Decision, at: s.At, share: s.Share, session: s.Session, tokens: s.Tokens, bytes: s.Bytes, perBlock: s.PerBlock,
		blocks: slices.Clone(s.Blocks), regret: s.Regret(), chance: math.NaN(), count: len(s.Heads),
	}
	if s.Chosen >= 0 {
		e.chance = s.Heads[s.Chosen].Chance
	}
	e.heads = slices.Clone(s.Heads)
	if len(e.heads) > maxHeads {
		rank := func(h *routing.Seen) int { // first the chosen head and the best one
			if s.Chosen >= 0 && h.Head == s.Heads[s.Chosen].Head || s.Best >= 0 && h.Head == s.Heads[s.Best].Head {
				return 0
			}
			return 1
		}
		slices.SortStableFunc(e.heads, func(a, b routing.Seen) int {
			return cmp.Or(cmp.Compare(rank(&a), rank(&b)), cmp.Compare(-b.Cost, -a.Cost), cmp.Compare(a.Predicted, b.Predicted)) // NaN last
		})
		e.heads = slices.Clone(e.heads[:maxHeads])
	}
	return e
}

// Ended implements routing.Watcher.
func (l *Log) Ended(d *routing.Decision, o *routing.Outcome, late bool) {
	if late || !d.Sampled() {
		return
	}
	l.mu.Lock()
	e := l.open[d]
	if e != nil {
		delete(l.open, d)
		l.seen -= len(e.heads)
		kept := *e // a reader may have e
		kept.outcome = o
		e = &kept
	}
	l.mu.Unlock()
	if e == nil {
		return
	}
	select {
	case l.ended <- e:
	default:
		l.metrics.dropped("queue")
	}
}

// underWay are the decisions that have not ended, oldest first.
func (l *Log) underWay() []*entry {
	l.mu.Lock()
	list := slices.Collect(maps.Values(l.open))
	l.mu.Unlock()
	slices.SortFunc(list, func(a, b *entry) int { return a.at.Compare(b.at) })
	return list
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
