package httpapi_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const wantsDecision = `{"model_type":"llama-3.1-8b"}`

// A caller that has left does not keep a place at a head: it gets no answer, and
// its request comes to no head.
func TestACallerThatLeftKeepsNoPlace(t *testing.T) {
	for name, ask := range map[string]func(*world){
		"as it is answered": func(w *world) {
			w.server.ServeHTTP(broken{}, newRequest(w, http.MethodPost, "/api/v1/decisions", wantsDecision))
		},
		"while it waited": func(w *world) {
			conn, answered := w.afterTheEnd()
			if err := conn.SetLinger(0); err != nil { // the connection is reset
				w.Fatal(err)
			}
			_ = conn.Close()
			<-answered
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.register("a")
			ask(w)
			if n := w.router.Open(); n != 0 {
				t.Errorf("%d places are held", n)
			}
			if w.router.Newest() == 0 {
				t.Error("no decision was made")
			}
		})
	}
}

// A caller that closes its side of the connection after the request still reads:
// it has its answer, and its place.
func TestACallerThatClosedItsSideIsAnswered(t *testing.T) {
	w := newWorld(t)
	w.register("a")
	conn, answered := w.afterTheEnd()
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	head, body, _ := strings.Cut(string(answer), "\r\n\r\n")
	if err != nil || !strings.HasPrefix(head, "HTTP/1.1 200 OK\r\n") || !strings.HasPrefix(body, `{"decision_id":"`) || !strings.HasSuffix(body, "}\n") {
		t.Errorf("answered %q, %v", answer, err)
	}
	<-answered
	if n := w.router.Open(); n != 1 {
		t.Errorf("%d places are held", n)
	}
}

// afterTheEnd asks for a decision, which is made only after the service has seen
// the end of what comes by the connection; answered is closed after that.
func (w *world) afterTheEnd() (conn *net.TCPConn, answered chan struct{}) {
	w.Helper()
	answered = make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		defer close(answered)
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.Error(err)
		}
		<-r.Context().Done()
		r.Body = io.NopCloser(bytes.NewReader(body))
		w.server.ServeHTTP(rw, r)
	}))
	w.Cleanup(server.Close)
	conn, _ = dial(w, server.Listener.Addr().String()).(*net.TCPConn)
	request := newRequest(w, http.MethodPost, "/api/v1/decisions", wantsDecision)
	if err := request.Write(conn); err != nil {
		w.Fatal(err)
	}
	return conn, answered
}

// broken is the answer to a caller whose connection is gone.
type broken struct{}

func (broken) Header() http.Header       { return http.Header{} }
func (broken) WriteHeader(int)           {}
func (broken) Write([]byte) (int, error) { return 0, http.ErrHandlerTimeout }
