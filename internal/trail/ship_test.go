package trail_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/audit"
	"headway/internal/trail"
)

// listening is a sink with injected faults.
type listening struct {
	mu        sync.Mutex
	seqs      []uint64
	extra     []string // lines that are no records
	receivers int
	fail      error
	partly    int // of the lines that arrive before fail
}

func (l *listening) Publish(_ context.Context, lines [][]byte) (int, int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		lines = lines[:min(l.partly, len(lines))]
	}
	for _, line := range lines {
		if r, err := audit.ParseLine(line); err == nil {
			l.seqs = append(l.seqs, r.Seq)
		} else {
			l.extra = append(l.extra, string(line))
		}
	}
	return len(lines), l.receivers, l.fail
}

func (l *listening) set(receivers int, fail error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.receivers, l.fail = receivers, fail
}

func (l *listening) take() []uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	seqs := l.seqs
	l.seqs = nil
	return seqs
}

// upTo is 1 to n.
func upTo(from, to uint64) []uint64 {
	var list []uint64
	for seq := from; seq <= to; seq++ {
		list = append(list, seq)
	}
	return list
}

// ship runs a shipper over the trail of w until the returned function is
// called, which says what the shipper counted.
func (w *world) ship(sink trail.Sink, change func(*trail.ShipperOptions)) (*trail.Shipper, func() trail.ShipperStats) {
	w.t.Helper()
	o := trail.ShipperOptions{Path: w.path, CursorPath: w.path + "-cursor", Sink: sink, Log: w.log.logger()}
	if change != nil {
		change(&o)
	}
	s, err := trail.NewShipper(o)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	return s, func() trail.ShipperStats {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("the shipper ended with: %v", err)
		}
		return s.Stats()
	}
}

// When the receivers leave, lines are kept back for a while,
// so that the receivers can come back; without earlier receivers they are not.
func TestShippingHoldsForReceivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, sink := newWorld(t), &listening{receivers: 0}
		w.fill(10)
		s, stop := w.ship(sink, nil)
		time.Sleep(5 * time.Second)
		if st := s.Stats(); st.Shipped != 12 || st.Unheard != 12 { // 10, the start and the end
			t.Errorf("to nobody: %+v", st)
		}
		sink.set(1, nil)
		w.fill(5)
		time.Sleep(5 * time.Second)
		sink.take()
		sink.set(0, nil)
		w.fill(3) // 20 to 24
		time.Sleep(30 * time.Second)
		if st := s.Stats(); st.Shipped != 19 || st.Receivers != 1 || st.LagTime < 29*time.Second {
			t.Errorf("half a minute alone: %+v; want the records kept back", st)
		}
		sink.take()
		sink.set(1, nil)
		time.Sleep(2 * time.Second)
		if got := sink.take(); !slices.Equal(got, upTo(20, 24)) {
			t.Errorf("the receivers are back and get %v", got)
		}
		sink.set(0, nil)
		w.fill(1)
		time.Sleep(59 * time.Second)
		if st := s.Stats(); st.Shipped != 24 {
			t.Errorf("within the grace: %+v", st)
		}
		time.Sleep(3 * time.Second)
		if st := stop(); st.Shipped != 27 || st.Receivers != 0 || st.LagTime != 0 {
			t.Errorf("after the grace: %+v", st)
		}
	})
}

// A failure is tried again, less and less often, from a second before; it is
// logged once.
func TestShippingGoesBackAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, sink := newWorld(t), &listening{receivers: 1}
		w.fill(20)
		s, stop := w.ship(sink, nil)
		time.Sleep(10 * time.Second)
		w.fill(2) // 23 to 26
		time.Sleep(250 * time.Millisecond)
		if got := sink.take(); !slices.Equal(got, upTo(1, 26)) {
			t.Fatalf("got %v", got)
		}
		sink.partly = 2
		sink.set(1, errors.New("gone"))
		w.fill(4) // 27 to 32
		time.Sleep(time.Minute)
		if st := s.Stats(); st.Failures < 6 || st.Failures > 25 || st.LagTime < 59*time.Second {
			t.Errorf("a minute of failures: %+v", st)
		}
		sink.take()
		sink.set(1, nil)
		time.Sleep(15 * time.Second)
		if got := sink.take(); !slices.Equal(got, upTo(23, 32)) {
			t.Errorf("after the failure: %v; want what arrived in the second before, too", got)
		}
		if n := strings.Count(w.log.String(), "is not shipped"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		stop()
	})
}

// half is a sink that takes three lines, and ends the shipping with the rest.
type half struct {
	stop  func()
	taken int
}

func (h *half) Publish(_ context.Context, lines [][]byte) (int, int, error) {
	h.taken = min(3, len(lines))
	h.stop()
	return h.taken, 1, errors.New("gone")
}

func keptCursor(t *testing.T, w *world) (c trail.Cursor) {
	t.Helper()
	text, err := os.ReadFile(w.path + "-cursor")
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What arrived before a failure is not sent again after an end.
func TestShippingKeepsWhatArrivedInPart(t *testing.T) {
	w := newWorld(t)
	w.fill(10)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := trail.NewShipper(trail.ShipperOptions{Path: w.path, CursorPath: w.path + "-cursor", Sink: &half{stop: cancel}, Log: w.log.logger()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if c := keptCursor(t, w); c.Seq != 3 || c.Hash == "" {
		t.Errorf("three lines arrived; kept is %+v", c)
	}
}

// While it goes on, the place that is kept is that of a second ago: what has
// just been sent may not have been received.
func TestShippingKeepsThePlaceOfASecondAgo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, sink := newWorld(t), &listening{receivers: 1}
		w.fill(3) // 1 to 5
		_, stop := w.ship(sink, nil)
		time.Sleep(5500 * time.Millisecond) // between the looks, which come with whole seconds
		if c := keptCursor(t, w); c.Seq != 5 {
			t.Errorf("after 5 s of rest kept is %+v", c)
		}
		w.fill(3) // to 10
		time.Sleep(1100 * time.Millisecond)
		if got := sink.take(); len(got) != 10 {
			t.Fatalf("got %v", got)
		}
		if c := keptCursor(t, w); c.Seq != 5 {
			t.Errorf("just after they were sent kept is %+v, want 5", c)
		}
		time.Sleep(5 * time.Second)
		if c := keptCursor(t, w); c.Seq != 10 {
			t.Errorf("after 5 s of rest kept is %+v", c)
		}
		stop()
	})
}

// Files that were closed, renamed by others, compressed, or removed: what is
// there is shipped once and in order, what is gone is counted.
func TestShippingOverFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, sink := newWorld(t), &listening{receivers: 1}
		w.o.MaxBytes = 4096
		w.fill(40)
		rotated, err := filepath.Glob(w.path + ".2*")
		if err != nil || len(rotated) < 3 {
			t.Fatal(rotated, err)
		}
		slices.Sort(rotated)
		pack(t, rotated[1])
		s, stop := w.ship(sink, nil)
		time.Sleep(5 * time.Second)
		last := s.Stats().Shipped
		if got := sink.take(); !slices.Equal(got, upTo(1, last)) || last < 42 {
			t.Errorf("got %v", got)
		}
		// While it runs: logrotate renames, another file appears.
		w.fill(30)
		if err := os.Rename(w.path, w.path+".1"); err != nil {
			t.Fatal(err)
		}
		w.fill(10)
		time.Sleep(5 * time.Second)
		stop()
		got := sink.take()
		if len(got) < 40 || !slices.Equal(got, upTo(last+1, last+uint64(len(got)))) {
			t.Errorf("after %d got %v", last, got)
		}
		last += uint64(len(got))
		// While no shipper runs, files go.
		w.fill(40)
		files, err := filepath.Glob(w.path + ".2*")
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(files)
		for _, f := range files[:len(files)-1] {
			if err := os.Remove(f); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Remove(w.path + ".1"); err != nil {
			t.Fatal(err)
		}
		_, stop = w.ship(sink, nil)
		time.Sleep(5 * time.Second)
		st := stop()
		got = sink.take()
		if st.Missed == 0 || len(got) == 0 || got[0] != last+st.Missed+1 || !slices.Equal(got, upTo(got[0], got[0]+uint64(len(got))-1)) {
			t.Errorf("after %d: %+v, got %v", last, st, got)
		}
	})
}

func pack(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(file + ".gz")
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(out)
	_, err = z.Write(text)
	if err := errors.Join(err, z.Close(), out.Close(), os.Remove(file)); err != nil {
		t.Fatal(err)
	}
}

// Only whole records that are on the disk are shipped.
func TestShippingOnlyWhatIsDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, sink := newWorld(t), &listening{receivers: 1}
		w.fill(10)
		whole, err := os.ReadFile(w.path)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Remove(w.path), os.Remove(audit.CheckpointPath(w.path))); err != nil {
			t.Fatal(err)
		}
		j := w.open() // its trail has one record
		if err := os.WriteFile(w.path+".1", whole, 0o600); err != nil {
			t.Fatal(err)
		}
		_, stop := w.ship(sink, func(o *trail.ShipperOptions) { o.Path, o.Journal = w.path+".1", j })
		time.Sleep(time.Second)
		if got := sink.take(); !slices.Equal(got, upTo(1, 1)) {
			t.Errorf("got %v", got)
		}
		w.record(j, change("policy.put"))
		w.record(j, change("policy.put"))
		time.Sleep(time.Second)
		if got := sink.take(); !slices.Equal(got, upTo(2, 3)) {
			t.Errorf("got %v", got)
		}
		for range 97 {
			w.record(j, change("policy.put"))
		}
		time.Sleep(time.Second)
		if got := sink.take(); !slices.Equal(got, upTo(4, 12)) {
			t.Errorf("got %v", got)
		}
		f, err := os.OpenFile(w.path+".1", os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteString("no record\n" + strings.Repeat("x", 100_000) + "\n" + `{"v":1,"seq":13,"ti`)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := sink.take(); len(got) != 0 {
			t.Errorf("got %v", got)
		}
		if st := stop(); st.Lag != 88 || st.Failures != 0 {
			t.Errorf("%+v", st)
		}
		w.close(j)
	})
}

// A trail that was replaced is shipped from its beginning, and it is said.
func TestShippingAnotherTrail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, sink := newWorld(t), &listening{receivers: 1}
		w.fill(10)
		_, stop := w.ship(sink, nil)
		time.Sleep(time.Second)
		stop()
		sink.take()
		for _, n := range []int{2, 10, 30} { // shorter, as long, longer
			if err := os.Remove(w.path); err != nil {
				t.Fatal(err)
			}
			_ = os.Remove(audit.CheckpointPath(w.path))
			w.fill(n)
			_, stop = w.ship(sink, nil)
			time.Sleep(time.Second)
			stop()
			if got := sink.take(); !slices.Equal(got, upTo(1, uint64(n)+2)) {
				t.Errorf("of another trail with %d records: %v", n+2, got)
			}
		}
		if n := strings.Count(w.log.String(), "is another than"); n != 3 {
			t.Errorf("said %d times", n)
		}
	})
}

// Checkpoints are sent once each, after what they cover.
func TestShippingCheckpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, sink := newWorld(t), &listening{receivers: 1}
		j := w.open()
		_, stop := w.ship(sink, func(o *trail.ShipperOptions) { o.Journal = j })
		time.Sleep(time.Second)
		sink.set(1, errors.New("away"))
		w.record(j, change("policy.put"))
		time.Sleep(time.Minute)
		if len(sink.extra) != 0 || j.Checkpoint() == nil {
			t.Errorf("too early: %v", sink.extra)
		}
		sink.set(1, nil)
		time.Sleep(5 * time.Minute)
		if len(sink.extra) != 1 || !strings.Contains(sink.extra[0], `"checkpoint":{"node":"node-1","seq":2`) {
			t.Errorf("%v", sink.extra)
		}
		stop()
		w.close(j)
	})
}
