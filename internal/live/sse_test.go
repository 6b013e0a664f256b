package live_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"headway/api"
	"headway/internal/event"
	"headway/internal/fleet"
	"headway/internal/live"
	"headway/internal/routing"
)

func TestMain(m *testing.M) {
	if address := os.Getenv(crowdOf); address != "" {
		os.Exit(crowd(address))
	}
	goleak.VerifyTestMain(m)
}

func TestAStreamBeginsWithASnapshotAndGoesOnWithEvents(t *testing.T) {
	w := newWorld(t)
	w.register("gpu-1", "us-east")
	l := w.listen("")
	if got := l.header.Get("Content-Type"); got != "text/event-stream" || l.header.Get("Cache-Control") != "no-store" {
		t.Errorf("Content-Type %q", got)
	}
	if first := <-l.text; first.event != "retry" {
		t.Errorf("first %+v; want a retry", first)
	}
	shot := l.want("snapshot", `"gpu-1"`)
	var s api.Snapshot
	if err := json.Unmarshal([]byte(shot.data), &s); err != nil || s.Part != 1 || s.Parts != 1 || len(s.Heads) != 1 || s.PolicyRevision != w.router.Policy().Revision || shot.id == "" {
		t.Errorf("snapshot %+v, %v", shot, err)
	}
	w.drain("gpu-1", fleet.AdminDraining)
	sent := l.want("head.changed", `"draining"`)
	var e api.Event
	if err := json.Unmarshal([]byte(sent.data), &e); err != nil || e.ID != sent.id || e.Type != "head.changed" || e.Head != "gpu-1" ||
		e.Region != "us-east" || len(e.ModelTypes) != 1 || time.Since(e.Time) > time.Minute {
		t.Errorf("event %+v, %v", e, err)
	}
	if n := w.value("sse_connections"); n != 1 {
		t.Errorf("sse_connections is %v", n)
	}
	l.stop()
	w.until("the gauge falls", func() bool { return w.value("sse_connections") == 0 })
}

func TestFiltersKeepWhatIsAskedFor(t *testing.T) {
	publish := func(w *world) {
		w.events.Publish(event.Event{Type: event.HeadExpired, Head: "a", Region: "us", ModelTypes: []string{"llama"}})
		w.events.Publish(event.Event{Type: event.HeadExpired, Head: "b", Region: "eu", ModelTypes: []string{"qwen", "phi"}})
		w.events.Publish(event.Event{Type: event.HeadRemoved, Head: "a", Region: "us", ModelTypes: []string{"llama"}})
		w.events.Publish(event.Event{Type: event.PolicyChanged})
	}
	for query, want := range map[string]string{
		"":                                   "head.expired a,head.expired b,head.removed a,policy.changed ",
		"?types=head.*":                      "head.expired a,head.expired b,head.removed a",
		"?types=head.removed,policy.*":       "head.removed a,policy.changed ",
		"?types=*":                           "head.expired a,head.expired b,head.removed a,policy.changed ",
		"?head=b":                            "head.expired b,policy.changed ",
		"?region=us":                         "head.expired a,head.removed a,policy.changed ",
		"?model_type=phi&types=head.expired": "head.expired b",
		"?model_type=llama&region=eu":        "policy.changed ",
		"?types=decision.*":                  "decision.made a",
	} {
		w := newWorld(t)
		l := w.listen(query)
		l.want("snapshot", "")
		publish(w)
		if query == "?types=decision.*" { // it comes after what is not wanted
			w.register("a", "us")
			w.decide()
		}
		var got []string
		for range strings.Count(want, ",") + 1 {
			var e api.Event
			sent := l.next()
			if err := json.Unmarshal([]byte(sent.data), &e); err != nil {
				t.Fatal(err)
			}
			got = append(got, e.Type+" "+e.Head)
		}
		if strings.Join(got, ",") != want {
			t.Errorf("%s: %q; want %q", query, got, want)
		}
	}
}

func TestBadFiltersAreRefusedByName(t *testing.T) {
	w := newWorld(t)
	for query, want := range map[string]string{
		"?types=heads.*":                           "types",
		"?types=head":                              "types",
		"?types=he*":                               "types",
		"?head=" + strings.Repeat("x", 1000):       "head",
		"?region=" + strings.Repeat("x", 1000):     "region",
		"?model_type=" + strings.Repeat("x", 1000): "model_type",
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.server.URL+"/events"+query, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := w.server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := bufio.NewReader(answer.Body).ReadString('\n')
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(text, "Parameter "+want) {
			t.Errorf("%.40s: %d %s", query, answer.StatusCode, text)
		}
	}
	if n := w.value("sse_connections"); n != 0 {
		t.Errorf("sse_connections is %v", n)
	}
}

func TestAClientResumesAfterTheLastEventItSaw(t *testing.T) {
	w := newWorld(t)
	l := w.listen("")
	l.want("snapshot", "")
	w.events.Publish(event.Event{Type: event.HeadExpired, Head: "a"})
	seen := l.want("head.expired", `"a"`)
	l.stop()
	w.events.Publish(event.Event{Type: event.HeadExpired, Head: "b"})
	w.events.Publish(event.Event{Type: event.HeadExpired, Head: "c"})
	again := w.listen("", "Last-Event-ID", seen.id)
	again.want("head.expired", `"b"`)
	again.want("head.expired", `"c"`)
}

func TestASnapshotCanBeResumedAfter(t *testing.T) {
	w := newWorld(t)
	l := w.listen("")
	shot := l.want("snapshot", "")
	w.events.Publish(event.Event{Type: event.HeadExpired, Head: "a"})
	w.listen("", "Last-Event-ID", shot.id).want("head.expired", `"a"`)
}

func TestAClientThatCannotResumeLearnsItAndStartsAfresh(t *testing.T) {
	w := newWorld(t, func(o *live.Options) { o.Window = 4 })
	l := w.listen("")
	shot := l.want("snapshot", "")
	for range 10 {
		w.events.Publish(event.Event{Type: event.HeadExpired, Head: "a"})
	}
	w.until("all are sent or lost", func() bool {
		probe := w.listen("", "Last-Event-ID", shot.id)
		defer probe.stop()
		first := probe.next()
		return first.event == "lost" && strings.Contains(first.data, `"count":6`) && strings.Contains(first.data, `"window"`) && probe.next().event == "snapshot"
	})
	for _, other := range []string{"another-7", "garbage", "x-y-z", strings.SplitN(shot.id, "-", 2)[0] + "-99999"} {
		probe := w.listen("", "Last-Event-ID", other)
		probe.want("lost", `"restart"`)
		probe.want("snapshot", "")
	}
}

// A reader that stalls learns how much it lost, and gets a snapshot.
func TestASlowReaderLearnsWhatItLost(t *testing.T) {
	w := newWorld(t, func(o *live.Options) { o.Window = 8; o.Timing.Beat, o.Timing.Heartbeat = time.Hour, time.Hour })
	l := w.listen("")
	l.want("snapshot", "")
	// The ring of 8 turns over while the subscriber sleeps between two wakes.
	total := 0
	for range 200 {
		for range 50 {
			w.events.Publish(event.Event{Type: event.HeadExpired, Head: "a"})
			total++
		}
	}
	w.events.Publish(event.Event{Type: event.HeadRemoved, Head: "end"})
	lost, seen := 0, 0
	for done := false; !done; {
		switch sent := l.next(); sent.event {
		case "lost":
			var v api.Lost
			if err := json.Unmarshal([]byte(sent.data), &v); err != nil || v.Reason != "slow" || v.Count == 0 {
				t.Fatalf("%+v, %v", sent, err)
			}
			lost += int(v.Count)
			l.want("snapshot", "")
		case "head.expired":
			seen++
		case "head.removed":
			done = true
		}
		done = done || lost+seen >= total+1 // the last one may be among the lost
	}
	if lost == 0 || lost+seen > total+1 || lost+seen < total || w.value("headway_live_lost_total", "sse") != float64(lost) {
		t.Errorf("%d seen, %d lost of %d; counted %v", seen, lost, total, w.value("headway_live_lost_total", "sse"))
	}
}

func TestALargeSnapshotComesInParts(t *testing.T) {
	w := newWorld(t)
	for i := range 300 {
		w.register(fmt.Sprintf("gpu-%03d", i), "us-east")
	}
	l := w.listen("")
	heads := 0
	for part := 1; ; part++ {
		sent := l.want("snapshot", "")
		var s api.Snapshot
		if err := json.Unmarshal([]byte(sent.data), &s); err != nil || s.Part != part || len(sent.data) > 80<<10 || (sent.id != "") != (part == s.Parts) {
			t.Fatalf("part %d: %d of %d, %d bytes, id %q, %v", part, s.Part, s.Parts, len(sent.data), sent.id, err)
		}
		if heads += len(s.Heads); s.Part == s.Parts {
			if part < 2 {
				t.Error("one part holds all")
			}
			break
		}
	}
	if heads != 300 {
		t.Errorf("%d heads", heads)
	}
}

func TestDecisionsAreSentToThoseWhoAsk(t *testing.T) {
	w := newWorld(t)
	w.register("gpu-1", "us-east")
	l := w.listen("?types=decision.*")
	l.want("snapshot", "")
	deny := w.listen("?types=head.removed,policy.*")
	deny.want("snapshot", "")
	d := w.decide()
	next := l.want("decision.made", d.ID())
	var sent api.Event
	if err := json.Unmarshal([]byte(next.data), &sent); err != nil {
		t.Fatal(err)
	}
	id := next.id
	var made api.RecentDecision
	if err := json.Unmarshal(sent.Data, &made); err != nil || sent.Head != "gpu-1" || sent.ID != id || id == "" || made.Head.ID != "gpu-1" || made.Strategy == "" {
		t.Errorf("%+v, %v", sent, err)
	}
	if err := w.router.Finish(d.ID(), routing.Outcome{Result: routing.ResultOK, Duration: 12}); err != nil {
		t.Fatal(err)
	}
	if ended := l.want("decision.ended", d.ID()); !strings.Contains(ended.data, `"result":"ok"`) || ended.id == id {
		t.Errorf("%+v", ended)
	}
	w.events.Publish(event.Event{Type: event.HeadRemoved, Head: "z"})
	deny.want("head.removed", "z") // and no decision before it
}

func TestAQuietStreamIsKeptAlive(t *testing.T) {
	w := newWorld(t)
	begin := time.Now()
	l := w.listen("")
	for {
		sent, ok := <-l.text
		if !ok {
			t.Fatal("the stream has ended")
		}
		if sent.event == "comment" {
			if took := time.Since(begin); took < quick.Heartbeat {
				t.Errorf("after %s", took)
			}
			return
		}
	}
}

func TestAReaderThatStoppedIsDroppedAndCounted(t *testing.T) {
	w := newWorld(t, impatient)
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", w.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.(*net.TCPConn).SetReadBuffer(4096)
	if _, err := fmt.Fprintf(conn, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	w.until("it is connected", func() bool { return w.value("sse_connections") == 1 })
	big := strings.Repeat("x", 60_000)
	w.until("it is dropped", func() bool {
		w.events.Publish(event.Event{Type: event.PolicyChanged, Data: big})
		return w.value("sse_connections") == 0
	})
	if n := w.value("headway_live_dropped_total", "sse", "slow"); n != 1 {
		t.Errorf("%v dropped as slow", n)
	}
}

func TestARevokedStreamEnds(t *testing.T) {
	w := newWorld(t)
	w.who.Store(passing())
	l := w.listen("")
	l.want("snapshot", "")
	w.lapse()
	if sent := l.next(); sent.event != "end" {
		t.Errorf("sent %+v", sent)
	}
	w.until("the gauge falls", func() bool { return w.value("sse_connections") == 0 })
	if n := w.value("headway_live_dropped_total", "sse", "revoked"); n != 1 {
		t.Errorf("%v dropped as revoked", n)
	}
}

// idle is a hub that looks at the clock only once an hour.
func idle(o *live.Options) { o.Timing.Beat, o.Timing.Heartbeat = time.Hour, time.Hour }

// What ends a stream is the change itself; no look at the clock comes before it.
func TestAStreamEndsWithTheChangeThatEndsItsKey(t *testing.T) {
	w := newWorld(t, idle)
	l := w.listen("")
	l.want("snapshot", "")
	w.end()
	if sent := l.next(); sent.event != "end" {
		t.Errorf("sent %+v", sent)
	}
	late := w.listen("") // admitted before the change, and served after it
	for sent := late.next(); sent.event != "end"; sent = late.next() {
		if sent.event != "snapshot" {
			t.Errorf("sent %+v", sent)
		}
	}
}

func TestShutdownSaysGoodbye(t *testing.T) {
	w := newWorld(t)
	l := w.listen("")
	l.want("snapshot", "")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := w.hub.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	l.want("bye", "connect again")
	if sent := l.next(); sent.event != "end" {
		t.Errorf("then %+v", sent)
	}
	if late := w.listen(""); late.status != 503 {
		t.Errorf("a late one gets %d", late.status)
	}
	if n := w.value("sse_connections"); n != 0 {
		t.Errorf("sse_connections is %v", n)
	}
}

func TestThereAreNotMoreStreamsThanAllowed(t *testing.T) {
	w := newWorld(t, func(o *live.Options) { o.MaxStreams = 2 })
	w.listen("").want("snapshot", "")
	w.listen("").want("snapshot", "")
	if third := w.listen(""); third.status != 503 {
		t.Errorf("the third gets %d", third.status)
	}
	if n := w.value("headway_live_refused_total"); n != 1 {
		t.Errorf("%v counted", n)
	}
}

// Streams that end make room for others, of either kind.
func TestStreamsThatEndMakeRoom(t *testing.T) {
	w := newWorld(t, func(o *live.Options) { o.MaxStreams = 2 })
	for range 10 {
		l, p := w.listen(""), w.connect()
		l.want("snapshot", "")
		l.stop()
		_ = p.conn.CloseNow()
		w.until("both have left", func() bool { return w.hub.Streams() == 0 })
	}
}

// When Shutdown returns, no stream is left.
func TestShutdownWaitsForTheLastStream(t *testing.T) {
	w := newWorld(t)
	for range 50 {
		w.listen("").want("snapshot", "")
		w.connect()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := w.hub.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if sse, ws := w.value("sse_connections"), w.value("websocket_connections"); sse+ws != 0 {
		t.Errorf("%v and %v streams are left", sse, ws)
	}
}

// How long streams were open is observed by transport once they end, and not before.
func TestStreamsHaveAHistogramOfTheirOwn(t *testing.T) {
	w := newWorld(t)
	l, p := w.listen(""), w.connect()
	l.want("snapshot", "")
	w.until("both are open", func() bool { return w.value("sse_connections") == 1 && w.value("websocket_connections") == 1 })
	if n := w.value("headway_stream_duration_seconds"); n != 0 {
		t.Errorf("%v streams are said to have ended", n)
	}
	l.stop()
	w.until("one has ended", func() bool { return w.value("headway_stream_duration_seconds", "sse") == 1 })
	if n := w.value("headway_stream_duration_seconds", "websocket"); n != 0 {
		t.Errorf("%v WebSockets are said to have ended", n)
	}
	_ = p.conn.CloseNow()
	w.until("the other has ended", func() bool { return w.value("headway_stream_duration_seconds", "websocket") == 1 })
}

// replaceHub gives the world a hub that does not run yet.
func (w *world) replaceHub(change ...func(*live.Options)) (run func()) {
	w.Helper()
	o := w.options
	o.Metrics = prometheus.NewRegistry()
	for _, c := range change {
		c(&o)
	}
	hub, err := live.New(o)
	if err != nil {
		w.Fatal(err)
	}
	w.hub = hub
	return func() {
		ctx, stop := context.WithCancel(w.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = hub.Run(ctx) })
		w.Cleanup(func() {
			stop()
			running.Wait()
		})
	}
}

// Events in the snapshot are not sent again, though the hub has not read them
// yet, and a client that saw only the snapshot resumes after it.
func TestASnapshotIsAheadOfWhatWasRead(t *testing.T) {
	w := newWorld(t)
	run := w.replaceHub()
	w.register("gpu-1", "us")
	first, lost := w.open(""), w.open("")
	first.want("snapshot", `"gpu-1"`)
	seen := lost.want("snapshot", `"gpu-1"`)
	lost.stop()
	again := w.open("", "Last-Event-ID", seen.id)
	run()
	w.readAll()
	w.register("gpu-2", "us")
	first.want("head.registered", `"gpu-2"`)
	again.want("head.registered", `"gpu-2"`)
}

// An event that the hub itself missed is lost to every stream.
func TestAGapInTheStreamIsALoss(t *testing.T) {
	w := newWorld(t)
	run := w.replaceHub(func(o *live.Options) { o.Window = 2 * event.Window })
	l := w.open("")
	shot := l.want("snapshot", "")
	for range event.Window + 1 {
		w.events.Publish(event.Event{Type: event.HeadExpired, Head: "a"})
	}
	run()
	l.want("lost", `"slow"`)
	l.want("snapshot", "")
	w.listen("", "Last-Event-ID", shot.id).want("lost", `"count":1,`)
}

// A burst of decisions removes no event from what can be resumed after, nor do
// events remove decisions.
func TestABurstOfDecisionsRemovesNoEvent(t *testing.T) {
	const window = 8
	w := newWorld(t, func(o *live.Options) { o.Window = window })
	w.register("gpu-1", "us-east")
	l := w.listen("?types=decision.made")
	shot := l.want("snapshot", "")
	burst := func() {
		for range 10 {
			for range 500 {
				w.decide()
			}
			w.until("they are read", func() bool { return w.hub.Followed() == w.router.Newest() })
		}
	}
	burst()
	for i := range window {
		w.events.Publish(event.Event{Type: event.HeadExpired, Head: fmt.Sprint("e", i)})
	}
	w.readAll()
	burst()
	again := w.listen("?types=head.expired,decision.made", "Last-Event-ID", shot.id)
	again.want("lost", `"decision.*"`)
	made, expired := 0, 0
	for made+expired < 4096+window {
		switch next := again.next(); next.event {
		case "decision.made":
			made++
		case "head.expired":
			expired++
		default:
			t.Fatalf("got %+v after %d decisions and %d events", next, made, expired)
		}
	}
	if expired != window {
		t.Errorf("%d events, want %d", expired, window)
	}
}
