package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// soak makes the tests of this file last: make soak sets it. Without it they are
// short, and hold the figures to nothing that a busy machine could miss.
var soak = flag.Duration("soak", 0, "how long the overload, and ten times as long the mixed use, of the soak tests last")

// either is short unless make soak asks for more.
func either[T any](short, long T) T {
	if *soak > 0 {
		return long
	}
	return short
}

// callers are those that ask for decisions one after the other.
type callers struct {
	p        *process
	client   *http.Client
	hold     time.Duration // that a request stays on its head; 0: its end is not reported
	deadline time.Duration // after which an answer is worth nothing
}

func (p *process) callers(hold time.Duration) *callers {
	p.Helper()
	c := &callers{p: p, hold: hold, deadline: time.Second, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2000}}}
	p.Cleanup(c.client.CloseIdleConnections)
	return c
}

// good is how many decisions a second arrive in time with so many callers.
func (c *callers) good(ctx context.Context, many int, d time.Duration) float64 {
	var placed, odd atomic.Int64
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var wait sync.WaitGroup
	for range many {
		wait.Go(func() {
			for ctx.Err() == nil {
				status := c.once(ctx)
				switch {
				case status == http.StatusOK:
					placed.Add(1)
				case status != 0 && status != http.StatusServiceUnavailable && status != http.StatusTooManyRequests:
					odd.Add(1)
				case status != 0: // as a caller does that is asked to come back
					pause(ctx, 500*time.Millisecond)
				}
			}
		})
	}
	wait.Wait()
	if n := odd.Load(); n > 0 {
		c.p.Errorf("%d answers were neither a decision nor a refusal for load", n)
	}
	return float64(placed.Load()) / d.Seconds()
}

// once asks for one decision; 0 is no answer in time. It is not broken off with
// ctx: a caller that leaves before the answer leaves the place taken until it expires.
func (c *callers) once(ctx context.Context) int {
	asked, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.deadline)
	defer cancel()
	status, body := c.post(asked, "/api/v1/decisions", `{"model_type":"m"}`)
	if status != http.StatusOK || c.hold == 0 {
		return status
	}
	var d struct {
		DecisionID string `json:"decision_id"`
	}
	if json.Unmarshal(body, &d) != nil {
		return -1
	}
	pause(ctx, c.hold)
	c.post(context.WithoutCancel(ctx), "/api/v1/decisions/"+d.DecisionID+"/outcome", `{"result":"ok"}`)
	return status
}

func (c *callers) post(ctx context.Context, path, body string) (int, []byte) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.p.url+path, strings.NewReader(body))
	if err != nil {
		return 0, nil
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := c.client.Do(r)
	if err != nil {
		return 0, nil
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, nil
	}
	return res.StatusCode, answer
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// Ten times as many callers as the service, or its fleet, has use for: what is
// answered stays at nine tenths of the peak, and a moment after the crowd has
// gone all is as before.
func TestSoakOverload(t *testing.T) {
	for name, c := range map[string]struct {
		capacity string
		hold     time.Duration
		callers  int // that make the peak
	}{
		"the service": {"", 0, 8},
		"the fleet":   {`"capacity":{"max_in_flight":4},`, 50 * time.Millisecond, 40},
	} {
		t.Run(name, func(t *testing.T) {
			p := serve(t, t.TempDir(), "--lease-base-interval", "60s")
			for i := range 10 {
				p.must(http.StatusCreated, http.MethodPost, "/api/v1/heads", strings.Replace(headBody(fmt.Sprintf("h%d", i)), `{`, `{`+c.capacity, 1))
			}
			crowd := p.callers(c.hold)
			peak := crowd.good(t.Context(), c.callers, either(500*time.Millisecond, 15*time.Second))
			over := crowd.good(t.Context(), 10*c.callers, either(time.Second, *soak))
			// In the short form, beside other tests, the machine may be another a second
			// later: there only a collapse is a failure.
			share, limit := either(0.02, 0.9), either(2*time.Minute, 5*time.Second)
			left := time.Now()
			after := 0.0
			for after < share*peak && time.Since(left) < 2*limit {
				after = crowd.good(t.Context(), c.callers, 500*time.Millisecond)
			}
			recovery := time.Since(left)
			t.Logf("peak %.0f decisions/s, %.0f (%.0f %%) with ten times the callers, %.0f again after %v", peak, over, 100*over/peak, after, recovery.Round(time.Millisecond))
			if over < share*peak || recovery > limit {
				t.Errorf("overloaded: %.0f %% of the peak, recovery in %v", 100*over/peak, recovery)
			}
			p.stop()
		})
	}
}

// atOnce calls do for 0 to n-1, with so many at once, and demands that it fits.
func atOnce(t *testing.T, n, at int, do func(i int) error) {
	t.Helper()
	next := make(chan int)
	var wait sync.WaitGroup
	var failed atomic.Pointer[error]
	for range at {
		wait.Go(func() {
			for i := range next {
				if err := do(i); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wait.Wait()
	if err := failed.Load(); err != nil {
		t.Fatal(*err)
	}
}

// want makes a call and demands one of the statuses.
func (p *process) want(method, path, body string, statuses ...int) ([]byte, error) {
	status, answer, err := p.do(method, path, body)
	if err == nil && !slices.Contains(statuses, status) {
		err = fmt.Errorf("%s %s: %d %.200s", method, path, status, answer)
	}
	return answer, err
}

// A whole fleet comes, goes and comes again while decisions go on.
func TestSoakFlappingHeads(t *testing.T) {
	n := either(300, 50_000)
	p := serve(t, t.TempDir(), "--lease-base-interval", "10m")
	epochs := make([]uint64, n)
	began := time.Now()
	atOnce(t, n, 16, func(i int) error {
		answer, err := p.want(http.MethodPost, "/api/v1/heads", headBody(fmt.Sprintf("h%d", i)), http.StatusCreated)
		if err != nil {
			return err
		}
		var r struct {
			Epoch uint64 `json:"epoch"`
			Lease struct {
				Epoch uint64 `json:"epoch"`
			} `json:"lease"`
		}
		err = json.Unmarshal(answer, &r)
		epochs[i] = max(r.Epoch, r.Lease.Epoch)
		return err
	})
	registered := time.Since(began)
	ctx, stop := context.WithCancel(t.Context())
	var deciding sync.WaitGroup
	var took []time.Duration
	crowd := p.callers(0)
	deciding.Go(func() {
		for ctx.Err() == nil {
			at := time.Now()
			if status := crowd.once(ctx); status == http.StatusOK {
				took = append(took, time.Since(at))
			}
			pause(ctx, time.Millisecond)
		}
	})
	began = time.Now()
	for _, status := range []string{"offline", "active"} {
		atOnce(t, n, 16, func(i int) error {
			_, err := p.want(http.MethodPut, fmt.Sprintf("/api/v1/heads/h%d/status", i), fmt.Sprintf(`{"epoch":%d,"status":%q}`, epochs[i], status), http.StatusOK)
			return err
		})
	}
	flapped := time.Since(began)
	stop()
	deciding.Wait()
	slices.Sort(took)
	if len(took) == 0 {
		t.Fatal("no decision while heads came and went")
	}
	t.Logf("%d heads: registered in %v, two changes of each in %v (%.0f/s); %d decisions meanwhile, p50 %v, p99 %v", n, registered.Round(time.Millisecond), flapped.Round(time.Millisecond),
		2*float64(n)/flapped.Seconds(), len(took), took[len(took)/2], took[len(took)*99/100])
	if got := p.metric("active_heads"); int(got) != n {
		t.Errorf("active_heads is %v, want %d", got, n)
	}
	p.stop()
}

// metric is the sum of the series of a name.
func (p *process) metric(name string) float64 {
	p.Helper()
	var text []byte
	eventually(p, patience, "the metrics", func() error { // scrapes that were given up may be under way
		status, got, err := p.do(http.MethodGet, "/metrics", "")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("status %d", status)
		}
		text = got
		return err
	})
	sum := 0.0
	for _, m := range regexp.MustCompile(`(?m)^`+name+`(?:\{[^}]*\})? (\S+)$`).FindAllSubmatch(text, -1) {
		v, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			p.Fatal(err)
		}
		sum += v
	}
	return sum
}

// The policy changes again and again: each change is in force when it is
// answered, the file of the state stays small, and the next start has the last.
func TestSoakPolicyRevisions(t *testing.T) {
	n := either(20, 1000)
	dir := t.TempDir()
	p := serve(t, dir)
	p.client.Transport = bearer(p.token())
	began := time.Now()
	body := func(i int) string {
		return fmt.Sprintf(`{"default_strategy":"random","regions":{"eu":{"distances_ms":{"us":%d}}},"aliases":{"a%d":"m"}}`, i%900+1, i)
	}
	for i := range n {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, p.url+"/api/v1/policy", strings.NewReader(body(i)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("If-Match", "*")
		res, err := p.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Fatalf("change %d: %d %s", i, res.StatusCode, answer)
		}
	}
	took := time.Since(began)
	p.stop()
	info, err := os.Stat(filepath.Join(dir, "headway.db"))
	if err != nil {
		t.Fatal(err)
	}
	p = serve(t, dir)
	p.client.Transport = bearer(p.token())
	if text := string(p.must(http.StatusOK, http.MethodGet, "/api/v1/policy", "")); !strings.Contains(text, fmt.Sprintf(`"a%d"`, n-1)) {
		t.Errorf("after a restart the policy is %s", text)
	}
	t.Logf("%d revisions in %v (%v each), the state file has %d KiB", n, took.Round(time.Millisecond), (took / time.Duration(n)).Round(time.Microsecond), info.Size()>>10)
	if info.Size() > 16<<20 {
		t.Errorf("the state file has %d bytes", info.Size())
	}
	p.stop()
}

// A service that has run out of files goes on for the connected clients, and
// recovers when the others have left: connections that only stand there,
// and bodies that do not end.
func TestSoakFileLimit(t *testing.T) {
	const files = 128
	inner := command(t, "serve", "--listen", "127.0.0.1:0", "--data-dir", "data", "--audit-file", "audit.log", "--redis-mode", "off", "--http-lame-duck", "1ms", "--lease-base-interval", "10m")
	dir := t.TempDir()
	cmd := command(t)
	cmd.Path, cmd.Args = "/bin/sh", append([]string{"sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, files), inner.Path}, inner.Args[1:]...)
	cmd.Dir = dir
	p := start(t, filepath.Join(dir, "data"), cmd)
	p.must(http.StatusCreated, http.MethodPost, "/api/v1/heads", headBody("a"))
	var open []net.Conn
	for i := range 2 * files {
		conn, err := net.DialTimeout("tcp", strings.TrimPrefix(p.url, "http://"), time.Second)
		if err != nil {
			break
		}
		open = append(open, conn)
		if i%2 == 0 {
			_, _ = io.WriteString(conn, "POST /api/v1/decisions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
		}
	}
	for range 20 { // over the connection from before
		p.must(http.StatusOK, http.MethodPost, "/api/v1/decisions", `{"model_type":"m"}`)
	}
	for _, conn := range open {
		_ = conn.Close()
	}
	p.client.CloseIdleConnections()
	closed := time.Now()
	for {
		status, _, err := p.do(http.MethodPost, "/api/v1/decisions", `{"model_type":"m"}`)
		if err == nil && status == http.StatusOK {
			break
		}
		if time.Since(closed) > 30*time.Second {
			t.Fatalf("30 s after the crowd has left: %d, %v", status, err)
		}
		p.client.CloseIdleConnections()
		pause(t.Context(), 20*time.Millisecond)
	}
	t.Logf("%d connections against a limit of %d files; served again %v after they left", len(open), files, time.Since(closed).Round(time.Millisecond))
	if got := p.metric("process_open_fds"); got > files {
		t.Errorf("%v files are open", got)
	}
	p.stop()
}

// A service whose memory is bounded by GOMEMLIMIT, and by the system at several
// times that, lives through large bodies, streams without a reader and queries
// that want much.
func TestSoakMemoryLimit(t *testing.T) {
	const soft, hard = 64, 512 // MiB
	limit := fmt.Sprintf("ulimit -d %d && ", hard<<10)
	if raceDetector { // its shadow memory counts, too
		limit = ""
	}
	dir := t.TempDir()
	inner := command(t, "serve", "--listen", "127.0.0.1:0", "--data-dir", "data", "--audit-file", "audit.log", "--redis-mode", "off", "--http-lame-duck", "1ms", "--lease-base-interval", "10m")
	cmd := command(t)
	cmd.Path, cmd.Args = "/bin/sh", append([]string{"sh", "-c", limit + `exec "$0" "$@"`, inner.Path}, inner.Args[1:]...)
	cmd.Dir, cmd.Env = dir, append(cmd.Env, fmt.Sprintf("GOMEMLIMIT=%dMiB", soft))
	p := start(t, filepath.Join(dir, "data"), cmd)
	for i := range either(200, 2000) {
		p.must(http.StatusCreated, http.MethodPost, "/api/v1/heads", headBody(fmt.Sprintf("h%d", i)))
	}
	var unread []net.Conn
	for range 100 {
		conn, err := net.DialTimeout("tcp", strings.TrimPrefix(p.url, "http://"), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		unread = append(unread, conn)
		_, _ = io.WriteString(conn, "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
	large := `{"model_type":"m","session_key":"` + strings.Repeat("x", 1<<20-100) + `"}`
	query := "/prometheus/api/v1/query?query=" + url.QueryEscape(`count_values("v", {__name__=~".+"} * on() group_left() {__name__=~".+"})`)
	ctx, cancel := context.WithTimeout(t.Context(), either(2*time.Second, *soak))
	defer cancel()
	var wait sync.WaitGroup
	var asked atomic.Int64
	for worker := range 32 {
		wait.Go(func() {
			for ctx.Err() == nil {
				switch worker % 4 {
				case 0:
					_, _, _ = p.do(http.MethodGet, query, "")
				case 1:
					_, _, _ = p.do(http.MethodPatch, "/api/v1/heads/h1", fmt.Sprintf(`{"labels":{"n":"%d"}}`, asked.Load()))
				default:
					_, _, _ = p.do(http.MethodPost, "/api/v1/decisions", large)
				}
				asked.Add(1)
			}
		})
	}
	wait.Wait()
	for _, conn := range unread {
		_ = conn.Close()
	}
	p.must(http.StatusOK, http.MethodPost, "/api/v1/decisions", `{"model_type":"m"}`)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	peak := 0
	if m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status); m != nil {
		peak, _ = strconv.Atoi(string(m[1]))
	}
	t.Logf("%d calls with GOMEMLIMIT=%dMiB and a limit of %d MiB; the most that was resident is %d MiB", asked.Load(), soft, hard, peak>>10)
	if peak == 0 || peak>>10 > hard {
		t.Errorf("%d MiB were resident", peak>>10)
	}
	p.stop()
}

// A client that opens streams over TLS and resets each at once neither stops the
// service nor leaves anything behind.
func TestSoakRapidReset(t *testing.T) {
	s := &shell{TB: t, dir: t.TempDir()}
	s.cli(exitOK, "tls", "init", "--host", "127.0.0.1", "--dir", "tls")
	p := serve(t, filepath.Join(s.dir, "data"), "--tls-cert-file", filepath.Join(s.dir, "tls", "server.pem"), "--tls-key-file", filepath.Join(s.dir, "tls", "server-key.pem"))
	p.url = strings.Replace(p.url, "http:", "https:", 1)
	p.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 16} // whom it trusts is another test
	p.must(http.StatusOK, http.MethodGet, "/livez", "")
	before := p.used()
	sent := 0
	for range either(3, 30) {
		n, err := resets(t.Context(), strings.TrimPrefix(p.url, "https://"), either(2000, 20_000))
		sent += n
		if err != nil {
			t.Logf("after %d streams the connection was ended: %v", n, err)
		}
		began := time.Now()
		p.must(http.StatusOK, http.MethodGet, "/livez", "")
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("in between an answer takes %v", took)
		}
	}
	after := p.least(2 * time.Second)
	t.Logf("%d streams were opened and reset; goroutines %.0f, then %.0f; files %.0f, then %.0f", sent, before.goroutines, after.goroutines, before.files, after.files)
	if after.goroutines > before.goroutines+20 || after.files > before.files+10 {
		t.Errorf("left are %+v, before there were %+v", after, before)
	}
	p.stop()
}

// resets opens n streams over one connection and resets each, until the server
// ends it.
func resets(ctx context.Context, address string, n int) (sent int, err error) {
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}} // whom it trusts is another test
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return 0, err
	}
	go func() { _, _ = io.Copy(io.Discard, conn) }() // ends with the connection
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return 0, err
	}
	out := bufio.NewWriter(conn)
	framer := http2.NewFramer(out, nil)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	if err := framer.WriteSettings(); err != nil {
		return 0, err
	}
	for ; sent < n; sent++ {
		block.Reset()
		for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", address}, {":path", "/api/v1/heads"}} {
			if err := encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
				return sent, err
			}
		}
		id := uint32(2*sent + 1)
		err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
		if err == nil {
			err = framer.WriteRSTStream(id, http2.ErrCodeCancel)
		}
		if err == nil && sent%50 == 49 {
			err = out.Flush()
		}
		if err != nil {
			return sent, err
		}
	}
	return sent, out.Flush()
}

// A directory that cannot be written any more costs new files, and nothing else;
// one that never could is refused at the start with a sentence.
func TestSoakReadOnlyDirectory(t *testing.T) {
	k := newPackaged(t)
	p := k.serve()
	p.must(http.StatusCreated, http.MethodPost, "/api/v1/heads", headBody("a"))
	if err := os.Chmod(k.data, 0o550); err != nil {
		t.Fatal(err)
	}
	p.must(http.StatusCreated, http.MethodPost, "/api/v1/heads", headBody("b"))
	p.must(http.StatusOK, http.MethodPost, "/api/v1/decisions", `{"model_type":"m"}`)
	p.must(http.StatusOK, http.MethodGet, "/readyz", "")
	p.stop()

	cmd := command(t, "serve", "--config", filepath.Join(k.dir, "headway.yaml"), "--data-dir", filepath.Join(k.data, "deeper"))
	cmd.Path, cmd.Dir = "/proc/self/exe", k.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: serviceUser, Gid: serviceUser}}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), filepath.Join(k.data, "deeper")) || !strings.Contains(string(out), "permission denied") || strings.Contains(string(out), "goroutine") {
		t.Errorf("a directory that cannot be made: %v\n%s", err, out)
	}
}

// Webhooks that answer slowly, never, without end or with another address hold
// up nothing, and none is followed.
func TestSoakSlowReceivers(t *testing.T) {
	ctx, end := context.WithCancel(context.Background())
	var followed atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Add(1) }))
	var asked [3]atomic.Int64
	behave := []http.HandlerFunc{
		func(_ http.ResponseWriter, r *http.Request) { pause(ctx, time.Hour) },
		func(w http.ResponseWriter, r *http.Request) {
			for ctx.Err() == nil && r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		},
		func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		},
	}
	dir := t.TempDir()
	text := "endpoints:\n"
	for i, do := range behave {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked[i].Add(1); do(w, r) }))
		t.Cleanup(s.Close)
		text += fmt.Sprintf("- {name: r%d, url: %q, secret_file: secret}\n", i, s.URL)
	}
	t.Cleanup(elsewhere.Close)
	t.Cleanup(end) // first of all
	for name, content := range map[string]string{"webhooks.yaml": text, "secret": "whsec_" + strings.Repeat("MDEy", 10)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := serve(t, t.TempDir(), "--webhooks-file", filepath.Join(dir, "webhooks.yaml"))
	for i := range either(200, 5000) {
		p.must(http.StatusCreated, http.MethodPost, "/api/v1/heads", headBody(fmt.Sprintf("h%d", i)))
	}
	for i := range asked {
		for began := time.Now(); asked[i].Load() == 0; pause(t.Context(), 10*time.Millisecond) {
			if time.Since(began) > 30*time.Second {
				t.Fatalf("receiver %d was not asked", i)
			}
		}
	}
	p.must(http.StatusOK, http.MethodPost, "/api/v1/decisions", `{"model_type":"m"}`)
	if n := followed.Load(); n != 0 {
		t.Errorf("%d redirects were followed", n)
	}
	began := time.Now()
	p.stop()
	t.Logf("asked %d, %d and %d times; the stop took %v", asked[0].Load(), asked[1].Load(), asked[2].Load(), time.Since(began).Round(time.Millisecond))
}

// used is what a process holds.
type used struct{ goroutines, files, heap float64 }

func (p *process) used() used {
	p.Helper()
	return used{p.metric("go_goroutines"), p.metric("process_open_fds"), p.metric("go_memstats_heap_alloc_bytes")}
}

// least is the least that the process holds while nothing is asked of it.
func (p *process) least(d time.Duration) used {
	p.Helper()
	low := p.used()
	for began := time.Now(); time.Since(began) < d; pause(p.Context(), 200*time.Millisecond) {
		p.client.CloseIdleConnections()
		u := p.used()
		low = used{min(low.goroutines, u.goroutines), min(low.files, u.files), min(low.heap, u.heap)}
	}
	return low
}

// After long mixed use, of which much is rude, the process holds what it held
// before.
func TestSoakLeaks(t *testing.T) {
	p := serve(t, t.TempDir(), "--monitor-enabled=false")
	mixed := func(d time.Duration) int64 {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		var done atomic.Int64
		var wait sync.WaitGroup
		for worker := range 6 {
			wait.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					p.rude(ctx, worker, i)
					done.Add(1)
				}
			})
		}
		wait.Wait()
		return done.Load()
	}
	mixed(either(time.Second, time.Minute)) // what is made once is made
	if *soak > 0 {                          // and the ring of the newest decisions is full
		p.callers(0).good(t.Context(), 8, 20*time.Second)
	}
	rest := either(time.Second, 3*time.Minute)
	before := p.least(rest)
	n := mixed(either(2*time.Second, 10**soak))
	after := p.least(rest)
	t.Logf("after %d uses: goroutines %.0f, then %.0f; files %.0f, then %.0f; heap %.1f MiB, then %.1f", n,
		before.goroutines, after.goroutines, before.files, after.files, before.heap/(1<<20), after.heap/(1<<20))
	if after.goroutines > before.goroutines+10 || after.files > before.files+10 {
		t.Errorf("goroutines or files are left: %+v, then %+v", before, after)
	}
	if after.heap > 1.5*before.heap+float64(either(64<<20, 16<<20)) {
		t.Errorf("the heap has grown from %.1f to %.1f MiB", before.heap/(1<<20), after.heap/(1<<20))
	}
	p.stop()
}

// rude is one use of the service, of one kind in ten.
func (p *process) rude(ctx context.Context, worker, i int) {
	id := fmt.Sprintf("h-%d-%d", worker, i%50)
	address := strings.TrimPrefix(p.url, "http://")
	switch i % 10 {
	case 0, 1:
		_, _, _ = p.do(http.MethodPost, "/api/v1/heads", headBody(id))
	case 2:
		_, _, _ = p.do(http.MethodDelete, "/api/v1/heads/"+id, "")
	case 3, 4:
		_, _, _ = p.do(http.MethodPost, "/api/v1/decisions", `{"model_type":"m"}`)
	case 5:
		_, _, _ = p.do(http.MethodPost, "/api/v1/decisions", `{"model_type":`)
	case 6: // a stream that is read a little and left
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/api/v1/events", nil)
		if err != nil {
			return
		}
		if res, err := p.client.Do(req); err == nil {
			_, _ = bufio.NewReader(res.Body).ReadString('\n')
			_ = res.Body.Close()
		}
	case 7:
		conn, res, err := websocket.Dial(ctx, strings.Replace(p.url, "http", "ws", 1)+"/api/v1/ws", nil)
		if res != nil && res.Body != nil {
			_ = res.Body.Close()
		}
		if err == nil {
			_ = conn.Write(ctx, websocket.MessageText, []byte(`{"type":"subscribe","id":"1","types":["head.*"]}`))
			_, _, _ = conn.Read(ctx)
			_ = conn.CloseNow() // without a word
		}
	case 8: // a body that breaks off
		if conn, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			_, _ = io.WriteString(conn, "POST /api/v1/heads HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
			_ = conn.Close()
		}
	case 9:
		short, cancel := context.WithTimeout(ctx, time.Duration(i%7)*time.Millisecond)
		defer cancel()
		if req, err := http.NewRequestWithContext(short, http.MethodGet, p.url+"/metrics", nil); err == nil {
			if res, err := p.client.Do(req); err == nil {
				_, err = io.Copy(io.Discard, res.Body)
				_ = errors.Join(err, res.Body.Close())
			}
		}
	}
}
