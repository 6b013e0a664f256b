package history

import (
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Samples are read and searched for across chunks, with an iterator of before
// or a new one.
func TestWhatIsReadOfChunks(t *testing.T) {
	s := newStore(Options{MaxSeries: 10})
	const last = 3*chunkSamples + 20
	for i := range int64(last) + 1 {
		if _, err := s.Add(i, []Sample{{labels.FromStrings("__name__", "y"), float64(2 * i)}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	v := s.byName["y"][0].view(0, last)
	if len(v.chunks) != 4 {
		t.Fatalf("%d chunks", len(v.chunks))
	}
	var it chunkenc.Iterator
	for range 2 {
		it = v.Iterator(it)
		n := int64(0)
		for ; it.Next() == chunkenc.ValFloat; n++ {
			if at, value := it.At(); at != n || value != float64(2*n) {
				t.Fatalf("the sample %d is %g at %d", n, value, at)
			}
		}
		if n != last+1 || it.Err() != nil {
			t.Errorf("%d samples are read, and then: %v", n, it.Err())
		}
		if it.Next() != chunkenc.ValNone {
			t.Error("there is one after the last")
		}
	}
	for _, to := range []int64{0, 5, chunkSamples - 1, chunkSamples, 2*chunkSamples + 7, last} {
		it = v.Iterator(it)
		if it.Seek(to) != chunkenc.ValFloat || it.AtT() != to {
			t.Errorf("the search for %d ends at %d", to, it.AtT())
		}
		if it.Seek(to-1) != chunkenc.ValFloat || it.AtT() != to {
			t.Errorf("a search for what was before %d ends at %d", to, it.AtT())
		}
		if more := it.Next() == chunkenc.ValFloat; more != (to < last) || more && it.AtT() != to+1 {
			t.Errorf("after %d comes %d", to, it.AtT())
		}
	}
	if it = v.Iterator(it); it.Seek(last+1) != chunkenc.ValNone || it.Err() != nil {
		t.Errorf("the search for more than there is gives a sample, or %v", it.Err())
	}
	if none := (&view{}).Iterator(it); none.Next() != chunkenc.ValNone || none.Seek(0) != chunkenc.ValNone || none.Err() != nil {
		t.Error("there is a sample without chunks")
	}
}

func TestASeriesWithLongLabelsIsLeftOut(t *testing.T) {
	s := newStore(Options{MaxSeries: 10})
	for n, want := range map[int]uint64{maxLabels - len("__name__y"): 0, maxLabels: 1} {
		if _, err := s.Add(1, []Sample{{labels.FromStrings("__name__", "y"+strings.Repeat("l", n)), 1}}, nil); err != nil {
			t.Fatal(err)
		}
		if want == 1 && s.count == 2 {
			t.Errorf("a series with labels of %d bytes is kept", n)
		}
	}
	if s.count != 1 || s.refused != 1 {
		t.Errorf("it keeps %d series and has refused %d", s.count, s.refused)
	}
}
