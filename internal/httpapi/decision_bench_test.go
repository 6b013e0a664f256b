package httpapi_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
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

// BenchmarkDecisionHTTP says what a decision costs beside what net/http costs:
// the same requests over loopback to the whole service, to the service with an
// API key whose rate is limited on each of them, and to a handler that reads the
// body and writes a constant of the size of a decision. They take turns of a few
// hundredths of a second, and the median of the ratios within a round counts:
// what else the machine does then falls on all three alike.
func BenchmarkDecisionHTTP(b *testing.B) {
	open, guarded := newWorld(b), newWorld(b)
	for i := range 8 {
		open.register(fmt.Sprintf("head-%d", i))
		guarded.register(fmt.Sprintf("head-%d", i))
	}
	guarded.key(guarded.admin(), access.Request{Name: "admin", Role: "admin"})
	secret := guarded.key(guarded.admin(), access.Request{Name: "chat", Role: "client"})
	loads := []*load{
		newLoad(b, bareServer(b, open.do(http.MethodPost, "/api/v1/decisions", benchBody).body)),
		newLoad(b, open.listen()),
		newLoad(b, guarded.listen(), "Authorization: Bearer "+secret+"\r\n"),
	}
	var perSecond [3][]float64
	var overBare, overOpen []float64
	for round := 0; b.Loop(); round++ {
		var now [3]float64
		for i := range loads {
			at := (round + i) % len(loads)
			now[at] = loads[at].run(b)
			perSecond[at] = append(perSecond[at], now[at])
		}
		overBare, overOpen = append(overBare, now[1]/now[0]), append(overOpen, now[2]/now[1])
	}
	b.ReportMetric(median(perSecond[0]), "bare/s")
	b.ReportMetric(median(perSecond[1]), "decisions/s")
	b.ReportMetric(median(overBare), "decisions/bare")
	b.ReportMetric(median(overOpen), "guarded/open")
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// bareServer is the least that net/http does for such a request, with the
// deadlines of the service: what is compared is the handler.
func bareServer(b *testing.B, answer []byte) string {
	server := &http.Server{
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
	return l.Addr().String()
}

// load is a client as cheap as Go allows: it writes constant bytes over
// benchConns connections and looks for the length of the answers.
type load struct {
	request []byte
	conns   []net.Conn
}

func newLoad(b *testing.B, addr string, headers ...string) *load {
	l := &load{request: []byte("POST /api/v1/decisions HTTP/1.1\r\nHost: " + addr + "\r\nContent-Type: application/json\r\nContent-Length: " +
		strconv.Itoa(len(benchBody)) + "\r\n" + strings.Join(headers, "") + "\r\n" + benchBody)}
	for range benchConns {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = c.Close() })
		l.conns = append(l.conns, c)
	}
	return l
}

// perTurn is how many requests a connection sends in a turn.
const perTurn = 25

// run sends the requests of a turn and returns how many were answered a second.
func (l *load) run(b *testing.B) float64 {
	begin := time.Now()
	var wait sync.WaitGroup
	for _, c := range l.conns {
		wait.Go(func() {
			buf := make([]byte, 8<<10)
			for range perTurn {
				if _, err := c.Write(l.request); err != nil {
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
	return benchConns * perTurn / time.Since(begin).Seconds()
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
