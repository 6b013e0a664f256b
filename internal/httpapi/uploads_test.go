package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headway/internal/admission"
	"headway/internal/fleet"
	"headway/internal/proxy"
)

// parts is a body that comes in parts, with a silence before each.
func parts(pauses ...time.Duration) io.Reader {
	r, w := io.Pipe()
	go func() {
		for _, d := range pauses {
			if _, err := io.WriteString(w, strings.Repeat(" ", 300)); err != nil {
				return
			}
			<-time.After(d)
		}
		_, _ = io.WriteString(w, chatBody)
		_ = w.Close()
	}()
	return r
}

// A client may be silent in its body as long as the limit says, whenever that is.
func TestTheSilenceOfAClientHasTheWholeLimit(t *testing.T) {
	onFakeTime(t, func(t *testing.T, p *plane) {
		p.script("1", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"model":"m","choices":[]}`)
		})
		for _, path := range []string{chatPath, "/heads/m/v1/chat/completions"} {
			for _, c := range []struct {
				pauses []time.Duration
				passes bool
			}{
				{[]time.Duration{14 * time.Second, 29 * time.Second, 16 * time.Second, 29 * time.Second}, true},
				{[]time.Duration{14 * time.Second, 33 * time.Second}, false},
			} {
				began := time.Now()
				res, err := p.request(http.MethodPost, path, parts(c.pauses...), "Content-Type", "application/json")
				status, body := 0, []byte(nil)
				if err == nil {
					body, _ = io.ReadAll(res.Body)
					res.Body.Close()
					status = res.StatusCode
				}
				if c.passes != (status == http.StatusOK) || !c.passes && status != 0 && (time.Since(began) < 44*time.Second || time.Since(began) > 46*time.Second) {
					t.Errorf("%s %v: %d %v after %s: %.200s", path, c.pauses, status, err, time.Since(began), body)
				}
				<-time.After(time.Minute) // the client's goroutine ends
			}
		}
	})
}

// A client that falls silent within an upload, or frames it wrongly, gets an error, and no
// head is blamed.
func TestAnUploadThatStopsIsAnswered(t *testing.T) {
	fakeTime(t, func(t *testing.T) {
		p := newMemoryPlane(t, versions(t)[0])
		p.script("1", func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
		for _, c := range []struct {
			body string // as it is sent
			want int
		}{
			{"Content-Length: 2000000\r\n\r\nabc", http.StatusRequestTimeout},
			{"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", http.StatusRequestTimeout},
			{"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nno chunk\r\n", http.StatusBadRequest},
		} {
			conn, err := p.network.dial(t.Context(), "", "localhost:8080")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, "POST /heads/m/x HTTP/1.1\r\nHost: localhost\r\n"+c.body); err != nil {
				t.Fatal(err)
			}
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("%q: %v", c.body, err)
			}
			if b, err := io.ReadAll(res.Body); res.StatusCode != c.want || err != nil || !strings.Contains(string(b), `"error"`) {
				t.Errorf("%q: %d %s %v, want %d", c.body, res.StatusCode, b, err, c.want)
			}
			_ = conn.Close()
		}
		p.settled()
		p.unblamed(1)
	})
}

// While a head takes nothing of an upload, no time of its client passes.
func TestAnUploadOutlastsASlowHead(t *testing.T) {
	onFakeTime(t, func(t *testing.T, p *plane) {
		const size = 4 << 20
		got := make(chan int64, 1)
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-time.After(10 * time.Second)
			n, _ := io.CopyN(io.Discard, r.Body, 200<<10)
			<-time.After(25 * time.Second)
			more, _ := io.Copy(io.Discard, r.Body)
			got <- n + more
			_, _ = io.WriteString(w, "ok")
		})}
		served, l := make(chan error, 1), p.network.listen("192.0.2.1:1")
		go func() { served <- s.Serve(l) }()
		t.Cleanup(func() {
			_ = s.Close()
			<-served
		})
		p.registered("head-1", "http://192.0.2.1:1")
		res, err := p.request(http.MethodPost, "/heads/m/x", bytes.NewReader(make([]byte, size)))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusOK || string(b) != "ok" || err != nil || <-got != size {
			t.Errorf("%d %q %v", res.StatusCode, b, err)
		}
	}, func(o *proxy.Options) { o.Limits.BodyTime = 5 * time.Second })
}

// An upload that is longer than what is kept passes, whether it had to wait or not.
func TestALongUploadPassesFromTheQueueToo(t *testing.T) {
	for _, c := range []struct {
		what string
		size int
	}{{"short", 100}, {"as long as is kept", 2 << 20}, {"a byte longer", 2<<20 + 1}, {"much longer", 5 << 20}} {
		t.Run(c.what, func(t *testing.T) {
			var a *admission.Admission
			p := newPlane(t, func(o *proxy.Options) {
				var err error
				if a, err = admission.New(admission.Options{Metrics: o.Metrics, MaxWaiting: 10, MaxWait: time.Hour}); err != nil {
					t.Fatal(err)
				}
				o.Limits.MaxBody, o.Admission = 2<<20, a
			})
			p.freed = func(h *fleet.Head) { a.Freed(h.ModelTypes...) }
			arrived, release, got := make(chan bool, 1), make(chan bool), make(chan []byte, 1)
			head := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				if strings.HasSuffix(r.URL.Path, "first") {
					arrived <- true
					<-release
				} else {
					got <- b
				}
			}))
			t.Cleanup(head.Close)
			p.narrow("a", head.URL, 1)
			body := make([]byte, c.size)
			for i := range body {
				body[i] = byte(i * 7 >> 3)
			}
			var all sync.WaitGroup
			defer all.Wait()
			all.Go(func() { p.send(http.MethodPost, "/heads/m/first", nil) })
			<-arrived
			answer := make(chan planeAnswer, 1)
			all.Go(func() { answer <- p.send(http.MethodPost, "/heads/m/second", io.MultiReader(bytes.NewReader(body))) })
			p.waiting(1)
			close(release)
			if x := <-answer; x.StatusCode != http.StatusOK || !bytes.Equal(<-got, body) {
				t.Errorf("%d %.100s", x.StatusCode, x.body)
			}
			p.settled()
		})
	}
}

// Bodies whose length is not known hold what came of them, and not what might come.
func TestPitfallP20ChunkedBodiesKeepNoOtherOut(t *testing.T) {
	p := newPlane(t, func(o *proxy.Options) {
		o.Limits.MaxBody, o.Limits.MaxBodies, o.Limits.BodyTime, o.Limits.BodyWait = 4<<20, 16<<20, time.Hour, 50*time.Millisecond
	})
	p.start("a")
	for range 3 {
		part := make(chan bool)
		r, w := io.Pipe()
		go func() {
			defer close(part)
			_, _ = io.WriteString(w, "{"+strings.Repeat(" ", 1<<20+200<<10))
		}()
		done := make(chan bool)
		go func() {
			defer close(done)
			if res, err := p.request(http.MethodPost, chatPath, r); err == nil {
				res.Body.Close()
			}
		}()
		t.Cleanup(func() {
			_ = w.CloseWithError(io.ErrUnexpectedEOF)
			<-done
			<-part
		})
		<-part
	}
	for i := range 8 {
		if x := p.send(http.MethodPost, "/v1/tokenize", strings.NewReader(bodyOf(1<<20+100)), "Content-Type", "application/json"); x.StatusCode != http.StatusOK {
			t.Errorf("body %d: %d %s", i, x.StatusCode, x.body)
		}
	}
}

// While a body waits for room no time of its client passes. One that finds none in time has
// its answer, and over HTTP/2 others are answered on the same connection meanwhile and
// afterwards.
func TestABodyThatWaitsForRoomKeepsItsConnection(t *testing.T) {
	const limit = 2 << 20
	for _, v := range versions(t) {
		for _, c := range []struct {
			holds  time.Duration // that the first body holds the room
			status int           // of those that wait for it from the first second on
			after  time.Duration // that they have their answers
		}{{12 * time.Second, http.StatusOK, 12 * time.Second}, {40 * time.Second, http.StatusServiceUnavailable, 21 * time.Second}} {
			t.Run(v.name+", "+http.StatusText(c.status), func(t *testing.T) {
				fakeTime(t, func(t *testing.T) {
					p := newMemoryPlane(t, v, func(o *proxy.Options) {
						o.Limits.MaxBody, o.Limits.MaxBodies = limit, limit+1<<20
						o.Limits.BodyTime, o.Limits.BodyWait = 5*time.Second, 20*time.Second
					})
					var asked, dialed atomic.Int32
					p.script("1", func(w http.ResponseWriter, r *http.Request) {
						if asked.Add(1) == 1 {
							wait(r, c.holds)
						}
						w.Header().Set("Content-Type", "application/json")
						_, _ = io.WriteString(w, gateAnswer)
					})
					transport, _ := p.client.Transport.(*http.Transport)
					transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
						dialed.Add(1)
						return p.network.dial(ctx, network, address)
					}
					began := time.Now()
					var all sync.WaitGroup
					ask := func(size, status int, took time.Duration) {
						t.Helper()
						a := p.answer("/v1/tokenize", bodyOf(size))
						if a.StatusCode != status || time.Since(began) != took || status != http.StatusOK && !bytes.Contains(a.body, []byte(`"code":"bodies_full"`)) {
							t.Errorf("a body of %d bytes: %d after %s: %s", size, a.StatusCode, time.Since(began), a.body)
						}
					}
					all.Go(func() { ask(limit, http.StatusOK, c.holds) })
					time.Sleep(time.Second)
					for range 7 {
						all.Go(func() { ask(limit, c.status, c.after) })
					}
					time.Sleep(time.Second)
					ask(1000, http.StatusOK, 2*time.Second)
					time.Sleep(c.after)
					ask(1000, http.StatusOK, c.after+2*time.Second)
					all.Wait()
					if n := dialed.Load(); v.scheme == "https" && n != 1 {
						t.Errorf("%d connections were made", n)
					}
				})
			})
		}
	}
}
