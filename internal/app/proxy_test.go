package app

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/event"
	"headway/internal/upstream"
)

// A head that leaves the fleet has no connection of ours any more, and the others keep
// theirs.
func TestAHeadThatLeavesHasNoConnection(t *testing.T) {
	metrics := prometheus.NewRegistry()
	heads, err := upstream.New(upstream.Options{
		Metrics: metrics, IdleTimeout: time.Hour, MaxOpen: 10, MaxOpenPerHead: 10, MaxIdlePerHead: 10,
		Limits: upstream.Limits{Connect: time.Minute, Write: time.Minute, FirstByte: time.Minute, Idle: time.Minute, Total: time.Hour},
	})
	if err != nil {
		t.Fatal(err)
	}
	a := &App{heads: heads, events: event.New(metrics)}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.forgetHeads(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := heads.Close(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	}()
	start := func() (endpoint string, closed chan struct{}) {
		closed = make(chan struct{})
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				close(closed)
			}
		}
		s.Start()
		t.Cleanup(s.Close)
		res, err := heads.Do(t.Context(), &upstream.Call{Endpoint: s.URL, Method: http.MethodGet, Path: "/"})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		return s.URL, closed
	}
	leaves, closed := start()
	stays, open := start()
	for left := false; !left; {
		a.events.Publish(event.Event{Type: event.HeadUnroutable, Endpoint: stays})
		a.events.Publish(event.Event{Type: event.HeadRemoved, Endpoint: leaves}) // again, until it is listened to
		select {
		case <-closed:
			left = true
		case <-time.After(10 * time.Millisecond):
		}
	}
	select {
	case <-open:
		t.Error("a head that drains has lost its connection")
	default:
	}
}
