package monitor

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// chunkSamples is how many samples a chunk has, as in Prometheus: longer ones
// compress no better.
const chunkSamples = 120

// store keeps the samples of a bounded time and number of series in memory, in
// Gorilla chunks (Pelkonen et al., VLDB 2015). Full chunks never change, so
// that queries read them without a lock.
type store struct {
	maxSeries int

	mu      sync.RWMutex
	series  map[uint64][]*series // by the hash of their labels
	byName  map[string][]*series // by metric name
	count   int
	refused uint64 // samples of series beyond maxSeries and maxLabels

	logged bool      // whether what is written is collected for the log
	recent []written // since it was taken last
}

// series is one time series. store.mu guards it.
type series struct {
	labels labels.Labels
	extent extent // of this one; it stays as it is
	chunks []*chunk
	head   chunkenc.Appender // of the last chunk
	stale  bool              // ended by a stale marker
}

type chunk struct {
	*chunkenc.XORChunk
	from, to int64 // ms, of the first and last sample
}

func newStore(maxSeries int) *store {
	return &store{maxSeries: maxSeries, series: map[uint64][]*series{}, byName: map[string][]*series{}}
}

// maxLabels bounds the bytes of the labels of one series. What is scraped has
// some hundred; a recording rule may join them.
const maxLabels = 16 << 10

func extentOf(l labels.Labels) extent {
	e := extent{series: 1}
	l.Range(func(one labels.Label) {
		e.labels += float64(len(one.Name) + len(one.Value))
		e.longest = max(e.longest, float64(len(one.Value)))
	})
	return e
}

// find returns the series, or makes it if there is room.
func (s *store) find(l labels.Labels) *series {
	hash := l.Hash()
	for _, known := range s.series[hash] {
		if labels.Equal(known.labels, l) {
			return known
		}
	}
	own := extentOf(l)
	if s.count >= s.maxSeries || own.labels > maxLabels {
		return nil
	}
	fresh := &series{labels: l, extent: own}
	s.series[hash] = append(s.series[hash], fresh)
	name := l.Get(model.MetricNameLabel)
	s.byName[name] = append(s.byName[name], fresh)
	s.count++
	return fresh
}

// write adds one sample; s.mu must be held. Samples that are not newer than
// the last one are left out, as Prometheus does.
func (s *store) write(one *series, t int64, v float64) error {
	if n := len(one.chunks); n > 0 && t <= one.chunks[n-1].to {
		return nil
	}
	if s.logged {
		s.recent = append(s.recent, written{one, t, v})
	}
	return one.append(t, v)
}

// taken returns what was written since the last call.
func (s *store) taken() []written {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.recent
	s.recent = nil
	return list
}

// append adds one sample; store.mu must be held.
func (s *series) append(t int64, v float64) error {
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

// sample is one value of one series.
type sample struct {
	labels labels.Labels
	value  float64
}

// add appends samples that were taken at t. Series of before, which the caller
// no longer has, get a stale marker. It returns the series that it wrote.
func (s *store) add(t int64, samples []sample, before map[*series]bool) (map[*series]bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := make(map[*series]bool, len(samples))
	for _, sample := range samples {
		one := s.find(sample.labels)
		if one == nil {
			s.refused++
			continue
		}
		if err := s.write(one, t, sample.value); err != nil {
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

// forget drops the chunks that end before t, and series without any.
func (s *store) forget(t int64) {
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
		list = slices.DeleteFunc(list, func(one *series) bool { return len(one.chunks) == 0 })
		if len(list) == 0 {
			delete(s.series, hash)
		} else {
			s.series[hash] = list
		}
	}
	s.count = 0
	for name, list := range s.byName {
		list = slices.DeleteFunc(slices.Clone(list), func(one *series) bool { return len(one.chunks) == 0 })
		if s.count += len(list); len(list) == 0 {
			delete(s.byName, name)
		} else {
			s.byName[name] = list
		}
	}
}

// cut drops the samples after t. A clock that was ahead has left them, and they
// would keep all samples away until then.
func (s *store) cut(t int64) error {
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

// usage is what the store holds.
func (s *store) usage() (seriesCount int, bytes, refused uint64) {
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

// Querier implements storage.Queryable.
func (s *store) Querier(from, to int64) (storage.Querier, error) {
	return &querier{s, from, to}, nil
}

type querier struct {
	store    *store
	from, to int64
}

// candidates are the series that may match, by their name. Lists only grow or
// are replaced, so that they are read without the lock.
func (s *store) candidates(matchers []*labels.Matcher) [][]*series {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, m := range matchers {
		if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual {
			return [][]*series{s.byName[m.Value]}
		}
	}
	return slices.Collect(maps.Values(s.byName))
}

// matching returns the series that all matchers match, until ctx ends. The lock
// is not held meanwhile: a regular expression may take its time.
func (s *store) matching(ctx context.Context, matchers []*labels.Matcher) ([]*series, error) {
	var found []*series
	for _, list := range s.candidates(matchers) {
		for _, one := range list {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if matches(one.labels, matchers) {
				found = append(found, one)
			}
		}
	}
	return found, nil
}

// extent is how many series there are that match, and how long their labels.
func (s *store) extent(ctx context.Context, matchers []*labels.Matcher) (extent, error) {
	found, err := s.matching(ctx, matchers)
	var e extent
	for _, one := range found {
		e = e.or(one.extent)
	}
	e.series = float64(len(found))
	return e, err
}

func (s *series) within(from, to int64) bool {
	return len(s.chunks) > 0 && s.chunks[0].from <= to && s.chunks[len(s.chunks)-1].to >= from
}

func matches(l labels.Labels, matchers []*labels.Matcher) bool {
	for _, m := range matchers {
		if !m.Matches(l.Get(m.Name)) {
			return false
		}
	}
	return true
}

// Select implements storage.Querier. What it returns is a view of this moment.
func (q *querier) Select(ctx context.Context, sorted bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	found, err := q.store.matching(ctx, matchers)
	if err != nil {
		return storage.ErrSeriesSet(err)
	}
	set := &seriesSet{at: -1}
	q.store.mu.RLock()
	for _, one := range found {
		if one.within(q.from, q.to) {
			set.views = append(set.views, one.view(q.from, q.to))
		}
	}
	q.store.mu.RUnlock()
	if sorted {
		slices.SortFunc(set.views, func(a, b *view) int { return labels.Compare(a.labels, b.labels) })
	}
	return set
}

// view copies the chunk that still grows and shares the others.
func (s *series) view(from, to int64) *view {
	v := &view{labels: s.labels}
	for i, c := range s.chunks {
		if c.to < from || c.from > to {
			continue
		}
		data := c.Bytes()
		if i == len(s.chunks)-1 {
			data = slices.Clone(data)
		}
		v.chunks = append(v.chunks, data)
	}
	return v
}

// LabelValues implements storage.LabelQuerier.
func (q *querier) LabelValues(ctx context.Context, name string, _ *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return q.collect(ctx, matchers, func(l labels.Labels, add func(string)) {
		if v := l.Get(name); v != "" {
			add(v)
		}
	})
}

// LabelNames implements storage.LabelQuerier.
func (q *querier) LabelNames(ctx context.Context, _ *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return q.collect(ctx, matchers, func(l labels.Labels, add func(string)) {
		l.Range(func(one labels.Label) { add(one.Name) })
	})
}

func (q *querier) collect(ctx context.Context, matchers []*labels.Matcher, each func(labels.Labels, func(string))) ([]string, annotations.Annotations, error) {
	found, err := q.store.matching(ctx, matchers)
	if err != nil {
		return nil, nil, err
	}
	seen := map[string]bool{}
	q.store.mu.RLock()
	for _, one := range found {
		if one.within(q.from, q.to) {
			each(one.labels, func(s string) { seen[s] = true })
		}
	}
	q.store.mu.RUnlock()
	list := make([]string, 0, len(seen))
	for s := range seen {
		list = append(list, s)
	}
	slices.Sort(list)
	return list, nil, nil
}

// Close implements storage.Querier.
func (*querier) Close() error { return nil }

type seriesSet struct {
	views []*view
	at    int
}

func (s *seriesSet) Next() bool                      { s.at++; return s.at < len(s.views) }
func (s *seriesSet) At() storage.Series              { return s.views[s.at] }
func (*seriesSet) Err() error                        { return nil }
func (*seriesSet) Warnings() annotations.Annotations { return nil }

// view is a series as it was when it was selected.
type view struct {
	labels labels.Labels
	chunks [][]byte
}

// Labels implements storage.Series.
func (v *view) Labels() labels.Labels { return v.labels }

// Iterator implements storage.Series.
func (v *view) Iterator(reuse chunkenc.Iterator) chunkenc.Iterator {
	r, ok := reuse.(*reader)
	if !ok {
		r = &reader{}
	}
	r.chunks = v.chunks
	r.next()
	return r
}

// yieldEvery is how many samples a query reads before it lets others run: some
// ten microseconds.
const yieldEvery = 256

// reader reads chunks one after the other. It hands its processor over now and
// then: evaluation reads samples all along, and the scheduler by itself would
// let it go on for 10 ms while decisions wait. With the library's chain of
// iterators, which is made for parts that overlap, BenchmarkDay/range takes a
// sixth longer.
type reader struct {
	chunkenc.Iterator
	chunks [][]byte // not begun yet
	chunk  chunkenc.XORChunk
	reuse  chunkenc.Iterator
	read   int
}

// next begins the next chunk, if there is one.
func (r *reader) next() bool {
	if len(r.chunks) == 0 {
		r.Iterator = chunkenc.NewNopIterator()
		return false
	}
	r.chunk.Reset(r.chunks[0])
	r.reuse = r.chunk.Iterator(r.reuse)
	r.Iterator, r.chunks = r.reuse, r.chunks[1:]
	return true
}

// Next implements chunkenc.Iterator.
func (r *reader) Next() chunkenc.ValueType {
	if r.read++; r.read%yieldEvery == 0 {
		runtime.Gosched()
	}
	for {
		if v := r.Iterator.Next(); v != chunkenc.ValNone || r.Err() != nil || !r.next() {
			return v
		}
	}
}

// milliseconds is a point in time. Under this name go vet does not take Seek for
// that of io.Seeker.
type milliseconds = int64

// Seek implements chunkenc.Iterator.
func (r *reader) Seek(t milliseconds) chunkenc.ValueType {
	for {
		if v := r.Iterator.Seek(t); v != chunkenc.ValNone || r.Err() != nil || !r.next() {
			return v
		}
	}
}
