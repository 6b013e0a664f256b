package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/nats-io/nats.go"

	"headway/api"
	"headway/client"
)

// cpuTime is the processor time that the service has used.
func (p *process) cpuTime() time.Duration {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		p.Fatal(err)
	}
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+2:]))
	user, errUser := strconv.Atoi(fields[11])
	system, errSystem := strconv.Atoi(fields[12])
	if errUser != nil || errSystem != nil {
		p.Fatal(errUser, errSystem)
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on Linux
	return time.Duration(user+system) * tick
}

// resident is the memory that the service has, in bytes.
func (p *process) resident() float64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		p.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(raw))[1])
	if err != nil {
		p.Fatal(err)
	}
	return float64(pages * os.Getpagesize())
}

// manyFiles lets this process and those that it starts have as many files open
// as they want, or as the machine allows, and returns how many. If they are
// fewer it says how to allow them.
func manyFiles(b *testing.B, want uint64) uint64 {
	b.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		b.Fatal(err)
	}
	for _, most := range []uint64{want, limit.Max} {
		raised := syscall.Rlimit{Cur: most, Max: max(limit.Max, most)}
		if most <= limit.Cur || syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised) == nil {
			limit.Cur = max(limit.Cur, most)
			break
		}
	}
	if limit.Cur < want {
		b.Logf("FEWER LISTENERS than promised: %d open files are needed, and %d are allowed; allow them as root with: ulimit -n %d", want, limit.Cur, want)
	}
	return limit.Cur
}

// crowd are connections that listen.
type crowd struct {
	b       *testing.B
	address string
	conns   []net.Conn
	ready   atomic.Int64 // have had their snapshot
	latest  atomic.Int64 // the longest that an event took, in nanoseconds
	measure atomic.Bool
	reading sync.WaitGroup
}

const marker = `"time":"`

// pieces are buffers; a listener has one only while there is something to read.
var pieces = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// read takes what comes and looks when the first event of each piece happened.
func (c *crowd) read(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	for ready := false; ; {
		n := 0
		err := raw.Read(func(fd uintptr) bool {
			buf, _ := pieces.Get().(*[64 << 10]byte)
			defer pieces.Put(buf)
			var err error
			if n, err = syscall.Read(int(fd), buf[:]); errors.Is(err, syscall.EAGAIN) {
				return false
			}
			if n > 0 {
				ready = c.see(buf[:n], ready)
			}
			return true
		})
		if err != nil || n <= 0 {
			return
		}
	}
}

func (c *crowd) see(piece []byte, ready bool) bool {
	if !ready && bytes.Contains(piece, []byte("snapshot")) {
		ready = true
		c.ready.Add(1)
	}
	if !c.measure.Load() {
		return ready
	}
	at := bytes.Index(piece, []byte(marker)) // the first of a piece has waited longest
	if at < 0 {
		return ready
	}
	text := piece[at+len(marker):]
	end := bytes.IndexByte(text, '"')
	if end < 0 {
		return ready
	}
	happened, err := time.Parse(time.RFC3339Nano, string(text[:end]))
	if err != nil {
		return ready
	}
	took := int64(time.Since(happened))
	for {
		longest := c.latest.Load()
		if took <= longest || c.latest.CompareAndSwap(longest, took) {
			return ready
		}
	}
}

// join adds n listeners, from an address of their own so that ports suffice.
func (c *crowd) join(n int, from byte, greet func(conn net.Conn) error) {
	c.b.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, from)}, Timeout: 10 * time.Second}
	before := c.ready.Load()
	var mu sync.Mutex
	var joining sync.WaitGroup
	places := make(chan struct{}, 64)
	for range n {
		places <- struct{}{}
		joining.Go(func() {
			defer func() { <-places }()
			conn, err := dialer.DialContext(c.b.Context(), "tcp", c.address)
			if err == nil {
				err = greet(conn)
			}
			if err != nil {
				c.b.Error(err)
				return
			}
			mu.Lock()
			c.conns = append(c.conns, conn)
			mu.Unlock()
			tcp, _ := conn.(*net.TCPConn)
			c.reading.Go(func() { c.read(tcp) })
		})
	}
	joining.Wait()
	eventually(c.b, 60*time.Second, "all have their snapshot", func() error {
		if got := c.ready.Load() - before; got != int64(n) {
			return fmt.Errorf("%d of %d", got, n)
		}
		return nil
	})
}

func (c *crowd) leave() {
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.reading.Wait()
}

// BenchmarkSubscribers has listeners over Server-Sent Events and as many over
// WebSocket, and 100 events a second. They are all on this machine as well, so
// that they take their part of its processors.
func BenchmarkSubscribers(b *testing.B) {
	const spare = 150 // files of other things
	for _, each := range []int{1000, 4000, 10_000} {
		b.Run(fmt.Sprintf("each=%d", each), func(b *testing.B) {
			files := manyFiles(b, uint64(2*each+spare))
			subscribers(b, min(each, int(files-spare)/2))
		})
	}
}

func subscribers(b *testing.B, each int) {
	p := serve(b, b.TempDir(), "--http-max-connections", "50000", "--realtime-max-streams", "50000", "--queue-mode", "off", "--monitor-enabled=false")
	p.must(http.StatusCreated, "POST", "/api/v1/heads", headBody("a"))
	c := &crowd{b: b, address: strings.TrimPrefix(p.url, "http://")}
	defer c.leave()
	settle := func() float64 {
		<-time.After(3 * time.Second) // the collector has run, and gave back what it will
		return p.resident()
	}
	begin := settle()
	c.join(each, 2, func(conn net.Conn) error {
		_, err := io.WriteString(conn, "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
		return err
	})
	withStreams := settle()
	c.join(each, 3, func(conn net.Conn) error {
		_, err := io.WriteString(conn, "GET /api/v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		if err == nil {
			err = ws.WriteFrame(conn, ws.MaskFrame(ws.NewTextFrame([]byte(`{"type":"subscribe"}`))))
		}
		return err
	})
	withAll := settle()

	epoch := 0
	if _, err := fmt.Sscanf(string(p.must(http.StatusOK, "GET", "/api/v1/heads/a", "")[strings.Index(string(p.must(http.StatusOK, "GET", "/api/v1/heads/a", "")), `"epoch":`):]), `"epoch":%d`, &epoch); err != nil {
		b.Fatal(err)
	}
	change := func(i int) { // each is an event
		status := []string{"degraded", "active"}[i%2]
		p.must(http.StatusOK, "PUT", "/api/v1/heads/a/status", fmt.Sprintf(`{"epoch":%d,"status":%q}`, epoch, status))
	}
	c.measure.Store(true)
	b.ResetTimer()
	const rate = 100
	used, from := p.cpuTime(), time.Now()
	n := max(b.N, 10*rate)
	var publishing sync.WaitGroup
	places := make(chan struct{}, 16) // a slow answer does not hold the next event up
	for i := range n {
		if ahead := time.Duration(i)*time.Second/rate - time.Since(from); ahead > 0 {
			<-time.After(ahead)
		}
		places <- struct{}{}
		publishing.Go(func() {
			change(i)
			<-places
		})
	}
	publishing.Wait()
	spent := p.cpuTime() - used
	took := time.Since(from)
	<-time.After(time.Second)
	b.StopTimer()
	b.ReportMetric((withStreams-begin)/float64(each)/1024, "KiB/sse")
	b.ReportMetric((withAll-withStreams)/float64(each)/1024, "KiB/websocket")
	b.ReportMetric(float64(c.latest.Load())/1e6, "ms/last")
	b.ReportMetric(float64(n)/took.Seconds(), "events/s")
	b.ReportMetric(spent.Seconds()/took.Seconds(), "cores")
	b.ReportMetric(float64(len(c.conns)), "listeners")
}

const decisionBody = `{"model_type":"m"}`

// perDecision reports the service's processor time for each of n decisions.
func perDecision(b *testing.B, p *process, n int, decide func()) {
	b.Helper()
	used := p.cpuTime()
	decide()
	b.ReportMetric(float64(p.cpuTime()-used)/float64(n), "cpu-ns/decision")
}

const benchDecisions = 100_000

// BenchmarkDecisionsByHTTP asks for each decision by a request of its own, over
// one connection.
func BenchmarkDecisionsByHTTP(b *testing.B) {
	p := deciding(b)
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	request := fmt.Appendf(nil, "POST /api/v1/decisions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(decisionBody), decisionBody)
	answers := bufio.NewReader(conn)
	for b.Loop() {
		perDecision(b, p, benchDecisions, func() {
			for range benchDecisions {
				if _, err := conn.Write(request); err != nil {
					b.Fatal(err)
				}
				answer, err := http.ReadResponse(answers, nil)
				if err == nil {
					_, err = io.Copy(io.Discard, answer.Body)
				}
				if err != nil || answer.StatusCode != http.StatusOK {
					b.Fatal(err, answer)
				}
			}
		})
	}
}

// deciding is a service with a few heads.
func deciding(b *testing.B) *process {
	p := serve(b, b.TempDir(), "--queue-listen", "127.0.0.1:0", "--monitor-enabled=false", "--decisions-reservation-ttl", "1s")
	for i := range 8 {
		p.must(http.StatusCreated, "POST", "/api/v1/heads", headBody(fmt.Sprint("h", i)))
	}
	return p
}

// BenchmarkDecisionsPipelined asks for them over one WebSocket without waiting
// for each answer.
func BenchmarkDecisionsPipelined(b *testing.B) {
	p := deciding(b)
	conn, _, _, err := ws.Dial(b.Context(), "ws"+strings.TrimPrefix(p.url, "http")+"/api/v1/ws")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	const window = 64
	var batch bytes.Buffer
	for range window {
		if err := ws.WriteFrame(&batch, ws.MaskFrame(ws.NewTextFrame([]byte(`{"id":1,"type":"decide","data":`+decisionBody+`}`)))); err != nil {
			b.Fatal(err)
		}
	}
	answers := bufio.NewReaderSize(conn, 64<<10)
	for b.Loop() {
		perDecision(b, p, benchDecisions/window*window, func() {
			sent := make(chan struct{}, 2) // windows under way
			go func() {
				for range benchDecisions / window {
					sent <- struct{}{}
					if _, err := conn.Write(batch.Bytes()); err != nil {
						b.Error(err)
						return
					}
				}
			}()
			for i := range benchDecisions / window * window {
				h, err := ws.ReadHeader(answers)
				if err == nil {
					_, err = answers.Discard(int(h.Length))
				}
				if err != nil || h.Length < 200 {
					b.Fatal(err, h)
				}
				if i%window == window-1 {
					<-sent
				}
			}
		})
	}
}

// BenchmarkDecisionsByNATS asks by request and reply over the queue.
func BenchmarkDecisionsByNATS(b *testing.B) {
	p := deciding(b)
	nc, err := nats.Connect(p.announced().QueueURL)
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	const n, callers = 20_000, 8
	for b.Loop() {
		from := time.Now()
		perDecision(b, p, n, func() {
			var wait sync.WaitGroup
			for range callers {
				wait.Go(func() {
					for range n / callers {
						if m, err := nc.Request("headway.v1.decisions.request", []byte(decisionBody), 5*time.Second); err != nil || len(m.Data) < 200 {
							b.Error(err)
							return
						}
					}
				})
			}
			wait.Wait()
		})
		b.ReportMetric(n/time.Since(from).Seconds(), "decisions/s")
	}
}

// BenchmarkStatusByNATS sends 20,000 status reports a second for a minute, on one
// connection.
func BenchmarkStatusByNATS(b *testing.B) {
	const heads = 1000
	p := serve(b, b.TempDir(), "--queue-listen", "127.0.0.1:0", "--monitor-enabled=false", "--lease-base-interval", "10s")
	nc, err := nats.Connect(p.announced().QueueURL)
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	bodies := make([][]byte, heads)
	for i := range bodies {
		id := fmt.Sprint("h", i)
		bodies[i] = statusOf(b, id, string(p.must(http.StatusCreated, "POST", "/api/v1/heads", headBody(id))))
	}
	sendStatus(b, p, func(i int) error { return nc.Publish("headway.v1.heads.status", bodies[i%heads]) })
}

// BenchmarkStatusByNATSOfManyKeys sends as many, each head with a key and a
// connection of its own.
func BenchmarkStatusByNATSOfManyKeys(b *testing.B) {
	const heads = 300
	manyFiles(b, 10_000)
	s := &shell{TB: b, dir: b.TempDir()}
	admin, _ := s.cli(exitOK, "keys", "create", "--role", "admin", "--name", "me", "--data-dir", "data")
	p := serve(b, filepath.Join(s.dir, "data"), "--queue-listen", "127.0.0.1:0", "--monitor-enabled=false", "--lease-base-interval", "10s")
	c, err := client.New(p.url, client.WithToken(strings.TrimSpace(admin)))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	type sender struct {
		nc      *nats.Conn
		subject string
		body    []byte
	}
	var senders []sender
	for i := range heads {
		id := fmt.Sprint("h", i)
		key, err := c.CreateKey(b.Context(), api.KeyRequest{Name: id, Role: "head", Heads: []string{id}})
		if err != nil {
			b.Fatal(err)
		}
		nc, err := nats.Connect(p.announced().QueueURL, nats.Token(key.Secret), nats.CustomInboxPrefix("_INBOX."+key.ID))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(nc.Close)
		answer, err := nc.Request("headway.v1.heads.register."+key.ID, []byte(headBody(id)), 10*time.Second)
		if err != nil {
			b.Fatal(err)
		}
		senders = append(senders, sender{nc, "headway.v1.heads.status." + key.ID, statusOf(b, id, string(answer.Data))})
	}
	sendStatus(b, p, func(i int) error { s := senders[i%heads]; return s.nc.Publish(s.subject, s.body) })
}

// statusOf is a status report of the head that was registered with this answer.
func statusOf(b *testing.B, id, answer string) []byte {
	b.Helper()
	var epoch int
	if _, err := fmt.Sscanf(answer[strings.Index(answer, `"epoch":`):], `"epoch":%d`, &epoch); err != nil {
		b.Fatal(err)
	}
	return fmt.Appendf(nil, `{"id":%q,"epoch":%d,"status":"active","load":{"in_flight":3,"queued":1,"kv_cache_usage":0.4}}`, id, epoch)
}

// sendStatus sends 20,000 a second for a minute and waits until all are
// processed.
func sendStatus(b *testing.B, p *process, send func(i int) error) {
	const rate, seconds = 20_000, 60
	for b.Loop() {
		used := p.cpuTime()
		tick := time.NewTicker(time.Millisecond)
		from := time.Now()
		for i := range rate * seconds {
			for i%100 == 0 && time.Since(from) < time.Duration(i)*time.Second/rate {
				<-tick.C
			}
			if err := send(i); err != nil {
				b.Fatal(err)
			}
		}
		tick.Stop()
		took := time.Since(from)
		lost := 0.0
		eventually(b, 30*time.Second, "all are processed", func() error {
			processed, err := strconv.ParseFloat(gauge(p, `message_queue_messages_total{queue="heads.status",status="processed"}`), 64)
			if lost = rate*seconds - processed; lost > 0 || err != nil {
				return fmt.Errorf("%v are missing, %w", lost, err)
			}
			return nil
		})
		b.ReportMetric((p.cpuTime()-used).Seconds()/took.Seconds(), "cores")
		b.ReportMetric(rate*seconds/took.Seconds(), "messages/s")
		b.ReportMetric(lost, "lost")
	}
}
