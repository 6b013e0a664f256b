package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"headway/api"
	"headway/client"
	"headway/internal/config"
)

func openSocket(t testing.TB, c *client.Client) *client.Socket {
	t.Helper()
	s, err := c.OpenSocket(t.Context())
	must(t, err)
	t.Cleanup(s.Close)
	return s
}

// notice reads notices until one matches.
func notice(t testing.TB, s *client.Socket, what string, is func(client.Notice) bool) {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case n, more := <-s.Notices():
			switch {
			case !more:
				t.Fatalf("the socket ended before it reported %s: %v", what, s.Err())
			case is(n):
				return
			}
		case <-late:
			t.Fatalf("it was not notified of %s", what)
		}
	}
}

// patientService gives a head that reports once time for the whole test.
func patientService(t testing.TB) *service {
	t.Helper()
	return startService(t, func(c *config.Config) { c.Lease.BaseInterval = 10 * time.Second })
}

func TestAHeadAndACallerLiveOnOneSocket(t *testing.T) {
	service := patientService(t)
	c := dial(t, service.url())
	s := openSocket(t, c)
	ctx := t.Context()
	must(t, s.Subscribe(ctx, api.Subscription{Types: []string{"head.*"}}))
	notice(t, s, "the fleet", func(n client.Notice) bool { return n.Snapshot != nil && len(n.Snapshot.Heads) == 0 })
	done, err := s.Register(ctx, registration("h1"))
	must(t, err)
	load := idle()
	said, err := s.Report(ctx, "h1", api.StatusReport{Epoch: done.Lease.Epoch, Status: client.StatusActive, Load: &load})
	if err != nil || said.Lease.Epoch != done.Lease.Epoch || said.Lease.TTLSeconds == 0 {
		t.Fatalf("%+v, %v", said, err)
	}
	notice(t, s, "the head", func(n client.Notice) bool {
		return n.Event != nil && n.Event.Type == "head.routable" && n.Event.Head == "h1" && n.Event.ID != ""
	})
	d, err := s.Decide(ctx, api.DecisionRequest{ModelType: "llama-3.1-8b"})
	must(t, err)
	if d.Head.ID != "h1" {
		t.Errorf("%+v", d)
	}
	must(t, s.ReportFirstToken(ctx, d.DecisionID))
	must(t, s.ReportOutcome(ctx, d.DecisionID, api.Outcome{Result: client.ResultOK}))
	recorded, err := c.Decision(ctx, d.DecisionID)
	if err != nil || recorded.Outcome == nil || recorded.Outcome.Result != client.ResultOK || recorded.FirstTokenAt == nil {
		t.Errorf("%+v, %v", recorded, err)
	}
	draining := "draining"
	_, err = c.PatchHead(ctx, "h1", api.HeadPatch{AdminState: &draining})
	must(t, err)
	notice(t, s, "the operator's word", func(n client.Notice) bool {
		return n.Admin != nil && *n.Admin == api.AdminNotice{Head: "h1", AdminState: draining}
	})
	must(t, s.Deregister(ctx, "h1"))
	notice(t, s, "the end", func(n client.Notice) bool { return n.Event != nil && n.Event.Type == "head.removed" })
	must(t, s.Unsubscribe(ctx))
}

// Calls from many goroutines are under way at once, and each gets its answer.
func TestASocketAnswersManyAtOnce(t *testing.T) {
	service := patientService(t)
	c := dial(t, service.url())
	s := openSocket(t, c)
	head := registration("h1")
	head.ModelTypes, head.Capacity = nil, nil
	for i := range 16 {
		head.ModelTypes = append(head.ModelTypes, fmt.Sprint("m-", i))
	}
	done, err := s.Register(t.Context(), head)
	must(t, err)
	_, err = s.Report(t.Context(), "h1", api.StatusReport{Epoch: done.Lease.Epoch, Status: client.StatusActive})
	must(t, err)
	var wait sync.WaitGroup
	for _, model := range head.ModelTypes {
		wait.Go(func() {
			for range 50 {
				d, err := s.Decide(t.Context(), api.DecisionRequest{ModelType: model})
				if err != nil || d.ModelType != model {
					t.Errorf("%s: %+v, %v", model, d, err)
					return
				}
				if err := s.ReportOutcome(t.Context(), d.DecisionID, api.Outcome{Result: client.ResultOK}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	if _, err := s.Decide(t.Context(), api.DecisionRequest{ModelType: "nobody"}); !errors.Is(err, client.ErrUnknownModelType) {
		t.Errorf("a model type that nobody serves: %v", err)
	}
	for what, err := range map[string]error{
		"an outcome of no decision": s.ReportOutcome(t.Context(), "dec_x", api.Outcome{Result: client.ResultOK}),
		"no head":                   s.Deregister(t.Context(), "nobody"),
	} {
		if !errors.Is(err, client.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := s.Subscribe(t.Context(), api.Subscription{Types: []string{"dance"}}); !errors.Is(err, client.ErrInvalid) || !strings.Contains(err.Error(), "head.expired") {
		t.Errorf("subscribed to nothing: %v", err)
	}
}

func TestASocketIsRefusedForItsKey(t *testing.T) {
	service := startService(t)
	admin, err := dial(t, service.url()).CreateKey(t.Context(), api.KeyRequest{Name: "first", Role: "admin"})
	must(t, err)
	viewer, err := dial(t, service.url(), client.WithToken(admin.Secret)).CreateKey(t.Context(), api.KeyRequest{Name: "reader", Role: "viewer"})
	must(t, err)
	if _, err := dial(t, service.url(), client.WithToken(admin.Secret+"x")).OpenSocket(t.Context()); !errors.Is(err, client.ErrUnauthorized) {
		t.Errorf("a wrong key: %v", err)
	}
	if _, err := openSocket(t, dial(t, service.url())).Decide(t.Context(), api.DecisionRequest{ModelType: "m"}); !errors.Is(err, client.ErrUnauthorized) {
		t.Errorf("no key: %v", err)
	}
	if _, err := openSocket(t, dial(t, service.url(), client.WithToken(viewer.Secret))).Decide(t.Context(), api.DecisionRequest{ModelType: "m"}); !errors.Is(err, client.ErrForbidden) {
		t.Errorf("a viewer: %v", err)
	}
	revoked := openSocket(t, dial(t, service.url(), client.WithToken(viewer.Secret)))
	must(t, dial(t, service.url(), client.WithToken(admin.Secret)).RevokeKey(t.Context(), viewer.ID))
	<-revoked.Done()
	if err := revoked.Err(); !errors.Is(err, client.ErrUnauthorized) {
		t.Errorf("a key that was revoked: %v", err)
	}
}

func TestASocketEndsWithItsService(t *testing.T) {
	service := startService(t)
	c := dial(t, service.url())
	s := openSocket(t, c)
	if s.Err() != nil {
		t.Errorf("it ended with %v", s.Err())
	}
	service.stop()
	<-s.Done()
	if err := s.Err(); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("it ended with %v", err)
	}
	if err := s.Unsubscribe(t.Context()); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("a call: %v", err)
	}
	if _, more := <-s.Notices(); more {
		t.Error("there are notices")
	}
	if _, err := c.OpenSocket(t.Context()); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("another: %v", err)
	}
	s.Close()
}

// fakeSocket is one that a test speaks on.
func fakeSocket(t *testing.T, serve func(ctx context.Context, conn *websocket.Conn), o ...client.Option) *client.Socket {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.CloseNow() }()
		serve(r.Context(), conn)
	}))
	t.Cleanup(server.Close)
	return openSocket(t, dial(t, server.URL, o...))
}

func TestASocketSurvivesWhatItDoesNotKnow(t *testing.T) {
	s := fakeSocket(t, func(ctx context.Context, conn *websocket.Conn) {
		_, _, _ = conn.Read(ctx)
		for _, text := range []string{
			`{"type":"song","data":7}`, `{"type":"bye","data":{}}`, `{"id":77,"type":"answer"}`, `{"id":"x","type":"answer"}`,
			`{"id":1,"type":"answer","data":{"lease":{"epoch":4}}}`,
		} {
			_ = conn.Write(ctx, websocket.MessageText, []byte(text))
		}
		_, _, _ = conn.Read(ctx)
		_ = conn.Write(ctx, websocket.MessageText, []byte(`{"type":"event","data":[`))
		_, _, _ = conn.Read(ctx)
	})
	if said, err := s.Report(t.Context(), "h1", api.StatusReport{}); err != nil || said.Lease.Epoch != 4 {
		t.Errorf("%+v, %v", said, err)
	}
	if err := s.Unsubscribe(t.Context()); !errors.Is(err, client.ErrAnswer) {
		t.Errorf("nonsense: %v", err)
	}
	<-s.Done()
}

// A call ends with its context or its time limit; the connection goes on.
func TestACallOnASocketEndsInTime(t *testing.T) {
	s := fakeSocket(t, func(ctx context.Context, conn *websocket.Conn) {
		for n := 1; ; n++ {
			if _, _, err := conn.Read(ctx); err != nil {
				return
			}
			if n == 3 {
				_ = conn.Write(ctx, websocket.MessageText, []byte(`{"id":4,"type":"answer"}`)) // the third was not sent
			}
		}
	}, client.WithTimeout(50*time.Millisecond))
	if err := s.Unsubscribe(t.Context()); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("no answer: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if err := s.Unsubscribe(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := s.Unsubscribe(ctx); !errors.Is(err, context.Canceled) { // and is not sent
		t.Errorf("cancelled before: %v", err)
	}
	if err := s.Unsubscribe(t.Context()); err != nil {
		t.Errorf("the connection does not go on: %v", err)
	}
}

func TestClosingASocketEndsWhatIsUnderWay(t *testing.T) {
	asked := make(chan struct{})
	s := fakeSocket(t, func(ctx context.Context, conn *websocket.Conn) {
		_, _, _ = conn.Read(ctx)
		close(asked)
		_, _, _ = conn.Read(ctx)
	})
	failed := make(chan error, 1)
	go func() { failed <- s.Unsubscribe(context.Background()) }()
	<-asked
	s.Close()
	if err := <-failed; !errors.Is(err, client.ErrSocketClosed) {
		t.Errorf("the call under way: %v", err)
	}
	if err := s.Unsubscribe(t.Context()); !errors.Is(err, client.ErrSocketClosed) {
		t.Errorf("a call after: %v", err)
	}
}
