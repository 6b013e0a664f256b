package webhook_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headway/internal/event"
	"headway/internal/webhook"
)

// answering is an endpoint that answers each request with bytes of the test's
// choice, until the client leaves.
func answering(t *testing.T, answer func(w io.Writer)) (string, *atomic.Int64) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	asked := new(atomic.Int64)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					asked.Add(1)
					answer(conn)
				}
			}()
		}
	}()
	return "http://" + l.Addr().String() + "/", asked
}

// repeat writes until the other end has closed.
func repeat(w io.Writer, text string) {
	text = strings.Repeat(text, 1+4096/len(text))
	for {
		if _, err := io.WriteString(w, text); err != nil {
			return
		}
	}
}

// No answer of an endpoint takes memory without bound, or leads elsewhere.
func TestHostileAnswers(t *testing.T) {
	elsewhere, led := answering(t, func(w io.Writer) { _, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") })
	var bomb bytes.Buffer
	zip := gzip.NewWriter(&bomb)
	for range 8 {
		_, _ = zip.Write(make([]byte, 1<<20))
	}
	_ = zip.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var all sync.WaitGroup // each stop waits for what is tried again
	for name, answer := range hostile(bomb.Bytes(), elsewhere) {
		url, asked := answering(t, answer)
		w := &world{}
		stop := w.run(t, webhook.Options{}, webhook.Endpoint{Name: "hostile", URL: url, Secret: secret})
		all.Go(func() {
			if !w.fails(asked) {
				t.Errorf("%s: the attempt does not fail", name)
			}
			stop()
		})
	}
	all.Wait()
	runtime.ReadMemStats(&after)
	if took := (after.TotalAlloc - before.TotalAlloc) >> 20; took > 256 {
		t.Errorf("%d MiB were taken", took)
	}
	if n := led.Load(); n > 0 {
		t.Errorf("a redirect was followed %d times", n)
	}
}

// hostile are answers that no endpoint has a reason for.
func hostile(bomb []byte, elsewhere string) map[string]func(w io.Writer) {
	return map[string]func(w io.Writer){
		"a header without end": func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nX: ")
			repeat(w, "x")
		},
		"headers without end":      func(w io.Writer) { _, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\n"); repeat(w, "X: y\r\n") },
		"a status line of nothing": func(w io.Writer) { repeat(w, "\x00\xff") },
		"100 Continue without end": func(w io.Writer) { repeat(w, "HTTP/1.1 100 Continue\r\n\r\n") },
		"a body without end": func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 500 No\r\n\r\n")
			repeat(w, "x")
		},
		"chunks that lie": func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n")
			repeat(w, "x")
		},
		"a small file that grows": func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 500 No\r\nContent-Encoding: gzip\r\n\r\n")
			_, _ = w.Write(bomb)
		},
		"a redirect": func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 307 Go\r\nLocation: "+elsewhere+"\r\nContent-Length: 0\r\n\r\n")
		},
	}
}

// fails publishes until the endpoint was asked, and reports whether an attempt
// fails then.
func (w *world) fails(asked *atomic.Int64) bool {
	ended := func() (failed, all int) {
		success, failed := w.calls()
		return failed, failed + success
	}
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); <-time.After(5 * time.Millisecond) {
		if failed, all := ended(); all > 0 {
			return failed == all
		}
		if asked.Load() == 0 {
			w.events.Publish(event.Event{Type: event.HeadExpired})
		}
	}
	return false
}
