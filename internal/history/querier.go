package history

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// Querier implements storage.Queryable.
func (s *Store) Querier(from, to int64) (storage.Querier, error) {
	return &querier{s, from, to}, nil
}

type querier struct {
	store    *Store
	from, to int64
}

// candidates are the series that may match, by their name. Lists only grow or
// are replaced, so that they are read without the lock.
func (s *Store) candidates(matchers []*labels.Matcher) [][]*Series {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, m := range matchers {
		if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual {
			return [][]*Series{s.byName[m.Value]}
		}
	}
	return slices.Collect(maps.Values(s.byName))
}

// matching returns the series that all matchers match, until ctx ends. The lock
// is not held meanwhile: a regular expression may take its time.
func (s *Store) matching(ctx context.Context, matchers []*labels.Matcher) ([]*Series, error) {
	var found []*Series
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

// Extent is how many series there are that match, and how long their labels.
func (s *Store) Extent(ctx context.Context, matchers []*labels.Matcher) (Extent, error) {
	found, err := s.matching(ctx, matchers)
	var e Extent
	for _, one := range found {
		e = e.Or(one.extent)
	}
	e.Series = float64(len(found))
	return e, err
}

func (s *Series) within(from, to int64) bool {
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
func (s *Series) view(from, to int64) *view {
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

// Ending is the last sample of a series.
type Ending struct {
	Series *Series
	Labels labels.Labels
	At     time.Time
	Value  float64
}

// Endings are the last samples of the series of a name that have a label, if
// they are not older than since and the series did not end.
func (s *Store) Endings(name string, l labels.Label, since time.Time) []Ending {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var list []Ending
	for _, one := range s.byName[name] {
		n := len(one.chunks)
		if one.labels.Get(l.Name) != l.Value || n == 0 || one.chunks[n-1].to < timestamp.FromTime(since) {
			continue
		}
		last := Ending{Series: one, Labels: one.labels}
		for it := one.chunks[n-1].Iterator(nil); it.Next() == chunkenc.ValFloat; {
			t, v := it.At()
			last.At, last.Value = timestamp.Time(t), v
		}
		if !value.IsStaleNaN(last.Value) {
			list = append(list, last)
		}
	}
	return list
}
