package redisaudit_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"headway/internal/redisaudit"
)

// ends counts why clients were ended.
type ends struct {
	mu sync.Mutex
	of map[string]int
}

func (e *ends) add(reason string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.of == nil {
		e.of = map[string]int{}
	}
	e.of[reason]++
}

func (e *ends) count(reason string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.of[reason]
}

func options(ended *ends) redisaudit.EmbeddedOptions {
	return redisaudit.EmbeddedOptions{
		Listen: "127.0.0.1:0", Channel: redisaudit.Channel, Log: slog.New(slog.DiscardHandler),
		Counted: func(string) {}, Ended: ended.add,
	}
}

// serve is an embedded server on a port of its own.
func serve(t testing.TB) (*redisaudit.Embedded, *ends) {
	t.Helper()
	ended := &ends{}
	e, err := redisaudit.Listen(context.Background(), options(ended))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e, ended
}

// address is a connection from an address of the test's choice.
type address struct {
	net.Conn
	from string
}

func (a address) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(addrPort(a.from))
}

// join connects a client in memory.
func join(e *redisaudit.Embedded, from string) net.Conn {
	here, there := net.Pipe()
	e.Admit(address{there, from})
	return here
}

// say sends a command as a line and reads lines of the answer.
func say(t testing.TB, c net.Conn, command string, lines int) []string {
	t.Helper()
	if _, err := io.WriteString(c, command+"\r\n"); err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return hear(t, c, lines)
}

// hear reads lines, byte by byte, so that nothing is read ahead.
func hear(t testing.TB, c net.Conn, lines int) []string {
	t.Helper()
	var all []string
	var line []byte
	for one := make([]byte, 1); len(all) < lines; {
		if _, err := io.ReadFull(c, one); err != nil {
			t.Fatalf("after %q %q: %v", all, line, err)
		}
		line = append(line, one[0])
		if one[0] == '\n' {
			all = append(all, strings.TrimRight(string(line), "\r\n"))
			line = nil
		}
	}
	return all
}

const subscribeLine = "SUBSCRIBE " + redisaudit.Channel

func subscribe(t testing.TB, c net.Conn) {
	t.Helper()
	if got := say(t, c, subscribeLine, 6); got[2] != "subscribe" || got[5] != ":1" {
		t.Fatalf("subscribed: %q", got)
	}
}

// receives reports whether the next that a subscriber receives is the line.
func receives(t testing.TB, c net.Conn, line string) {
	t.Helper()
	if got := hear(t, c, 7); got[2] != "message" || got[6] != line {
		t.Errorf("received %q, want %q", got, line)
	}
}

// closed reports whether the server has ended a connection, whose rest is read.
func closed(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	defer func() { _ = c.SetReadDeadline(time.Time{}) }()
	_, err := io.Copy(io.Discard, c)
	return err == nil
}

// The embedded server has the same channel for the same clients.
func TestTheEmbeddedServer(t *testing.T) {
	tr := newTrail(t, 0)
	e, _ := serve(t)
	url := "redis://" + e.Addr().String()
	l := listen(t, url)
	tr.ship(e, nil)
	last := tr.write(500)
	within(t, "all records", func() bool { return l.has(last) })
	if err := l.ordered(); err != nil {
		t.Error(err)
	}
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	defer func() { _ = client.Close() }()
	if err := client.Publish(t.Context(), redisaudit.Channel, "{}").Err(); err == nil {
		t.Error("anybody may publish")
	}
	if err := client.Set(t.Context(), "a", "b", 0).Err(); err == nil {
		t.Error("it stores")
	}
	p := client.PSubscribe(t.Context(), "audit:*")
	defer func() { _ = p.Close() }()
	if _, err := p.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Ping(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	tr.write(1)
	if m, err := p.ReceiveMessage(t.Context()); err != nil || m.Pattern != "audit:*" || m.Channel != redisaudit.Channel {
		t.Errorf("%+v, %v", m, err)
	}
	if cli, err := exec.LookPath("redis-cli"); err == nil {
		host, port, _ := net.SplitHostPort(e.Addr().String())
		if out, err := exec.CommandContext(t.Context(), cli, "-h", host, "-p", port, "ping").Output(); err != nil || string(out) != "PONG\n" {
			t.Errorf("redis-cli ping: %q, %v", out, err)
		}
	}
}

// recorded is a connection whose client has sent all that it sends.
type recorded struct {
	in     io.Reader
	mu     sync.Mutex
	out    bytes.Buffer
	closed chan struct{}
	once   sync.Once
}

func record(in io.Reader) *recorded { return &recorded{in: in, closed: make(chan struct{})} }

func (r *recorded) Read(b []byte) (int, error) { return r.in.Read(b) }
func (r *recorded) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Write(b)
}
func (r *recorded) Close() error                     { r.once.Do(func() { close(r.closed) }); return nil }
func (r *recorded) LocalAddr() net.Addr              { return r.RemoteAddr() }
func (r *recorded) RemoteAddr() net.Addr             { return net.TCPAddrFromAddrPort(addrPort("127.0.0.1")) }
func (r *recorded) SetDeadline(time.Time) error      { return nil }
func (r *recorded) SetReadDeadline(time.Time) error  { return nil }
func (r *recorded) SetWriteDeadline(time.Time) error { return nil }

// endless is a client that never stops.
type endless struct{ text string }

func (e endless) Read(b []byte) (int, error) { return copy(b, e.text), nil }

const framedSubscribe = "*2\r\n$9\r\nSUBSCRIBE\r\n$18\r\n" + redisaudit.Channel + "\r\n"

// hostile are the beginnings of connections that must end, and how.
var hostile = []struct{ name, bytes, answer, reason string }{
	{"a length beyond all memory", "*1\r\n$9223372036854775807\r\nabc", "-ERR Protocol error: invalid bulk length", "protocol"},
	{"a count beyond all memory", "*9223372036854775807\r\n", "-ERR Protocol error: invalid multibulk length", "protocol"},
	{"a length beyond 64 bits", "*1\r\n$99999999999999999999\r\nabc", "-ERR Protocol error: invalid bulk length", "protocol"},
	{"a length of 2^31", "*1\r\n$2147483648\r\nabc", "-ERR Protocol error: invalid bulk length", "protocol"},
	{"a negative length", "*1\r\n$-1\r\n", "-ERR Protocol error: invalid bulk length", "protocol"},
	{"a signed length", "*1\r\n$+4\r\nPING\r\n", "-ERR Protocol error: invalid bulk length", "protocol"},
	{"a negative count", "*-1\r\n", "-ERR Protocol error: invalid multibulk length", "protocol"},
	{"no arguments", "*0\r\n*0\r\n", "-ERR Protocol error: invalid multibulk length", "protocol"},
	{"too many arguments", "*65\r\n", "-ERR Protocol error: invalid multibulk length", "protocol"},
	{"a count that is no number", "*x\r\n", "-ERR Protocol error: invalid multibulk length", "protocol"},
	{"an argument too long", "*1\r\n$1025\r\n", "-ERR Protocol error: invalid bulk length", "protocol"},
	{"arguments too long together", "*64\r\n" + strings.Repeat("$1024\r\n"+strings.Repeat("a", 1024)+"\r\n", 8) + "$1\r\na\r\n", "-ERR Protocol error: invalid bulk length", "protocol"},
	{"an argument that goes on", "*1\r\n$4\r\nPINGS\r\n", "-ERR Protocol error: a string does not end", "protocol"},
	{"an array in an array", "*1\r\n*1\r\n$4\r\nPING\r\n", "-ERR Protocol error: expected '$'", "protocol"},
	{"a count without an end", "*" + strings.Repeat("1", 4096), "-ERR Protocol error: too big inline request", "protocol"},
	{"a line without an end", strings.Repeat("a", 4096), "-ERR Protocol error: too big inline request", "protocol"},
	{"a line of many words", strings.Repeat("a ", 100) + "\r\n", "-ERR Protocol error: too many arguments", "protocol"},
	{"empty lines", strings.Repeat("\r\n", 1000), "-ERR Protocol error: too many empty lines", "protocol"},
	{"TLS", "\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03\n", "-ERR Protocol error: unknown command '???????????'", "protocol"},
	{"zeros", strings.Repeat("\x00", 100) + "\n", "-ERR Protocol error: unknown command", "protocol"},
	{"a line that is no command", "AAAA\r\n" + framedSubscribe, "-ERR Protocol error: unknown command 'aaaa'", "protocol"},
	{"GET", "GET / HTTP/1.1\r\nHost: localhost:6380\r\n\r\n", "", "http"},
	{"POST with commands", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n" + framedSubscribe, "", "http"},
	{"HEAD", "HEAD /x HTTP/1.0\r\n\r\n" + framedSubscribe, "", "http"},
	{"OPTIONS", "OPTIONS * HTTP/1.1\r\n\r\n" + framedSubscribe, "", "http"},
	{"PUT", "PUT /a HTTP/1.1\nHost: x\n\n" + framedSubscribe, "", "http"},
	{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "", "http"},
	{"HTTP with a method of our own", "SUBSCRIBE /x HTTP/1.1\r\n" + framedSubscribe, "", "http"},
	{"a header of HTTP", "PING\r\nHost: x\r\n" + framedSubscribe, "+PONG\r\n", "http"},
	{"HTTP 0.9", "GET /\r\n" + framedSubscribe, "-ERR Protocol error: unknown command 'get'", "protocol"},
	{"a path too long", "POST /" + strings.Repeat("a", 4096) + " HTTP/1.1\r\n\r\n" + framedSubscribe, "-ERR Protocol error: too big inline request", "protocol"},
}

// Foreign bytes end the connection that they came by, and nothing else.
func TestHostileBytes(t *testing.T) {
	for _, h := range hostile {
		t.Run(h.name, func(t *testing.T) {
			ended := &ends{}
			e := redisaudit.NewEmbedded(options(ended))
			defer e.EndAll()
			c := record(strings.NewReader(h.bytes))
			e.Admit(c)
			<-c.closed
			if got := c.out.String(); !strings.HasPrefix(got, h.answer) || h.answer == "" && got != "" || strings.Contains(got, "subscribe") {
				t.Errorf("answered %q, want %q", got, h.answer)
			}
			if ended.count(h.reason) != 1 || len(ended.of) != 1 {
				t.Errorf("counted %v, want one %s", ended.of, h.reason)
			}
		})
	}
	t.Run("on a port", func(t *testing.T) {
		e, _ := serve(t)
		there := dial(t, e)
		subscribe(t, there)
		for _, h := range hostile {
			c := dial(t, e)
			_, _ = io.WriteString(c, h.bytes)
			_, _ = io.Copy(io.Discard, c) // to its end, which may be a reset
		}
		if _, n, err := e.Publish(t.Context(), [][]byte{[]byte("still here")}); n != 1 || err != nil {
			t.Errorf("%d receivers, %v", n, err)
		}
		receives(t, there, "still here")
	})
}

func dial(t testing.TB, e *redisaudit.Embedded) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", e.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// A client may send for ever, but not more than a subscriber has to say.
func TestTalkativeClientsEnd(t *testing.T) {
	ended := &ends{}
	e := redisaudit.NewEmbedded(options(ended))
	defer e.EndAll()
	c := record(endless{"PING\r\n"})
	e.Admit(c)
	<-c.closed
	if pongs := strings.Count(c.out.String(), "+PONG\r\n"); ended.count("talkative") != 1 || pongs == 0 || pongs > redisaudit.MaxPerMinute/6 {
		t.Errorf("ended after %d answers: %v", pongs, ended.of)
	}
	synctest.Test(t, func(t *testing.T) {
		ended := &ends{}
		e := redisaudit.NewEmbedded(options(ended))
		defer e.EndAll()
		c := join(e, "127.0.0.1")
		for range 60 * 60 { // 100 bytes a second are more than 64 KiB in an hour, and less in a minute
			if got := say(t, c, "PING "+strings.Repeat("a", 100), 2); got[0] != "$100" {
				t.Fatal(got)
			}
			time.Sleep(time.Second)
		}
	})
}

// A command that panics ends its client.
func TestAPanicEndsOneClient(t *testing.T) {
	e, ended := serve(t)
	e.AddVerb("panic", func() { panic("a fault of ours") })
	there, bad := dial(t, e), dial(t, e)
	subscribe(t, there)
	subscribe(t, bad)
	fmt.Fprint(bad, "PANIC\r\n")
	if _, err := bad.Read(make([]byte, 1)); err == nil {
		t.Error("the client was answered")
	}
	if ended.count("panic") != 1 {
		t.Errorf("counted %v", ended.of)
	}
	within(t, "one to be left", func() bool {
		_, n, _ := e.Publish(t.Context(), [][]byte{[]byte("x")})
		return n == 1
	})
	receives(t, there, "x")
}

// Silent connections keep nobody out: they give way, and subscribers stay.
func TestSilentConnectionsGiveWay(t *testing.T) {
	e, ended := serve(t)
	there := dial(t, e)
	subscribe(t, there)
	for range 2 * redisaudit.MaxClients {
		dial(t, e)
	}
	another := dial(t, e)
	subscribe(t, another)
	if _, n, _ := e.Publish(t.Context(), [][]byte{[]byte("x")}); n != 2 {
		t.Errorf("%d receivers, want 2", n)
	}
	receives(t, there, "x")
	receives(t, another, "x")
	if ended.count("displaced") == 0 || ended.count("full") != 0 {
		t.Errorf("counted %v", ended.of)
	}
}

// Subscribers are bounded for an address and in all, and make room as they
// leave.
func TestSubscribersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := &ends{}
		e := redisaudit.NewEmbedded(options(ended))
		defer e.EndAll()
		refused := func(from string) bool {
			t.Helper()
			here, there := net.Pipe()
			go e.Admit(address{there, from})
			before := ended.count("full")
			got, err := bufio.NewReader(here).ReadString('\n')
			return err == nil && strings.HasPrefix(got, "-ERR max number of clients") && ended.count("full") >= before && closed(here)
		}
		var all []net.Conn
		for i := range redisaudit.MaxClients {
			from := "127.0.0.1"
			if i >= redisaudit.MaxOfAddress {
				from = "::1"
			}
			if i == redisaudit.MaxOfAddress && !refused("127.0.0.1") {
				t.Error("one address takes more than its share")
			}
			all = append(all, join(e, from))
			subscribe(t, all[i])
		}
		if !refused("::1") {
			t.Error("there are more clients than allowed")
		}
		if ended.count("full") != 2 || len(ended.of) != 1 {
			t.Errorf("counted %v", ended.of)
		}
		for range 150 { // one leaves, another comes
			_ = all[0].Close()
			synctest.Wait()
			all[0] = join(e, "127.0.0.1")
			subscribe(t, all[0])
		}
	})
}

// Idle clients end, half commands end, and a subscriber may be silent for ever.
func TestIdleClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := redisaudit.NewEmbedded(options(&ends{}))
		defer e.EndAll()
		silent, half, there, torn := join(e, "127.0.0.1"), join(e, "127.0.0.1"), join(e, "127.0.0.1"), join(e, "127.0.0.1")
		subscribe(t, there)
		subscribe(t, torn)
		fmt.Fprint(half, "*1\r\n$4")
		fmt.Fprint(torn, "*1\r\n$4\r\nPI")
		time.Sleep(redisaudit.CommandDeadline - time.Second)
		synctest.Wait()
		if closed(half) || closed(torn) {
			t.Error("a slow command ended too early")
		}
		time.Sleep(2 * time.Second)
		if !closed(half) || !closed(torn) {
			t.Error("half a command holds its place")
		}
		time.Sleep(redisaudit.IdleDeadline - redisaudit.CommandDeadline - 3*time.Second)
		if closed(silent) {
			t.Error("an idle client ended too early")
		}
		time.Sleep(4 * time.Second)
		if !closed(silent) {
			t.Error("an idle client holds its place")
		}
		time.Sleep(240 * time.Hour)
		if _, n, _ := e.Publish(t.Context(), [][]byte{[]byte("x")}); n != 1 {
			t.Fatal("a silent subscriber was ended")
		}
		receives(t, there, "x")
		if got := say(t, there, "UNSUBSCRIBE", 6); got[5] != ":0" {
			t.Errorf("unsubscribed: %q", got)
		}
		time.Sleep(redisaudit.IdleDeadline + time.Second)
		if !closed(there) {
			t.Error("a client that subscribes no more holds its place")
		}
	})
}

// A subscriber that does not read is dropped: for a write that takes too long,
// or for the lines that wait. The others receive everything, in order.
func TestSlowSubscribersAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := &ends{}
		e := redisaudit.NewEmbedded(options(ended))
		defer e.EndAll()
		slow, there := join(e, "127.0.0.1"), join(e, "127.0.0.1")
		subscribe(t, slow)
		subscribe(t, there)
		var read atomic.Int64
		go func() {
			in := bufio.NewReader(there)
			for n := int64(0); ; {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				if line == fmt.Sprintf("line %d\r\n", n) {
					n++
					read.Store(n)
				}
			}
		}()
		if _, n, _ := e.Publish(t.Context(), [][]byte{[]byte("line 0")}); n != 2 {
			t.Errorf("%d receivers, want 2", n)
		}
		time.Sleep(redisaudit.WriteDeadline - time.Second)
		if synctest.Wait(); ended.count("slow") != 0 {
			t.Error("dropped too early")
		}
		time.Sleep(2 * time.Second)
		if synctest.Wait(); ended.count("slow") != 1 || !closed(slow) {
			t.Errorf("a full socket holds its place: %v", ended.of)
		}
		slow = join(e, "127.0.0.1")
		subscribe(t, slow)
		const more = 2 * redisaudit.MaxWaiting
		for i := range more {
			_, n, _ := e.Publish(t.Context(), [][]byte{fmt.Appendf(nil, "line %d", i+1)})
			if want := 2; i < redisaudit.MaxWaiting && n != want || i > redisaudit.MaxWaiting+1 && n != 1 {
				t.Fatalf("line %d has %d receivers", i, n)
			}
			synctest.Wait()
		}
		if ended.count("slow") != 2 || !closed(slow) {
			t.Errorf("who falls behind holds its place: %v", ended.of)
		}
		if read.Load() != more+1 {
			t.Errorf("the other received %d lines of %d", read.Load(), more+1)
		}
		_ = there.Close()
	})
}

func TestTheEmbeddedServerServesThisMachineOnly(t *testing.T) {
	o := options(&ends{})
	o.Listen = "0.0.0.0:0"
	if _, err := redisaudit.Listen(t.Context(), o); err == nil {
		t.Error("it serves everybody")
	}
	o.Listen = "127.0.0.1:0"
	first, err := redisaudit.Listen(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Close() }()
	o.Listen = first.Addr().String()
	if _, err := redisaudit.Listen(t.Context(), o); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second one: %v", err)
	}
	o.Ended = nil
	if _, err := redisaudit.Listen(t.Context(), o); err == nil || !strings.Contains(err.Error(), "Ended") {
		t.Errorf("without a required option: %v", err)
	}
}

// faulty is a listener that fails before it accepts.
type faulty struct {
	net.Listener
	failures int
	conns    chan net.Conn
}

func (f *faulty) Accept() (net.Conn, error) {
	if f.failures > 0 {
		f.failures--
		return nil, syscall.EMFILE
	}
	c, ok := <-f.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

// A lack of descriptors passes, and is no end of the server.
func TestAcceptGoesOnAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := redisaudit.NewEmbedded(options(&ends{}))
		l := &faulty{failures: 20, conns: make(chan net.Conn, 1)}
		began := time.Now()
		done := make(chan struct{})
		go func() { e.AcceptFrom(l); close(done) }()
		here, there := net.Pipe()
		l.conns <- there
		if got := say(t, here, "PING", 1); got[0] != "+PONG" {
			t.Error(got)
		}
		if took := time.Since(began); took < 10*time.Second || took > 20*time.Second {
			t.Errorf("20 failures took %v: it must pause, a second at most", took)
		}
		close(l.conns)
		<-done
		e.EndAll()
	})
}
