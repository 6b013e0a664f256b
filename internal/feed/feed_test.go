package feed_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"headway/internal/feed"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func change(revision uint64) feed.Change[int] {
	value := int(revision)
	return feed.Change[int]{ID: "a", Revision: revision, Value: &value}
}

var errWhole = errors.New("the whole is to be read")

func whole(context.Context) (feed.Changes[int], error) { return feed.Changes[int]{}, errWhole }

// Each kept change comes once, in order, from any revision on; the rest is
// read whole.
func TestAFollowerSeesEveryChangeOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		begin := rapid.Uint64Range(0, 3).Draw(rt, "begin")
		bound := rapid.IntRange(1, 4).Draw(rt, "bound")
		f, last, after := feed.New[int](begin, bound), begin, begin
		rt.Repeat(map[string]func(*rapid.T){
			"add": func(rt *rapid.T) {
				var changes []feed.Change[int]
				for range rapid.IntRange(0, 3).Draw(rt, "n") {
					last++
					changes = append(changes, change(last))
				}
				f.Add(changes...)
			},
			"resume": func(rt *rapid.T) { after = rapid.Uint64Range(begin, last).Draw(rt, "after") },
			"next": func(rt *rapid.T) {
				c, err := f.Next(feed.AtOnce(t.Context()), after, whole)
				switch {
				case errors.Is(err, errWhole):
					if last-after <= uint64(bound) {
						rt.Fatalf("of %d changes that are kept the whole is to be read", last-after)
					}
					after = last
					return
				case after == last:
					if !errors.Is(err, context.Canceled) {
						rt.Fatalf("after all: %v, %v", c, err)
					}
					return
				case err != nil || c.Revision != last:
					rt.Fatalf("up to %d of %d: %v", c.Revision, last, err)
				}
				for _, change := range c.List {
					if after++; change.Revision != after || *change.Value != int(after) {
						rt.Fatalf("revision %d is brought, want %d", change.Revision, after)
					}
				}
				if after != last {
					rt.Fatalf("changes end at %d of %d", after, last)
				}
			},
		})
	})
	synctest.Test(t, func(t *testing.T) {
		f := feed.New[int](0, 4)
		var seen []uint64
		ctx, cancel := context.WithCancel(t.Context())
		watch := func(ctx context.Context, after uint64) (feed.Changes[int], error) { return f.Next(ctx, after, whole) }
		ended := make(chan struct{})
		go func() {
			feed.Follow(ctx, 0, watch, func(c feed.Changes[int]) {
				for _, change := range c.List {
					seen = append(seen, change.Revision)
				}
			}, func(err error) { t.Error(err) })
			close(ended)
		}()
		for i := range uint64(3) {
			synctest.Wait()
			f.Add(change(2*i+1), change(2*i+2))
		}
		synctest.Wait()
		cancel()
		<-ended
		if !slices.Equal(seen, []uint64{1, 2, 3, 4, 5, 6}) {
			t.Errorf("seen %v", seen)
		}
	})
}

func TestWhatIsNotKeptIsReadWhole(t *testing.T) {
	f := feed.New[int](5, 2)
	if _, err := f.Next(t.Context(), 4, whole); !errors.Is(err, errWhole) {
		t.Errorf("of before the feed: %v", err)
	}
	for i := range uint64(10) {
		f.Add(change(6 + i))
	}
	if _, err := f.Next(t.Context(), 6, whole); !errors.Is(err, errWhole) {
		t.Errorf("nine changes late, with a bound of two: %v", err)
	}
	f = feed.New[int](0, 100)
	f.Add(change(1))
	f.Add(change(3))
	for after, want := range map[uint64]error{0: errWhole, 1: errWhole, 2: nil} {
		if c, err := f.Next(t.Context(), after, whole); !errors.Is(err, want) || want == nil && len(c.List) != 1 {
			t.Errorf("after %d, with revision 2 unknown: %v, %v", after, c, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Next(ctx, 0, func(ctx context.Context) (feed.Changes[int], error) { return feed.Changes[int]{}, ctx.Err() }); err != nil {
		t.Errorf("the whole is read for one who left: %v", err)
	}
}

func TestAWatchThatFailsIsTriedAgainLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var tries []time.Time
		failed := 0
		watch := func(context.Context, uint64) (feed.Changes[int], error) {
			if tries = append(tries, time.Now()); len(tries) == 20 {
				cancel()
			}
			return feed.Changes[int]{}, errors.New("no")
		}
		feed.Follow(ctx, 0, watch, func(feed.Changes[int]) {}, func(error) { failed++ })
		if failed != 19 {
			t.Errorf("%d failures are reported of 20, the last of which is the end", failed)
		}
		for i, at := range tries[1:] {
			pause, least := at.Sub(tries[i]), min(50*time.Millisecond<<i, 5*time.Second)
			if pause < least || pause > 3*least {
				t.Errorf("pause %d is %s, want %s to %s", i, pause, least, 3*least)
			}
		}
	})
}

// item is its own revision.
type item struct{ n uint64 }

func (i *item) Clone() *item                { return new(*i) }
func (i *item) Identity() (string, *uint64) { return fmt.Sprint("id", i.n), &i.n }

func TestRead(t *testing.T) {
	all := feed.Read(nil, []item{{3}, {1}}, 7)
	if !all.Whole || all.Revision != 7 || len(all.List) != 2 || all.List[1].ID != "id1" || all.List[1].Revision != 1 || all.List[1].Value.n != 1 {
		t.Errorf("all: %+v", all)
	}
	some := feed.Read([]string{"id3", "none"}, []item{{3}}, 7)
	if some.Whole || len(some.List) != 2 || some.List[0].ID != "id3" || some.List[1].ID != "none" || some.List[1].Value != nil || some.List[1].Revision != 7 {
		t.Errorf("some: %+v", some)
	}
}
