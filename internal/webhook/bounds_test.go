package webhook_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"

	"headway/api"
	"headway/internal/event"
	"headway/internal/webhook"
)

// Events that came faster than they were read are reported as lost, with how
// many, and so are those that found no room, and reports that found none: with
// the events that were sent they are all.
func TestLostEventsAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		w := &world{answer: func(_ int, r *request) (int, http.Header, error) {
			select {
			case <-release:
				return 200, http.Header{}, nil
			case <-r.gone:
				return 0, nil, errors.New("away")
			}
		}}
		stop := w.run(t, webhook.Options{}, endpoint("head.expired"))
		synctest.Wait()
		total := 0
		publish := func() {
			w.events.Publish(event.Event{Type: event.HeadExpired})
			total++
		}
		for range 1100 { // 1,000 wait, one is being sent, the others find no room
			publish()
			synctest.Wait()
		}
		for lost := false; !lost; { // more than the stream keeps, and the report finds no room
			for range 50_000 {
				publish()
			}
			synctest.Wait()
			lost = int(w.value("headway_webhook_messages_total", "dropped")) < total-1001
		}
		close(release)
		synctest.Wait()
		publish()
		synctest.Wait()
		sent, lost := 0, uint64(0)
		for _, r := range w.requests() {
			var m struct {
				Type string   `json:"type"`
				Data api.Lost `json:"data"`
			}
			if err := json.Unmarshal(r.body, &m); err != nil {
				t.Fatal(err)
			}
			if m.Type != api.MessageLost {
				sent++
				continue
			}
			if m.Data.Count == 0 || m.Data.Reason != "slow" {
				t.Fatalf("sent %s", r.body)
			}
			lost += m.Data.Count
		}
		if sent != 1002 || uint64(sent)+lost != uint64(total) {
			t.Errorf("of %d events %d were sent and %d reported as lost", total, sent, lost)
		}
		stop()
	})
}

// Requests are served before Run begins.
func TestNoEventIsLostBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{early: event.HeadExpired, answer: always(200)}
		stop := w.run(t, webhook.Options{}, endpoint(event.HeadExpired))
		synctest.Wait()
		if sent := w.requests(); len(sent) != 1 {
			t.Errorf("%d messages were sent", len(sent))
		}
		stop()
	})
}

// What lets a caller in stands in a URL's path and query: neither is logged.
func TestTheLogHasNoURL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{answer: func(n int, _ *request) (int, http.Header, error) {
			if n == 1 {
				return 0, nil, errors.New("the connection was refused")
			}
			return 410, http.Header{"Location": {"http://pager.example/T0P/S3CRET"}}, nil
		}}
		stop := w.run(t, webhook.Options{}, webhook.Endpoint{Name: "pager", URL: "http://pager.example/T0P/S3CRET?token=S3CRET", Secret: secret})
		synctest.Wait()
		w.events.Publish(event.Event{Type: event.HeadExpired})
		synctest.Wait()
		stop()
		if text := w.log.String(); !strings.Contains(text, "the connection was refused") || strings.Contains(text, "S3CRET") || strings.Contains(text, "T0P") {
			t.Errorf("the log says %s", text)
		}
	})
}

// endless is an answer without end.
type endless struct{ read int }

func (e *endless) Read(b []byte) (int, error) {
	e.read += len(b)
	return len(b), nil
}

// An answer without end does not hold the sender, and takes no memory.
func TestAnAnswerWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text := &endless{}
		w := &world{answer: always(200), text: text}
		stop := w.run(t, webhook.Options{}, endpoint())
		synctest.Wait()
		w.events.Publish(event.Event{Type: event.HeadExpired})
		synctest.Wait()
		if n := w.value("headway_webhook_messages_total", "delivered"); n != 1 || text.read == 0 || text.read > 128<<10 {
			t.Errorf("%v delivered, %d bytes were read", n, text.read)
		}
		stop()
	})
}

// What must not be called is not tried again.
func TestAForbiddenAddressIsNotTriedAgain(t *testing.T) {
	w := &world{}
	stop := w.run(t, webhook.Options{}, webhook.Endpoint{Name: "metadata", URL: "http://[::a9fe:a9fe]/", Secret: secret})
	failures := func() int {
		_, failed := w.calls()
		return failed
	}
	for end := time.Now().Add(time.Minute); failures() < 3; <-time.After(5 * time.Millisecond) {
		w.events.Publish(event.Event{Type: event.HeadExpired})
		if time.Now().After(end) {
			t.Fatal("nothing is tried")
		}
	}
	stop()
	if text := w.log.String(); strings.Contains(text, "attempt=2") || !strings.Contains(text, "link-local") {
		t.Errorf("the log says %.2000s", text)
	}
}
