// Package history keeps the samples of a bounded time and number of series, in
// memory and over restarts, and shows them to PromQL.
package history

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// chunkSamples is how many samples a chunk has, as in Prometheus: longer ones
// compress no better.
const chunkSamples = 120

// Options are what a Store is made of. All are required but File.
type Options struct {
	MaxSeries int
	Retention time.Duration
	File      string // keeps the history over restarts, with a log beside it; "": none
	Now       func() time.Time
	Log       *slog.Logger
}

// Store keeps the samples of a bounded time and number of series in memory, in
// Gorilla chunks (Pelkonen et al., VLDB 2015). Full chunks never change, so
// that queries read them without a lock.
//
// Its methods are safe for concurrent use, except for Cut, Keep, Save and Close,
// which belong to one goroutine.
type Store struct {
	o       Options
	log     recent // of what the snapshot lacks
	failing bool   // whether the last snapshot could not be written

	mu      sync.RWMutex
	series  map[uint64][]*Series // by the hash of their labels
	byName  map[string][]*Series // by metric name
	count   int
	refused uint64 // samples of series beyond MaxSeries and maxLabels

	logged bool      // whether what is written is collected for the log
	recent []written // since it was taken last
}

// Series is one time series. Store.mu guards it.
type Series struct {
	labels labels.Labels
	extent Extent // of this one; it stays as it is
	chunks []*chunk
	head   chunkenc.Appender // of the last chunk
	stale  bool              // ended by a stale marker
}

type chunk struct {
	*chunkenc.XORChunk
	from, to int64 // ms, of the first and last sample
}

// New makes a store with the history of its file. What cannot be read of it is
// logged, and costs only the history.
func New(o Options) (*Store, error) {
	if o.MaxSeries <= 0 || o.Retention <= 0 || o.Now == nil || o.Log == nil {
		return nil, errors.New("history: MaxSeries, Retention, Now and Log are required")
	}
	s := newStore(o)
	s.restore()
	return s, nil
}

func newStore(o Options) *Store {
	return &Store{o: o, log: recent{path: o.File + "-recent"}, series: map[uint64][]*Series{}, byName: map[string][]*Series{}}
}

// maxLabels bounds the bytes of the labels of one series. What is scraped has
// some hundred; a recording rule may join them.
const maxLabels = 16 << 10

// Extent is how much there can be, at most.
type Extent struct {
	Series  float64
	Labels  float64 // bytes, of one series
	Longest float64 // bytes, of one value of a label
}

// Or is the extent of one or the other.
func (a Extent) Or(b Extent) Extent {
	return Extent{max(a.Series, b.Series), max(a.Labels, b.Labels), max(a.Longest, b.Longest)}
}

func extentOf(l labels.Labels) Extent {
	e := Extent{Series: 1}
	l.Range(func(one labels.Label) {
		e.Labels += float64(len(one.Name) + len(one.Value))
		e.Longest = max(e.Longest, float64(len(one.Value)))
	})
	return e
}

// find returns the series, or makes it if there is room.
func (s *Store) find(l labels.Labels) *Series {
	hash := l.Hash()
	for _, known := range s.series[hash] {
		if labels.Equal(known.labels, l) {
			return known
		}
	}
	own := extentOf(l)
	if s.count >= s.o.MaxSeries || own.Labels > maxLabels {
		return nil
	}
	fresh := &Series{labels: l, extent: own}
	s.series[hash] = append(s.series[hash], fresh)
	name := l.Get(model.MetricNameLabel)
	s.byName[name] = append(s.byName[name], fresh)
	s.count++
	return fresh
}

// write adds one sample; s.mu must be held. Samples that are not newer than
// the last one are left out, as Prometheus does.
func (s *Store) write(one *Series, t int64, v float64) error {
	if n := len(one.chunks); n > 0 && t <= one.chunks[n-1].to {
		return nil
	}
	if s.logged {
		s.recent = append(s.recent, written{one, t, v})
	}
	return one.append(t, v)
}

// taken returns what was written since the last call.
func (s *Store) taken() []written {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.recent
	s.recent = nil
	return list
}

// append adds one sample; Store.mu must be held.
func (s *Series) append(t int64, v float64) error {
	if n := len(s.chunks); n == 0 || s.head == nil || s.chunks[n-1].NumSamples() >= chunkSamples {
		if n > 0 {
			s.chunks[n-1].Compact()
		}
		fresh := chunkenc.NewXORChunk()
		app, err := fresh.Appender()
		if err != nil {
			return fmt.Errorf("begin a chunk: %w", err)
		}
		s.chunks, s.head = append(s.chunks, &chunk{fresh, t, t}), app
	}
	s.head.Append(0, t, v)
	s.chunks[len(s.chunks)-1].to = t
	s.stale = value.IsStaleNaN(v)
	return nil
}

// staleNaN is the value that says that a series ended.
var staleNaN = math.Float64frombits(value.StaleNaN)

// Sample is one value of one series.
type Sample struct {
	Labels labels.Labels
	Value  float64
}

// Add appends samples that were taken at t. Series of before, which the caller
// no longer has, get a stale marker. It returns the series that it wrote.
func (s *Store) Add(t int64, samples []Sample, before map[*Series]bool) (map[*Series]bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := make(map[*Series]bool, len(samples))
	for _, sample := range samples {
		one := s.find(sample.Labels)
		if one == nil {
			s.refused++
			continue
		}
		if err := s.write(one, t, sample.Value); err != nil {
			return now, err
		}
		now[one] = true
	}
	for gone := range before {
		if !now[gone] && !gone.stale {
			if err := s.write(gone, t, staleNaN); err != nil {
				return now, err
			}
		}
	}
	return now, nil
}

// Forget drops the chunks that are older at t than the retention, and series
// without any.
func (s *Store) Forget(t int64) {
	t -= s.o.Retention.Milliseconds()
	s.mu.Lock()
	defer s.mu.Unlock()
	for hash, list := range s.series {
		for _, one := range list {
			// A copy: queries hold the old slice.
			if n := slices.IndexFunc(one.chunks, func(c *chunk) bool { return c.to >= t }); n > 0 {
				one.chunks = slices.Clone(one.chunks[n:])
			} else if n < 0 {
				one.chunks = nil
			}
		}
		list = slices.DeleteFunc(list, func(one *Series) bool { return len(one.chunks) == 0 })
		if len(list) == 0 {
			delete(s.series, hash)
		} else {
			s.series[hash] = list
		}
	}
	s.count = 0
	for name, list := range s.byName {
		list = slices.DeleteFunc(slices.Clone(list), func(one *Series) bool { return len(one.chunks) == 0 })
		if s.count += len(list); len(list) == 0 {
			delete(s.byName, name)
		} else {
			s.byName[name] = list
		}
	}
}

// Cut drops the samples after t, and the log, which has them too: Keep takes a
// snapshot next. A clock that was ahead has left them, and they would keep all
// samples away until then.
func (s *Store) Cut(t int64) error {
	_ = s.log.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, list := range s.byName {
		for _, one := range list {
			n := slices.IndexFunc(one.chunks, func(c *chunk) bool { return c.to > t })
			if n < 0 {
				continue
			}
			beyond := one.chunks[n]
			one.chunks, one.head = slices.Clone(one.chunks[:n]), nil
			for it := beyond.Iterator(nil); it.Next() == chunkenc.ValFloat; {
				at, v := it.At()
				if at > t {
					break
				}
				if err := one.append(at, v); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Usage is what the store holds.
func (s *Store) Usage() (seriesCount int, bytes, refused uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, list := range s.byName {
		for _, one := range list {
			for _, c := range one.chunks {
				bytes += uint64(len(c.Bytes()))
			}
		}
	}
	return s.count, bytes, s.refused
}
