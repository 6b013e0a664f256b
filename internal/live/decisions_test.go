package live_test

import (
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"headway/api"
	"headway/internal/event"
	"headway/internal/live"
)

// reading counts the decisions that were sent.
type reading struct {
	made map[string]int // by id of the decision
	lost int
	last string // id of what was sent last
}

// until reads until so many decisions were sent or reported as lost.
func (r *reading) until(l *listener, n int) {
	l.w.Helper()
	if r.made == nil {
		r.made = map[string]int{}
	}
	for len(r.made)+r.lost < n {
		switch sent := l.next(); sent.event {
		case "decision.made":
			var e api.Event
			var d api.RecentDecision
			if json.Unmarshal([]byte(sent.data), &e) != nil || json.Unmarshal(e.Data, &d) != nil || e.ID != sent.id || sent.id == "" {
				l.w.Fatalf("sent %+v", sent)
			}
			r.made[d.DecisionID]++
			r.last = sent.id
		case "lost":
			var v api.Lost
			if err := json.Unmarshal([]byte(sent.data), &v); err != nil || v.Types != "decision.*" || v.Count == 0 {
				l.w.Fatalf("sent %+v, %v", sent, err)
			}
			r.lost += int(v.Count)
		case "end":
			l.w.Fatal("the stream ended")
		}
	}
}

// check demands that each of n decisions was sent once or reported as lost, and
// that what was lost is counted.
func (r *reading) check(w *world, n int) {
	w.Helper()
	for id, times := range r.made {
		if times != 1 {
			w.Errorf("%s was sent %d times", id, times)
		}
	}
	if len(r.made)+r.lost != n {
		w.Errorf("%d were sent and %d lost of %d", len(r.made), r.lost, n)
	}
	w.until("the losses are counted", func() bool { return w.value("headway_live_lost_total", "sse") == float64(r.lost) })
}

// A client that comes back misses no decision that the window still has.
func TestDecisionsResumeWhereTheyWereLeft(t *testing.T) {
	w := newWorld(t)
	w.register("gpu-1", "us-east")
	l := w.listen("?types=decision.made")
	l.want("snapshot", "")
	var r reading
	for i := range 3 {
		w.decide()
		r.until(l, i+1)
	}
	l.stop()
	for range 200 {
		w.decide()
	}
	again := w.listen("?types=decision.made", "Last-Event-ID", r.last)
	w.decide()
	r.until(again, 204)
	if r.check(w, 204); r.lost != 0 {
		t.Errorf("%d were lost", r.lost)
	}
}

// Decisions that the window does not hold are reported as lost, with their number:
// those that were never in it, and those that it dropped.
func TestDecisionsOfALongGapAreReportedAsLost(t *testing.T) {
	w := newWorld(t)
	w.register("gpu-1", "us-east")
	l := w.listen("?types=decision.made")
	l.want("snapshot", "")
	var r reading
	w.decide()
	r.until(l, 1)
	l.stop()
	for range 30 {
		for range 1000 {
			w.decide()
		}
		<-time.After(quick.Beat)
	}
	again := w.listen("?types=decision.made", "Last-Event-ID", r.last)
	w.decide()
	r.until(again, 30_002)
	if r.check(w, 30_002); r.lost < 20_000 {
		t.Errorf("%d were lost; the window does not hold so many", r.lost)
	}
}

// A snapshot can be resumed after as well.
func TestDecisionsResumeAfterASnapshot(t *testing.T) {
	w := newWorld(t)
	w.register("gpu-1", "us-east")
	w.decide()
	l := w.listen("?types=decision.made")
	shot := l.want("snapshot", "")
	l.stop()
	var r reading
	w.decide()
	again := w.listen("?types=decision.made", "Last-Event-ID", shot.id)
	w.decide()
	r.until(again, 2)
	if r.check(w, 2); r.lost != 0 {
		t.Errorf("%d were lost", r.lost)
	}
}

// Decisions that no client asks for are not sent, but a client that resumes before
// them learns how many there were.
func TestDecisionsWithoutAClientAreReportedAsLost(t *testing.T) {
	w := newWorld(t)
	w.register("gpu-1", "us-east")
	plain := w.listen("?types=head.*")
	shot := plain.want("snapshot", "")
	for range 500 {
		w.decide()
	}
	var r reading
	l := w.listen("?types=decision.made", "Last-Event-ID", shot.id)
	w.decide()
	r.until(l, 501)
	if r.check(w, 501); r.lost != 500 {
		t.Errorf("%d were lost", r.lost)
	}
}

// An event says by its own id which decisions came before it.
func TestAnEventIsResumedAfterWithItsDecisions(t *testing.T) {
	w := newWorld(t)
	w.register("gpu-1", "us-east")
	l := w.listen("?types=decision.made,head.expired")
	l.want("snapshot", "")
	before := w.decide()
	l.want("decision.made", before.ID())
	w.events.Publish(event.Event{Type: event.HeadExpired, Head: "x"})
	seen := l.want("head.expired", "x")
	l.stop()
	after := w.decide()
	w.events.Publish(event.Event{Type: event.HeadExpired, Head: "y"})
	again := w.listen("?types=decision.made,head.expired", "Last-Event-ID", seen.id)
	got := again.next().data + again.next().data
	if !strings.Contains(got, after.ID()) || !strings.Contains(got, `"y"`) || strings.Contains(got, before.ID()) {
		t.Errorf("sent %s", got)
	}
}

// Losing events loses no decision.
func TestDecisionsComeBesideEventsThatAreLost(t *testing.T) {
	w := newWorld(t, func(o *live.Options) { o.Window = 8 })
	w.register("gpu-1", "us-east")
	l := w.listen("?types=decision.made,head.expired")
	l.want("snapshot", "")
	made := map[string]bool{}
	lost := 0
	w.until("events are lost", func() bool {
		for range 100 {
			w.events.Publish(event.Event{Type: event.HeadExpired, Head: "x"})
		}
		id := w.decide().ID()
		for made[id] = true; made[id]; {
			sent := l.next()
			for one := range made {
				if sent.event == "decision.made" && strings.Contains(sent.data, one) {
					delete(made, one)
				}
			}
			if sent.event == "lost" {
				if strings.Contains(sent.data, "decision") {
					t.Fatalf("sent %+v", sent)
				}
				lost++
			}
		}
		return lost > 0
	})
}

// A stream that cannot get all decisions learns how many it misses, and they are
// counted.
func TestTooManyDecisionsAreReportedAsLost(t *testing.T) {
	w := newWorld(t, func(o *live.Options) { o.Timing.Beat = 500 * time.Millisecond })
	w.register("gpu-1", "us-east")
	l := w.listen("?types=decision.made")
	l.want("snapshot", "")
	var r reading
	n := 0
	w.until("a loss is reported", func() bool {
		for range 5000 {
			w.decide()
		}
		n += 5000
		r.until(l, n)
		return r.lost > 0
	})
	r.check(w, n)
}
