package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"headway/api"
	"headway/client"
)

// watching serves each connection by the next of the handlers, the last one for
// ever.
func watching(t *testing.T, handlers ...func(w http.ResponseWriter, r *http.Request)) *client.Client {
	t.Helper()
	var n atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i := min(int(n.Add(1)), len(handlers))
		handlers[i-1](w, r)
	}))
	t.Cleanup(server.Close)
	c, err := client.New(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func say(w http.ResponseWriter, text string) {
	_, _ = w.Write([]byte(text))
	_ = http.NewResponseController(w).Flush()
}

// A broken connection is made again, and goes on after the last event.
func TestWatchResumes(t *testing.T) {
	var asked []string
	c := watching(t,
		func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.URL.RawQuery+" "+r.Header.Get("Last-Event-ID")+" "+r.Header.Get("Accept"))
			say(w, "retry: 1\n\nid: a-1\nevent: snapshot\ndata: {\"part\":1,\"parts\":1,\"policy_revision\":3,\"heads\":[{\"id\":\"gpu-1\"}]}\n\n: still here\n\n")
			say(w, "id: a-2\nevent: head.expired\ndata: {\"id\":\"a-2\",\"type\":\"head.expired\",\"head\":\"gpu-1\"}\n\nid: a-3\nevent: head.rem")
		},
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.Header.Get("Last-Event-ID"))
			say(w, "event: lost\ndata: {\"count\":7,\"reason\":\"window\"}\n\nevent: bye\ndata: {\"reason\":\"x\"}\n\n")
		},
		func(w http.ResponseWriter, _ *http.Request) {
			say(w, "id: b-9\nevent: head.removed\ndata: {\"type\":\"head.removed\",\"head\":\"gpu-1\"}\n\n")
		})
	var got, connections []string
	connection := func(err error) {
		connections = append(connections, fmt.Sprint(errors.Is(err, client.ErrUnavailable)))
	}
	for n, err := range c.Watch(t.Context(), api.Subscription{Types: []string{"head.*", "policy.*"}, Region: "eu"}, client.OnConnection(connection)) {
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case n.Snapshot != nil:
			got = append(got, fmt.Sprint("snapshot of ", len(n.Snapshot.Heads)))
		case n.Lost != nil:
			got = append(got, fmt.Sprint("lost ", n.Lost.Count))
		default:
			got = append(got, n.Event.Type)
		}
		if len(got) == 4 {
			break
		}
	}
	if text := strings.Join(got, ", "); text != "snapshot of 1, head.expired, lost 7, head.removed" {
		t.Errorf("reported %s", text)
	}
	if text := strings.Join(connections, " "); text != "false true true false true false" {
		t.Errorf("connections failed: %s", text)
	}
	if text := strings.Join(asked, "; "); text != "region=eu&types=head.%2A%2Cpolicy.%2A  text/event-stream; a-2" {
		t.Errorf("asked %s", text)
	}
}

func TestWatchEndsWhereAskingAgainWouldNotHelp(t *testing.T) {
	for status, want := range map[int]error{401: client.ErrUnauthorized, 403: client.ErrForbidden, 422: client.ErrInvalid} {
		c := watching(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		n := 0
		for _, err := range c.Watch(t.Context(), api.Subscription{}) {
			if n++; !errors.Is(err, want) {
				t.Errorf("%d: %v", status, err)
			}
		}
		if n != 1 {
			t.Errorf("%d: %d errors", status, n)
		}
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	c := watching(t, func(w http.ResponseWriter, r *http.Request) {
		say(w, "event: head.expired\ndata: {\"type\":\"head.expired\"}\n\n")
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for n, err := range c.Watch(ctx, api.Subscription{}) {
		if err != nil || n.Event == nil {
			t.Fatalf("%+v, %v", n, err)
		}
		cancel()
	}
}

func TestWatchSurvivesNonsense(t *testing.T) {
	var turns atomic.Int64
	c := watching(t,
		func(w http.ResponseWriter, _ *http.Request) { say(w, "retry: 1\n\nevent: head.expired\ndata: {\n\n") },
		func(w http.ResponseWriter, _ *http.Request) { say(w, "data: "+strings.Repeat("x", 5<<20)+"\n\n") },
		func(w http.ResponseWriter, _ *http.Request) {
			turns.Add(1)
			say(w, "event: head.expired\ndata: {\"type\":\"head.expired\"}\n\n")
		})
	begin := time.Now()
	for n, err := range c.Watch(t.Context(), api.Subscription{}) {
		if err != nil || n.Event == nil || n.Event.Type != "head.expired" {
			t.Fatalf("%+v, %v", n, err)
		}
		break
	}
	if turns.Load() != 1 || time.Since(begin) > 20*time.Second {
		t.Errorf("%d turns in %s", turns.Load(), time.Since(begin))
	}
}

func TestDeadLettersAreListedRetriedAndPurged(t *testing.T) {
	var asked []string
	c := watching(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.Path)
		switch {
		case r.Method != http.MethodGet:
			w.WriteHeader(http.StatusNoContent)
		case strings.HasSuffix(r.URL.Path, "dead-letters"):
			say(w, `{"data":[{"number":4,"code":"invalid_json"}],"next_cursor":""}`)
		default:
			say(w, `{"number":4,"code":"invalid_json"}`)
		}
	})
	list, err := client.Collect(c.DeadLetters(t.Context()), 0)
	if err != nil || len(list) != 1 || list[0].Number != 4 {
		t.Fatalf("%+v, %v", list, err)
	}
	if one, err := c.DeadLetter(t.Context(), 4); err != nil || one.Code != "invalid_json" {
		t.Errorf("%+v, %v", one, err)
	}
	if err := errors.Join(c.RetryDeadLetter(t.Context(), 4), c.PurgeDeadLetter(t.Context(), 5)); err != nil {
		t.Error(err)
	}
	const path = "/api/v1/queue/dead-letters"
	if got, want := strings.Join(asked, ","), "GET "+path+",GET "+path+"/4,POST "+path+"/4/retry,DELETE "+path+"/5"; got != want {
		t.Errorf("asked %s", got)
	}
}
