package live_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"headway/api"
	"headway/internal/event"
	"headway/internal/live"
)

// Snapshots of different parts of the fleet are not taken for each other.
func TestEachFilterHasASnapshotOfItsOwn(t *testing.T) {
	w := newWorld(t)
	w.register("east", "us-east")
	w.register("west", "us-west")
	for _, c := range []struct{ query, has, not string }{
		{"", `"west"`, "nothing"},
		{"?region=us-east", `"east"`, `"west"`},
		{"?region=us-west", `"west"`, `"east"`},
		{"?head=east", `"east"`, `"west"`},
		{"?head=west", `"west"`, `"east"`},
		{"?model_type=none", "", `"west"`},
		{"?model_type=llama", `"west"`, "nothing"},
	} {
		if sent := w.listen(c.query).want("snapshot", c.has); strings.Contains(sent.data, c.not) {
			t.Errorf("%s got the snapshot %s", c.query, sent.data)
		}
	}
}

// A snapshot serves those who come within a second, and no others.
func TestSnapshotsAge(t *testing.T) {
	w := newWorld(t)
	w.listen("").want("snapshot", "")
	<-time.After(1100 * time.Millisecond)
	w.register("gpu-1", "us-east")
	w.listen("").want("snapshot", `"gpu-1"`)
}

// What is exactly in the window can be resumed after without a loss.
func TestTheBorderOfTheWindow(t *testing.T) {
	const window, all = 8, 20
	w := newWorld(t, func(o *live.Options) { o.Window = window })
	ids := make([]string, all)
	l := w.listen("")
	l.want("snapshot", "")
	for i := range all {
		w.events.Publish(event.Event{Type: event.HeadExpired, Head: fmt.Sprint("e", i)})
		ids[i] = l.want("head.expired", fmt.Sprintf(`"e%d"`, i)).id
	}
	l.stop()
	oldest := all - window
	in := w.listen("", "Last-Event-ID", ids[oldest-1])
	for i := oldest; i < all; i++ {
		in.want("head.expired", fmt.Sprintf(`"e%d"`, i))
	}
	w.listen("", "Last-Event-ID", ids[oldest-2]).want("lost", `"count":1`)
}

// Decisions are read for those who want them, and no longer.
func TestASocketThatClosesWantsNoMore(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		p := w.connect()
		p.send(`{"id":1,"type":"subscribe","data":{"types":["decision.*"]}}`)
		p.want("answer", "1", "")
		if n := w.hub.Wanted(); n != 1 {
			t.Errorf("%d want decisions", n)
		}
		_ = p.conn.CloseNow()
		w.until("no stream wants decisions", func() bool { return w.hub.Wanted() == 0 })
	}
}

// Decisions that do not end take memory up to a bound.
func TestOpenDecisionsAreBounded(t *testing.T) {
	w := newWorld(t)
	w.register("gpu-1", "us-east")
	l := w.listen("?types=decision.ended")
	l.want("snapshot", "")
	for total := 0; total < 12_000; total += 500 {
		for range 500 {
			w.decide()
		}
		w.until("they are read", func() bool { return w.hub.Followed() == w.router.Newest() })
		if n := w.hub.OpenDecisions(); n > 10_000 {
			t.Fatalf("%d open decisions are kept", n)
		}
	}
	if n := w.hub.OpenDecisions(); n < 9_000 {
		t.Errorf("%d open decisions are kept of 12,000", n)
	}
}

// Batches of one beat are kept up to a bound, and made for the others all the
// same.
func TestBatchesAreBounded(t *testing.T) {
	w := newWorld(t, idle)
	for i := range 1000 {
		if err := w.hub.Take(api.Subscription{Region: fmt.Sprint("r", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.hub.Batches(); n == 0 || n > 256 {
		t.Errorf("%d batches are kept", n)
	}
	if n := w.value("headway_live_forgotten_total", "batches"); n != 1000-256 {
		t.Errorf("%g batches were forgotten of 1000", n)
	}
}

// Snapshots are kept up to a bound, and those that make room are counted.
func TestSnapshotsAreBounded(t *testing.T) {
	w := newWorld(t, idle)
	for i := range 100 {
		w.listen(fmt.Sprintf("?region=r%d", i)).want("snapshot", "")
	}
	if n := w.value("headway_live_forgotten_total", "snapshots"); n != 64 {
		t.Errorf("%g snapshots were forgotten of 100", n)
	}
}
