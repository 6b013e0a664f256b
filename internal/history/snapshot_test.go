package history

import (
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// packed is a chunk with samples at these times.
func packed(t *testing.T, times ...int64) storedChunk {
	t.Helper()
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range times {
		app.Append(0, at, float64(at))
	}
	return storedChunk{times[0], times[len(times)-1], c.Bytes()}
}

// What is older than the retention is not restored, and samples that are not in
// order are refused.
func TestWhatASnapshotMayHold(t *testing.T) {
	series := func(chunks ...storedChunk) storedSeries {
		return storedSeries{Labels: map[string]string{"__name__": "x"}, Chunks: chunks}
	}
	s := newStore(Options{MaxSeries: 10})
	if err := s.put(series(packed(t, 10, 20), packed(t, 30, 40), packed(t, 50, 60)), 40); err != nil {
		t.Fatal(err)
	}
	if chunks := s.byName["x"][0].chunks; len(chunks) != 2 || chunks[0].from != 30 {
		t.Errorf("of three chunks %d are restored", len(chunks))
	}
	if err := s.put(storedSeries{Labels: map[string]string{"__name__": "old"}, Chunks: []storedChunk{packed(t, 1, 39)}}, 40); err != nil || s.byName["old"] != nil {
		t.Errorf("a series of which all is too old is restored: %v", err)
	}
	shifted := packed(t, 10, 20)
	shifted.From = 11
	short := packed(t, 10, 20)
	short.To = 21
	for what, one := range map[string]storedSeries{
		"the same time twice":    series(packed(t, 10, 10)),
		"times that go back":     series(packed(t, 10, 20, 15, 30)),
		"a sample before":        series(shifted),
		"a sample that is short": series(short),
		"chunks that overlap":    series(packed(t, 10, 20), packed(t, 20, 30)),
		"a chunk without data":   series(storedChunk{10, 20, nil}),
	} {
		if err := newStore(Options{MaxSeries: 10}).put(one, 0); err == nil {
			t.Errorf("%s are restored", what)
		}
	}
}
