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

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"headway/internal/redisaudit"
)

// ends reads why clients were ended.
type ends struct{ registry *prometheus.Registry }

func newEnds() *ends { return &ends{prometheus.NewRegistry()} }

func (e *ends) of() map[string]int {
	return counted(e.registry, "headway_redis_clients_ended_total")
}

// counted are the counters of a name that are not 0, by their last label.
func counted(metrics prometheus.Gatherer, name string) map[string]int {
	of := map[string]int{}
	families, err := metrics.Gather()
	if err != nil {
		panic(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if n := int(m.GetCounter().GetValue()); f.GetName() == name && n > 0 {
				of[m.GetLabel()[len(m.GetLabel())-1].GetValue()] += n
			}
		}
	}
	return of
}

func (e *ends) count(reason string) int { return e.of()[reason] }

func options(ended *ends) redisaudit.EmbeddedOptions {
	return redisaudit.EmbeddedOptions{
		Listen: "127.0.0.1:0", Channel: redisaudit.Channel, Log: slog.New(slog.DiscardHandler),
		Metrics: ended.registry,
	}
}

// serve is an embedded server on a port of its own.
func serve(t testing.TB) (*redisaudit.Embedded, *ends) {
	t.Helper()
	ended := newEnds()
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
			ended := newEnds()
			e := redisaudit.NewEmbedded(options(ended))
			defer e.EndAll()
			c := record(strings.NewReader(h.bytes))
			e.Admit(c)
			<-c.closed
			if got := c.out.String(); !strings.HasPrefix(got, h.answer) || h.answer == "" && got != "" || strings.Contains(got, "subscribe") {
				t.Errorf("answered %q, want %q", got, h.answer)
			}
			if ended.count(h.reason) != 1 || len(ended.of()) != 1 {
				t.Errorf("counted %v, want one %s", ended.of(), h.reason)
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
	ended := newEnds()
	e := redisaudit.NewEmbedded(options(ended))
	defer e.EndAll()
	c := record(endless{"PING\r\n"})
	e.Admit(c)
	<-c.closed
	if pongs := strings.Count(c.out.String(), "+PONG\r\n"); ended.count("talkative") != 1 || pongs == 0 || pongs > redisaudit.MaxPerMinute/6 {
		t.Errorf("ended after %d answers: %v", pongs, ended.of())
	}
	synctest.Test(t, func(t *testing.T) {
		ended := newEnds()
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
		t.Errorf("counted %v", ended.of())
	}
	within(t, "one to be left", func() bool {
		_, n, _ := e.Publish(t.Context(), [][]byte{[]byte("x")})
		return n == 1
	})
	receives(t, there, "x")
}

// Silent connections keep no client out: they give way, and subscribers stay.
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
		t.Errorf("counted %v", ended.of())
	}
}

// Subscribers are bounded for an address and in all, and make room as they
// leave.
func TestSubscribersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := newEnds()
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
		if ended.count("full") != 2 || len(ended.of()) != 1 {
			t.Errorf("counted %v", ended.of())
		}
		for range 150 { // one leaves, another comes
			_ = all[0].Close()
			synctest.Wait()
			all[0] = join(e, "127.0.0.1")
			subscribe(t, all[0])
		}
	})
}

// Subscribers that were silent for a while give way to new clients, the longest
// silent first and those of the address with most clients, so that none has all
// places for ever. One that sends PING keeps its place.
func TestSilentSubscribersGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := newEnds()
		e := redisaudit.NewEmbedded(options(ended))
		defer e.EndAll()
		var all []net.Conn
		for i := range redisaudit.MaxClients {
			from := "127.0.0.1"
			if i < redisaudit.MaxClients-redisaudit.MaxOfAddress {
				from = "::1" // silent for longer, and few
			}
			all = append(all, join(e, from))
			subscribe(t, all[i])
			time.Sleep(time.Millisecond)
		}
		crowd := all[redisaudit.MaxClients-redisaudit.MaxOfAddress:]
		ping := func() {
			t.Helper()
			if got := say(t, crowd[0], "PING", 5); got[2] != "pong" {
				t.Fatalf("PING: %q", got)
			}
		}
		time.Sleep(redisaudit.SilentFor - redisaudit.MaxClients*time.Millisecond)
		ping()
		time.Sleep(time.Millisecond * redisaudit.MaxClients)
		for i, from := range []string{"127.0.0.1", "::2", "::2", "127.0.0.1"} {
			subscribe(t, join(e, from))
			synctest.Wait()
			if ended.count("silent") != i+1 || !closed(crowd[i+1]) {
				t.Errorf("the newcomer %d from %s: the longest silent of the crowd has not given way; counted %v", i, from, ended.of())
			}
		}
		if len(ended.of()) != 1 {
			t.Errorf("counted %v", ended.of())
		}
		for _, c := range append(all[:redisaudit.MaxClients-redisaudit.MaxOfAddress], crowd[0]) {
			if closed(c) {
				t.Error("a subscriber of another address, or one that sends PING, has given way")
			}
		}
		// One that receives nothing gives way first.
		_ = crowd[5].Close()
		synctest.Wait()
		mute := join(e, "127.0.0.1")
		synctest.Wait()
		subscribe(t, join(e, "127.0.0.1"))
		synctest.Wait()
		if !closed(mute) || ended.count("displaced") != 1 || ended.count("silent") != 4 {
			t.Errorf("counted %v", ended.of())
		}
	})
}

// Where all places have subscribers that sent something within the time, however
// long they have been there, newcomers from anywhere are refused and none of them
// ends.
func TestActiveSubscribersKeepTheirPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := newEnds()
		e := redisaudit.NewEmbedded(options(ended))
		defer e.EndAll()
		time.Sleep(time.Hour) // silence is measured by the time since then, and not since the begin
		var all []net.Conn
		for i := range redisaudit.MaxClients {
			from := "127.0.0.1"
			if i >= redisaudit.MaxOfAddress {
				from = "::1"
			}
			all = append(all, join(e, from))
			subscribe(t, all[i])
		}
		for round := range 3 {
			time.Sleep(redisaudit.SilentFor - time.Second)
			for _, c := range all {
				if got := say(t, c, "PING", 5); got[2] != "pong" {
					t.Fatalf("PING: %q", got)
				}
			}
			time.Sleep(redisaudit.SilentFor - time.Millisecond)
			for _, from := range []string{"127.0.0.1", "::1", "::2"} {
				here, there := net.Pipe()
				go e.Admit(address{there, from})
				if got, err := bufio.NewReader(here).ReadString('\n'); err != nil || !strings.HasPrefix(got, "-ERR max number of clients") {
					t.Errorf("a newcomer from %s got %q, %v", from, got, err)
				}
			}
			if n := ended.count("full"); n != 3*(round+1) || len(ended.of()) != 1 {
				t.Errorf("counted %v", ended.of())
			}
		}
		for _, c := range all {
			if closed(c) {
				t.Error("a subscriber that sends PING was ended")
			}
		}
	})
}

// Idle clients end, half commands end, and a subscriber may be silent for ever.
func TestIdleClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := newEnds()
		e := redisaudit.NewEmbedded(options(ended))
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
		if ended.count("unfinished") != 2 || len(ended.of()) != 1 {
			t.Errorf("counted %v, want 2 unfinished", ended.of())
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
		if ended.count("idle") != 2 || ended.count("unfinished") != 2 || len(ended.of()) != 2 {
			t.Errorf("counted %v, want 2 idle", ended.of())
		}
	})
}

// A subscriber that does not read is dropped: for a write that takes too long,
// or for the lines that wait. The others receive everything, in order.
func TestSlowSubscribersAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := newEnds()
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
			t.Errorf("a full socket holds its place: %v", ended.of())
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
			t.Errorf("who falls behind holds its place: %v", ended.of())
		}
		if read.Load() != more+1 {
			t.Errorf("the other received %d lines of %d", read.Load(), more+1)
		}
		_ = there.Close()
	})
}

func TestTheEmbeddedServerServesThisMachineOnly(t *testing.T) {
	o := options(newEnds())
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
	o.Metrics = nil
	if _, err := redisaudit.Listen(t.Context(), o); err == nil || !strings.Contains(err.Error(), "Metrics") {
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
		e := redisaudit.NewEmbedded(options(newEnds()))
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

// converse sends lines one after the other and returns what each is answered,
// with the ends of lines as bars.
func converse(t *testing.T, lines ...string) []string {
	t.Helper()
	e := redisaudit.NewEmbedded(options(newEnds()))
	defer e.EndAll()
	c := join(e, "127.0.0.1")
	defer func() { _ = c.Close() }()
	in := bufio.NewReader(c)
	answers := make([]string, len(lines))
	for i, line := range lines {
		if _, err := io.WriteString(c, line+"\r\n"); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if _, err := in.Peek(1); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		answer, _ := in.Peek(in.Buffered()) // each answer is one write
		answers[i] = strings.TrimSuffix(strings.ReplaceAll(string(answer), "\r\n", "|"), "|")
		_, _ = in.Discard(len(answer))
	}
	return answers
}

// What clients ask is answered as Redis answers it.
func TestAConversation(t *testing.T) {
	const allowed = "only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
	for _, talk := range [][][2]string{
		{
			{"PING", "+PONG"},
			{"ping a", "$1|a"},
			{"PING a b", "-ERR wrong number of arguments for 'ping' command"},
			{"ECHO", "-ERR wrong number of arguments for 'echo' command"},
			{"ECHO a", "$1|a"},
			{"SELECT 0", "+OK"},
			{"SELECT 1", "-ERR DB index is out of range"},
			{"SELECT x", "-ERR value is not an integer or out of range"},
			{"UNSUBSCRIBE", "*3|$11|unsubscribe|$-1|:0"},
			{"PUNSUBSCRIBE a", "*3|$12|punsubscribe|$1|a|:0"},
			{"ROLE", "*3|$6|master|:0|*0"},
			{"CONFIG GET save", "*0"},
			{"CONFIG SET save 1", "-ERR unknown subcommand or wrong number of arguments for 'SET'. Try CONFIG HELP."},
			{"CLUSTER INFO", "-ERR This instance has cluster support disabled"},
			{"INFO persistence", "$26|# Persistence|loading:0|"},
			{"COMMAND COUNT", ":19"},
			{"COMMAND INFO ping x", "*2|*6|$4|ping|:-1|*2|+loading|+fast|:0|:0|:0|$-1"},
			{"COMMAND DOCS", "*0"},
			{"COMMAND X", "-ERR unknown subcommand or wrong number of arguments for 'X'. Try COMMAND HELP."},
			{"QUIT", "+OK"},
		},
		{
			{"CLIENT ID", ":1"},
			{"CLIENT GETNAME", "$-1"},
			{"CLIENT SETNAME me", "+OK"},
			{"CLIENT GETNAME", "$2|me"},
			{"CLIENT SETNAME \x01", "-ERR Client names cannot contain spaces, newlines or special characters."},
			{"CLIENT SETINFO LIB-NAME x", "+OK"},
			{"CLIENT SETINFO x y", "-ERR Unrecognized option 'x'"},
			{"CLIENT NO-EVICT ON", "+OK"},
			{"CLIENT KILL x", "-ERR unknown subcommand or wrong number of arguments for 'KILL'. Try CLIENT HELP."},
			{"AUTH x", "-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?"},
			{"AUTH default x", "+OK"},
			{"AUTH me x", "-WRONGPASS invalid username-password pair or user is disabled."},
			{"AUTH a b c", "-ERR syntax error"},
			{"RESET", "+RESET"},
			{"CLIENT GETNAME", "$-1"},
		},
		{
			{"HELLO 4", "-NOPROTO unsupported protocol version"},
			{"HELLO x", "-ERR Protocol version is not an integer or out of range"},
			{"HELLO 3 NO", "-ERR Syntax error in HELLO option 'NO'"},
			{"HELLO 3 AUTH me x", "-WRONGPASS invalid username-password pair or user is disabled."},
			{"HELLO 3 AUTH default", "-ERR Syntax error in HELLO option 'AUTH'"},
			{"HELLO", "*14|$6|server|$5|redis|$7|version|$5|7.2.0|$5|proto|:2|$2|id|:1|$4|mode|$10|standalone|$4|role|$6|master|$7|modules|*0"},
			{"HELLO 3 AUTH default x SETNAME me", "%7|$6|server|$5|redis|$7|version|$5|7.2.0|$5|proto|:3|$2|id|:1|$4|mode|$10|standalone|$4|role|$6|master|$7|modules|*0"},
			{"CLIENT GETNAME", "$2|me"},
			{"CONFIG GET a", "%0"},
			{"INFO persistence", "=30|txt:# Persistence|loading:0|"},
			{"SUBSCRIBE a b", ">3|$9|subscribe|$1|a|:1|>3|$9|subscribe|$1|b|:2"},
			{"PING", "+PONG"},
			{"CLIENT ID", ":1"},
			{"UNSUBSCRIBE", ">3|$11|unsubscribe|$1|a|:1|>3|$11|unsubscribe|$1|b|:0"},
			{"UNSUBSCRIBE", ">3|$11|unsubscribe|_|:0"},
			{"PSUBSCRIBE a", ">3|$10|psubscribe|$1|a|:1"},
			{"RESET", "+RESET"},
			{"UNSUBSCRIBE a", "*3|$11|unsubscribe|$1|a|:0"},
		},
		{
			{"SUBSCRIBE", "-ERR wrong number of arguments for 'subscribe' command"},
			{"SUBSCRIBE a", "*3|$9|subscribe|$1|a|:1"},
			{"SUBSCRIBE a", "*3|$9|subscribe|$1|a|:1"},
			{"PSUBSCRIBE a", "*3|$10|psubscribe|$1|a|:2"},
			{"PING", "*2|$4|pong|$0|"},
			{"PING x", "*2|$4|pong|$1|x"},
			{"ECHO a", "-ERR Can't execute 'echo': " + allowed},
			{"HELLO 3", "-ERR Can't execute 'hello': " + allowed},
			{"UNSUBSCRIBE", "*3|$11|unsubscribe|$1|a|:1"},
			{"ECHO a", "-ERR Can't execute 'echo': " + allowed},
			{"PUNSUBSCRIBE", "*3|$12|punsubscribe|$1|a|:0"},
			{"ECHO a", "$1|a"},
			{"SUBSCRIBE " + strings.Repeat("a", 257), "-ERR at most 16 channels, of at most 256 bytes"},
			{"SUBSCRIBE a b c d e f g h i j k l m n o", strings.TrimSuffix(subscribedTo("abcdefghijklmno"), "|")},
			{"SUBSCRIBE p q", "*3|$9|subscribe|$1|p|:16|-ERR at most 16 channels, of at most 256 bytes"},
			{"RESET", "+RESET"},
			{"ECHO a", "$1|a"},
		},
		{
			{"PUBSUB NUMSUB a", "*2|$1|a|:0"},
			{"PUBSUB CHANNELS", "*0"},
			{"PUBSUB NUMPAT", ":0"},
			{"PUBSUB X", "-ERR unknown subcommand or wrong number of arguments for 'X'. Try PUBSUB HELP."},
			{"HELLO 3", "%7|$6|server|$5|redis|$7|version|$5|7.2.0|$5|proto|:3|$2|id|:1|$4|mode|$10|standalone|$4|role|$6|master|$7|modules|*0"},
			{subscribeLine, ">3|$9|subscribe|$18|audit:routing:logs|:1"},
			{"PSUBSCRIBE audit:* b*", ">3|$10|psubscribe|$7|audit:*|:2|>3|$10|psubscribe|$2|b*|:3"},
			{"PUBSUB NUMSUB audit:routing:logs", "*2|$18|audit:routing:logs|:1"},
			{"PUBSUB CHANNELS", "*1|$18|audit:routing:logs"},
			{"PUBSUB CHANNELS a*", "*1|$18|audit:routing:logs"},
			{"PUBSUB CHANNELS b*", "*0"},
			{"PUBSUB NUMPAT", ":1"},
		},
	} {
		var lines []string
		for _, step := range talk {
			lines = append(lines, step[0])
		}
		for i, got := range converse(t, lines...) {
			if got != talk[i][1] {
				t.Errorf("%s was answered\n%s, want\n%s", talk[i][0], got, talk[i][1])
			}
		}
	}
}

func subscribedTo(names string) string {
	var all strings.Builder
	for i, name := range names {
		fmt.Fprintf(&all, "*3|$9|subscribe|$1|%c|:%d|", name, i+1)
	}
	return all.String()
}

// A message that waits while the client unsubscribes must not come as the
// answer to what it asks next.
func TestNoMessageFollowsTheUnsubscription(t *testing.T) {
	e := redisaudit.NewEmbedded(options(newEnds()))
	defer e.EndAll()
	c := join(e, "127.0.0.1")
	subscribe(t, c)
	// Each is a write of its own, and nothing is read while they come.
	lines := make([][]byte, 500)
	for i := range lines {
		lines[i] = bytes.Repeat([]byte("x"), 64<<10)
	}
	if _, n, _ := e.Publish(t.Context(), lines); n != 1 {
		t.Fatalf("%d receivers", n)
	}
	fmt.Fprint(c, "UNSUBSCRIBE\r\n")
	in := bufio.NewReaderSize(c, 128<<10)
	messages := 0
	for line := ""; line != ":0\r\n"; {
		var err error
		if line, err = in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if line == "message\r\n" {
			messages++
		}
	}
	if messages == len(lines) {
		t.Fatal("all lines came before the client was obeyed")
	}
	for range len(lines) {
		fmt.Fprint(c, "PING\r\n")
		if got, err := in.ReadString('\n'); got != "+PONG\r\n" || err != nil {
			t.Fatalf("answered %.40q, %v", got, err)
		}
	}
}
