package httpapi_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"headway/internal/access"
)

// benchConns is the number of keep-alive connections of the load.
const benchConns = 64

const benchBody = `{"model_type":"llama-3.1-8b","region":"eu-west","session_key":"conversation-5f3a9c","input_tokens":1834}`

// BenchmarkDecisionHTTP and BenchmarkBareHTTP are the pair whose ratio says
// what a decision costs beside what net/http costs: the same requests over
// loopback to the whole service, and to a handler that reads the body and
// writes a constant of the size of a decision.
func BenchmarkDecisionHTTP(b *testing.B) {
	w := newWorld(b)
	for i := range 8 {
		w.register(fmt.Sprintf("head-%d", i))
	}
	hammer(b, w.listen())
}

// BenchmarkAuthorisedDecisionHTTP is BenchmarkDecisionHTTP with an API key,
// whose rate is limited, on each request.
func BenchmarkAuthorisedDecisionHTTP(b *testing.B) {
	w := newWorld(b)
	for i := range 8 {
		w.register(fmt.Sprintf("head-%d", i))
	}
	w.key(w.admin(), access.Request{Name: "admin", Role: "admin"})
	secret := w.key(w.admin(), access.Request{Name: "chat", Role: "client"})
	hammer(b, w.listen(), "Authorization: Bearer "+secret+"\r\n")
}

func BenchmarkBareHTTP(b *testing.B) {
	w := newWorld(b)
	for i := range 8 {
		w.register(fmt.Sprintf("head-%d", i))
	}
	answer := w.do(http.MethodPost, "/api/v1/decisions", benchBody).body
	server := &http.Server{
		// The deadlines of the service: what is measured is the handler.
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: 120 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(answer)
		}),
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) })
	b.Cleanup(func() { _ = server.Close(); served.Wait() })
	hammer(b, l.Addr().String())
}

// hammer sends b.N requests over benchConns connections. The client is as cheap
// as Go allows: it writes constant bytes and looks for the length of the answer.
func hammer(b *testing.B, addr string, headers ...string) {
	request := []byte("POST /api/v1/decisions HTTP/1.1\r\nHost: " + addr + "\r\nContent-Type: application/json\r\nContent-Length: " +
		strconv.Itoa(len(benchBody)) + "\r\n" + strings.Join(headers, "") + "\r\n" + benchBody)
	conns := make([]net.Conn, benchConns)
	for i := range conns {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = c.Close() })
		conns[i] = c
	}
	b.ReportAllocs()
	b.ResetTimer()
	var wait sync.WaitGroup
	for i, c := range conns {
		n := b.N / benchConns
		if i < b.N%benchConns {
			n++
		}
		wait.Go(func() {
			buf := make([]byte, 8<<10)
			for range n {
				if _, err := c.Write(request); err != nil {
					b.Error(err)
					return
				}
				if err := readAnswer(c, buf); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}

var (
	endOfHeader   = []byte("\r\n\r\n")
	contentLength = []byte("\r\nContent-Length: ")
	statusOK      = []byte("HTTP/1.1 200 ")
)

// readAnswer reads one answer, which must be a 200 with a length.
func readAnswer(c net.Conn, buf []byte) error {
	have, want := 0, -1
	for want < 0 || have < want {
		n, err := c.Read(buf[have:])
		if err != nil {
			return err
		}
		have += n
		if want >= 0 {
			continue
		}
		end := bytes.Index(buf[:have], endOfHeader)
		if end < 0 {
			continue
		}
		at := bytes.Index(buf[:end], contentLength)
		if at < 0 || !bytes.HasPrefix(buf, statusOK) {
			return fmt.Errorf("answer %q", buf[:have])
		}
		size := 0
		for _, digit := range buf[at+len(contentLength) : end] {
			if digit < '0' || digit > '9' {
				break
			}
			size = size*10 + int(digit-'0')
		}
		want = end + len(endOfHeader) + size
	}
	return nil
}
