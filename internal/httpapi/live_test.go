package httpapi_test

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"headway/internal/access"
	"headway/internal/audit"
	"headway/internal/httpapi"
)

// stream opens GET path over a real connection.
func (w *world) stream(ctx context.Context, base, path string, headers ...string) *http.Response {
	w.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, http.NoBody)
	if err != nil {
		w.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := new(http.Transport).RoundTrip(r)
	if err != nil {
		w.Fatal(err)
	}
	return answer
}

// A stream outlives the deadlines of a request, is counted when it begins, and
// ends with its key.
func TestAStreamOutlivesTheDeadlinesOfRequests(t *testing.T) {
	w := newWorld(t, func(o *httpapi.Options) {
		o.Limits.ReadTimeout, o.Limits.WriteTimeout, o.Limits.HeaderTimeout = time.Second, time.Second, time.Second
	})
	base := "http://" + w.listen()
	answer := w.stream(t.Context(), base, "/api/v1/events?types=head.*")
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != "text/event-stream" || answer.Header.Get("X-Request-Id") == "" {
		t.Fatalf("%d %v", answer.StatusCode, answer.Header)
	}
	if page := w.scrape(); !strings.Contains(page, `http_requests_total{endpoint="/api/v1/events",method="GET",status="200"} 1`) || !strings.Contains(page, "sse_connections 1") {
		t.Error("it is not counted while it is open")
	}
	<-time.After(2500 * time.Millisecond)
	w.register("late")
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "event: head.registered") {
			return
		}
	}
	t.Errorf("it ended: %v", lines.Err())
}

func TestAWebSocketIsRefusedToOtherSitesAndWithoutKeyInTheURL(t *testing.T) {
	w := newWorld(t)
	address := w.listen()
	w.key(w.admin(), access.Request{Name: "admin", Role: "admin"})
	secret := w.key(w.admin(), access.Request{Name: "client", Role: "client"})
	dial := func(query string, header http.Header) (*websocket.Conn, int) {
		conn, answer, err := websocket.Dial(t.Context(), "ws://"+address+"/api/v1/ws"+query, &websocket.DialOptions{HTTPHeader: header})
		if err != nil {
			if answer == nil {
				t.Fatal(err)
			}
			return nil, answer.StatusCode
		}
		t.Cleanup(func() { _ = conn.CloseNow() })
		return conn, answer.StatusCode
	}
	for name, c := range map[string]struct {
		query  string
		header http.Header
		want   int
	}{
		"another site's page":   {"", http.Header{"Origin": {"https://evil.example"}}, 403},
		"a key in the URL":      {"?token=" + secret, nil, 400},
		"a query without use":   {"?x=1", http.Header{"Authorization": {"Bearer " + secret}}, 422},
		"a guess":               {"", http.Header{"Authorization": {"Bearer hw_000000000000_x"}}, 401},
		"our own page":          {"", http.Header{"Origin": {"http://" + address}, "Authorization": {"Bearer " + secret}}, 101},
		"no credential, so far": {"", nil, 101},
	} {
		if _, status := dial(c.query, c.header); status != c.want {
			t.Errorf("%s: %d; want %d", name, status, c.want)
		}
	}
	w.recorded.take()
	conn, _ := dial("", nil)
	say := func(message string) string {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := conn.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
			t.Fatal(err)
		}
		_, raw, err := conn.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	if got := say(`{"id":1,"type":"auth","data":{"token":"` + secret + `"}}`); !strings.Contains(got, `"role":"client"`) {
		t.Fatal(got)
	}
	if got := say(`{"id":2,"type":"register","data":` + headBody("a") + `}`); !strings.Contains(got, `"forbidden"`) {
		t.Error(got)
	}
	denied := w.recorded.take()
	if len(denied) != 1 || denied[0].Action != "head.register" || denied[0].Outcome != audit.Denied || denied[0].Actor.Via != "websocket" ||
		denied[0].Actor.ID != strings.Split(secret, "_")[1] || denied[0].Source.IP != "127.0.0.1" {
		t.Errorf("recorded %+v", denied)
	}
	operator := w.key(w.admin(), access.Request{Name: "operator", Role: "operator"})
	w.recorded.take()
	if got := say(`{"id":3,"type":"auth","data":{"token":"` + operator + `"}}`); !strings.Contains(got, `"role":"operator"`) {
		t.Fatal(got)
	}
	if got := say(`{"id":4,"type":"register","data":` + headBody("a") + `}`); !strings.Contains(got, `"answer"`) {
		t.Error(got)
	}
	done := w.recorded.take()
	if len(done) == 0 || done[len(done)-1].Action != "head.register" || done[len(done)-1].Outcome != audit.Success || done[len(done)-1].Actor.Via != "websocket" ||
		done[len(done)-1].Actor.ID != strings.Split(operator, "_")[1] {
		t.Errorf("recorded %+v", done)
	}
	if err := w.keys.Revoke(t.Context(), strings.Split(operator, "_")[1]); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, got, err := conn.Read(ctx); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Errorf("with a revoked key: %s, %v; want the end of the connection", got, err)
	}
}

// Drain ends streams after the lame duck, so that they do not hold up a stop.
func TestAStopSaysGoodbyeToStreams(t *testing.T) {
	w := newWorld(t, func(o *httpapi.Options) {
		o.Limits.LameDuck, o.Limits.ShutdownTimeout = 50*time.Millisecond, 10*time.Second
	})
	base := "http://" + w.listen()
	answer := w.stream(t.Context(), base, "/api/v1/events")
	defer func() { _ = answer.Body.Close() }()
	conn, _, err := websocket.Dial(t.Context(), base+"/api/v1/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	drained := make(chan error, 1)
	go func() { drained <- w.server.Drain(context.Background()) }()
	_, raw, err := conn.Read(t.Context())
	if err != nil || !strings.Contains(string(raw), `"bye"`) {
		t.Errorf("%s, %v", raw, err)
	}
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("then %v", err)
	}
	bye := false
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		bye = bye || lines.Text() == "event: bye"
	}
	if err := <-drained; err != nil || !bye {
		t.Errorf("Drain: %v; goodbye %v", err, bye)
	}
	if page := w.scrape(); !strings.Contains(page, "sse_connections 0") || !strings.Contains(page, "websocket_connections 0") {
		t.Error("gauges are not 0")
	}
}
