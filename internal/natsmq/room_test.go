package natsmq_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"headway/api"
	"headway/internal/access"
	"headway/internal/apiv1"
	"headway/internal/natsmq"
)

// value is what a metric of the queue shows; stream is its label, or "".
func (w *world) value(name, stream string) float64 {
	w.Helper()
	return value(w.TB, w.metrics, name, stream)
}

func value(t testing.TB, metrics prometheus.Gatherer, name, stream string) float64 {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Error(err)
		return 0
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (stream == "" || m.GetLabel()[0].GetValue() == stream) {
				if f.GetType() == dto.MetricType_COUNTER {
					return m.GetCounter().GetValue()
				}
				return m.GetGauge().GetValue()
			}
		}
	}
	t.Errorf("there is no %s", name)
	return 0
}

// One sender leaves room for the others, and what it leaves is never all taken.
func TestASenderTakesNoMoreOfTheStreamThanItLeaves(t *testing.T) {
	w := waiting(t, t.TempDir(), administered, func(o *natsmq.Options) { o.MaxBytes = 1 << 20 })
	for _, key := range []string{"k-a", "k-b", "k-c"} {
		w.key(key, access.RoleClient)
	}
	body := []byte(`{"decision_id":"` + strings.Repeat("x", 10_000) + `"}`)
	fill := func(nc *nats.Conn, subject string) (stored int, refused string) {
		t.Helper()
		js := jetStream(t, nc)
		for range 200 {
			_, err := js.Publish(t.Context(), "headway.v1.decisions.outcome"+subject, body, jetstream.WithRetryAttempts(0))
			if no, ok := errors.AsType[*jetstream.APIError](err); ok {
				if no.Code != 503 {
					t.Fatalf("refused with %+v", no)
				}
				return stored, no.Description
			}
			if err != nil {
				t.Fatal(err)
			}
			stored++
		}
		return stored, ""
	}
	a := w.connect(as("k-a")...)
	for i, c := range []struct {
		nc      *nats.Conn
		subject string
		most    int
	}{
		{a, ".k-a", 52}, {w.connect(as("k-b")...), ".k-b", 26}, {a, ".k-a", 0}, {w.connect(as("k-c")...), ".k-c", 13}, {a, "", 7},
	} {
		stored, refused := fill(c.nc, c.subject)
		if stored > c.most || stored < c.most-2 || !strings.Contains(refused, "queue.max_bytes") {
			t.Errorf("%d: %d commands are stored, want about %d; then %q", i, stored, c.most, refused)
		}
	}
	if ok, detail := w.queue.Ready(); !strings.Contains(detail, "full to") {
		t.Errorf("ready %v: %s", ok, detail)
	}
	if filled := w.value("headway_queue_fill_ratio", "commands"); filled < 0.9 || filled > 1 {
		t.Errorf("it is full to %v", filled)
	}
}

// Commands that were there before a restart have their room, and give it back.
func TestRoomIsKnownAfterARestart(t *testing.T) {
	dir := t.TempDir()
	small := func(o *natsmq.Options) { o.MaxBytes = 1 << 20 }
	w := waiting(t, dir, administered, small)
	w.key("k-a", access.RoleClient)
	js := jetStream(t, w.connect(as("k-a")...))
	for range 40 {
		if _, err := js.Publish(t.Context(), "headway.v1.decisions.outcome.k-a", make([]byte, 10_000)); err != nil {
			t.Fatal(err)
		}
	}
	before := w.value("headway_queue_fill_ratio", "commands")
	if err := w.queue.Close(); err != nil {
		t.Fatal(err)
	}
	var first sync.Once
	var filled float64 // when the first was delivered
	next := newWorldOf(t, plenty, func(w *world, _ *access.Options) {
		asked := func() { // a note: the key is unknown
			if within("carryOut") {
				first.Do(func() { filled = value(t, w.metrics, "headway_queue_fill_ratio", "commands") })
			}
		}
		w.asked.Store(&asked)
	}, small, func(o *natsmq.Options) { o.Dir = dir })
	next.until("they are carried out", func() bool { return next.of("dead_letters", "published") == 40 })
	next.until("their room is given back", func() bool { return next.value("headway_queue_fill_ratio", "commands") == 0 })
	if before < 0.3 || before > 0.5 || filled < before-0.05 || filled > before+0.05 {
		t.Errorf("before the restart it was full to %v, after it to %v", before, filled)
	}
}

// A command that was carried out, refused or is a repetition gives its room back.
func TestRoomIsGivenBack(t *testing.T) {
	w := newWorld(t, func(o *natsmq.Options) { o.Timing.Sweep = time.Hour }) // which would find the stream empty
	w.ready()
	w.key("k-a", access.RoleOperator)
	js := jetStream(t, w.connect(as("k-a")...))
	for i := range 20 {
		for subject, body := range map[string]string{"decisions.outcome.k-a": "{}", "commands.heads.register.k-a": registration(fmt.Sprint("gpu-", i))} {
			if _, err := js.Publish(t.Context(), "headway.v1."+subject, []byte(body), jetstream.WithMsgID(fmt.Sprint("id-", i/2))); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.until("all are carried out", func() bool {
		return w.of("heads.register", "processed") == 10 && w.of("dead_letters", "published") == 10
	})
	w.until("nothing is taken", func() bool { return w.value("headway_queue_fill_ratio", "commands") == 0 })
	w.agree()
}

// The oldest dead letters give way, those of the sender first, and are counted; a
// letter keeps the beginning of what can never be applied.
func TestTheOldestDeadLettersGiveWay(t *testing.T) {
	w := newWorld(t, func(o *natsmq.Options) { o.MaxBytes = 1 << 20 }) // 100 letters of a sender and queue
	w.ready()
	w.key("k-a", access.RoleClient)
	w.key("k-b", access.RoleClient)
	w.ask(w.connect(as("k-b")...), "headway.v1.decisions.outcome.k-b", `{"decision_id":"kept","result":"ok"}`, `"HEADWAY_COMMANDS"`)
	w.until("B has a letter", func() bool { return w.of("dead_letters", "published") == 1 })
	body := `{"decision_id":"` + strings.Repeat("x", 60_000)
	nc := w.connect(as("k-a")...)
	const n = 250
	for range n {
		w.until("it is stored", func() bool { // the stream is small, and its commands may wait
			m, err := nc.Request("headway.v1.decisions.outcome.k-a", []byte(body), time.Minute)
			return err == nil && strings.Contains(string(m.Data), `"HEADWAY_COMMANDS"`)
		})
	}
	w.until("all have a letter", func() bool { return w.of("dead_letters", "published") == n+1 })
	w.agree()
	letters, total, err := w.queue.DeadLetters(t.Context(), 0, 10)
	if err != nil || total != 101 || !strings.Contains(letters[0].Body, "kept") {
		t.Fatalf("%d letters, %+v, %v", total, letters, err)
	}
	if l := letters[1]; l.Bytes != len(body) || l.Body != body[:4096] || l.Deliveries != 1 {
		t.Errorf("a letter of %d bytes has %d", l.Bytes, len(l.Body))
	}
	w.until("they are counted", func() bool { return w.value("headway_queue_discarded_total", "") == n-100 })
	w.until("it is said", func() bool {
		_, detail := w.queue.Ready()
		return strings.Contains(detail, "the oldest give way") && w.value("headway_queue_fill_ratio", "dead_letters") == 1
	})
	if problem, ok := errors.AsType[*apiv1.Problem](w.queue.RetryDeadLetter(t.Context(), letters[1].Number)); !ok || problem.Code != api.CodeInvalid {
		t.Errorf("a letter that has the beginning only is put back: %v", problem)
	}
	if err := w.queue.PurgeDeadLetter(t.Context(), letters[2].Number); err != nil {
		t.Fatal(err)
	}
	<-time.After(3 * quick.Sweep)
	if lost := w.value("headway_queue_discarded_total", ""); lost != n-100 {
		t.Errorf("%v are counted after one was purged", lost)
	}
}

// Where the disk has less room than it must have, commands are refused before it
// is full, and taken again once it has; the rest goes on.
func TestANearlyFullDiskTakesNoCommands(t *testing.T) {
	w := newWorld(t, func(o *natsmq.Options) { o.MinFree = 1 << 60 })
	nc := w.connect()
	w.ask(nc, "headway.v1.decisions.outcome", `{}`, "state.min_free_bytes")
	w.ask(nc, "headway.v1.decisions.request", `{"model_type":"x"}`, `"unknown_model_type"`)
	w.until("it is said", func() bool { _, detail := w.queue.Ready(); return strings.Contains(detail, "state.min_free_bytes") })
	if up := w.value("headway_queue_up", ""); up != 0 {
		t.Errorf("headway_queue_up is %v", up)
	}
	w.agree()
}

// journal is a log that is kept.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (*journal) Enabled(context.Context, slog.Level) bool { return true }
func (j *journal) Handle(_ context.Context, r slog.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, r.Message)
	return nil
}
func (j *journal) WithAttrs([]slog.Attr) slog.Handler { return j }
func (j *journal) WithGroup(string) slog.Handler      { return j }

// has is how many lines have a text.
func (j *journal) has(text string) (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, line := range j.lines {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}
