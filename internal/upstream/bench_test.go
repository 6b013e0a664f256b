//go:build unix

package upstream

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cpu is what this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkExchange compares an exchange with http.Transport's, including the
// same head in both.
func BenchmarkExchange(b *testing.B) {
	answer := "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Mon, 01 Jan 2029 00:00:00 GMT\r\nContent-Length: 300\r\n\r\n" + strings.Repeat("x", 300)
	for _, size := range []struct {
		name  string
		bytes int
	}{{"small", 300}, {"64KiB", 64 << 10}} {
		body := strings.Repeat("y", size.bytes)
		end := rawHead(b, func(_ int, c net.Conn, r *bufio.Reader) {
			for {
				for line := "GET"; len(line) > 2; { // the header
					var err error
					if line, err = r.ReadString('\n'); err != nil {
						return
					}
				}
				if _, err := r.Discard(len(body)); err != nil {
					return
				}
				_, _ = io.WriteString(c, answer)
			}
		})
		run := func(name string, exchange func() error) {
			b.Run(size.name+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				before := cpu()
				b.SetParallelism(16)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if err := exchange(); err != nil {
							b.Error(err)
							return
						}
					}
				})
				b.ReportMetric(float64((cpu()-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
			})
		}
		h := newHeads(b, func(o *Options) { o.MaxOpenPerHead, o.MaxIdlePerHead = 64, 64 })
		call := &Call{Endpoint: end, Method: "POST", Path: "/v1/chat/completions", Header: []Field{{"Content-Type", "application/json"}}, Body: [][]byte{[]byte(body)}}
		run("upstream", func() error {
			answer, err := h.Do(b.Context(), call)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, answer.Body)
			_ = answer.Body.Close()
			return err
		})
		transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
		b.Cleanup(transport.CloseIdleConnections)
		run("transport", func() error {
			q, err := http.NewRequestWithContext(b.Context(), http.MethodPost, end+"/v1/chat/completions", strings.NewReader(body))
			if err != nil {
				return err
			}
			q.Header["Content-Type"] = []string{"application/json"}
			answer, err := transport.RoundTrip(q)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, answer.Body)
			_ = answer.Body.Close()
			return err
		})
	}
}
