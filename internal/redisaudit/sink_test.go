package redisaudit_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"headway/internal/outbound"
	"headway/internal/redisaudit"
)

// What is not in the stream has not arrived, though it was published.
func TestAStreamThatRefuses(t *testing.T) {
	const stream = "audit:routing:stream"
	r := newRedis(t)
	client := redis.NewClient(&redis.Options{Addr: fmt.Sprintf("127.0.0.1:%d", r.port)})
	defer func() { _ = client.Close() }()
	if err := client.Set(t.Context(), stream, "no stream", 0).Err(); err != nil {
		t.Fatal(err)
	}
	tr := newTrail(t, 0)
	sink := tr.sink(r.url())
	if n, _, err := sink.Publish(t.Context(), [][]byte{[]byte("a"), []byte("b")}); n != 0 || err == nil || !strings.Contains(err.Error(), "WRONGTYPE") || tr.count("error") != 1 {
		t.Errorf("%d arrived, %v, %d errors counted", n, err, tr.count("error"))
	}
	tr.ship(sink, nil)
	last := tr.write(20)
	within(t, "failures", func() bool { return tr.shipper.Stats().Failures > 1 })
	if st := tr.shipper.Stats(); st.Shipped != 0 || st.Lag != last {
		t.Errorf("it moved on: %+v", st)
	}
	if err := client.Del(t.Context(), stream).Err(); err != nil {
		t.Fatal(err)
	}
	within(t, "all to arrive", func() bool { return tr.shipper.Stats().Lag == 0 })
	if n := client.XLen(t.Context(), stream).Val(); n < int64(last) {
		t.Errorf("the stream has %d entries of %d", n, last)
	}
}

// The stream keeps about as many entries as it should.
func TestTheStreamIsBounded(t *testing.T) {
	r := newRedis(t)
	sink, err := redisaudit.Open(redisaudit.Options{URL: r.url(), Channel: redisaudit.Channel, Stream: "s", StreamLength: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sink.Close() }()
	lines := make([][]byte, 500)
	for i := range lines {
		lines[i] = []byte("x")
	}
	for range 10 {
		if n, _, err := sink.Publish(t.Context(), lines); n != len(lines) || err != nil {
			t.Fatal(n, err)
		}
	}
	client := redis.NewClient(&redis.Options{Addr: fmt.Sprintf("127.0.0.1:%d", r.port)})
	defer func() { _ = client.Close() }()
	// Redis removes whole nodes, of a hundred entries each.
	if n := client.XLen(t.Context(), "s").Val(); n < 100 || n > 300 {
		t.Errorf("the stream has %d entries, want about 100", n)
	}
}

// scripted is a Redis that answers each PUBLISH and XADD with the next of its answers.
func scripted(t *testing.T, answers ...string) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer func() { _ = c.Close() }()
				for in := bufio.NewReader(c); ; {
					name, err := commandName(in)
					switch {
					case err != nil:
						return
					case (name == "PUBLISH" || name == "XADD") && len(answers) > 0:
						fmt.Fprintf(c, "%s\r\n", answers[0])
						answers = answers[1:]
					default:
						fmt.Fprint(c, "-ERR unknown command\r\n")
					}
				}
			})
		}
	})
	return "redis://" + l.Addr().String()
}

// commandName reads a command and returns its name.
func commandName(in *bufio.Reader) (name string, err error) {
	number := func() int {
		line, readErr := in.ReadString('\n')
		if readErr != nil {
			err = readErr
			return 0
		}
		n, _ := strconv.Atoi(strings.TrimSpace(line[1:]))
		return n
	}
	for i := range number() {
		arg := make([]byte, number()+2)
		if _, readErr := io.ReadFull(in, arg); readErr != nil {
			return "", readErr
		}
		if i == 0 {
			name = strings.ToUpper(strings.TrimSpace(string(arg)))
		}
	}
	return name, err
}

// A subscriber that leaves in the middle has not received the lines: the least
// number counts. What was refused in the middle has not arrived.
func TestReceiversAreTheLeast(t *testing.T) {
	for _, c := range []struct {
		answers            []string // of the server, to three lines
		arrived, receivers int
		fault              string
	}{
		{[]string{":2", ":1", ":3"}, 3, 1, ""},
		{[]string{":1", ":2", ":0"}, 3, 0, ""},
		{[]string{":0", ":2", ":2"}, 3, 0, ""},
		{[]string{":2", "-ERR no memory", ":2"}, 1, 2, "no memory"},
		{[]string{"-ERR no memory", ":1", ":1"}, 0, -1, "no memory"},
		// With a stream, whose answers stand between the others.
		{[]string{":2", "+1-1", ":1", "+1-2", ":1", "+1-3"}, 3, 1, ""},
		{[]string{":2", "+1-1", ":1", "-ERR no memory", ":1", "+1-3"}, 1, 2, "no memory"},
	} {
		metrics, stream := prometheus.NewRegistry(), ""
		calls := outbound.NewCalls(metrics)
		if len(c.answers) > 3 {
			stream = "s"
		}
		sink, err := redisaudit.Open(redisaudit.Options{URL: scripted(t, c.answers...), Channel: redisaudit.Channel, Stream: stream, Count: calls.Redis})
		if err != nil {
			t.Fatal(err)
		}
		arrived, receivers, err := sink.Publish(t.Context(), [][]byte{[]byte("a"), []byte("b"), []byte("c")})
		if arrived != c.arrived || receivers != c.receivers || (err != nil) != (c.fault != "") || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%v: %d arrived, %d receivers, %v", c.answers, arrived, receivers, err)
		}
		if want := map[bool]string{true: "error", false: "success"}[err != nil]; !maps.Equal(counted(metrics, "external_service_calls_total"), map[string]int{want: 1}) {
			t.Errorf("%v: counted %v", c.answers, counted(metrics, "external_service_calls_total"))
		}
		_ = sink.Close()
	}
}

// The server is reached by the dialer that is given, with TLS where the URL has
// it.
func TestTheGivenDialerIsUsed(t *testing.T) {
	server := httptest.NewUnstartedServer(nil)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	server.StartTLS()
	defer server.Close()
	at := server.Listener.Addr().String()
	for url, greeted := range map[string]bool{"redis://" + at: false, "rediss://" + at + "?skip_verify=true": true} {
		var dialed []net.Conn
		sink, err := redisaudit.Open(redisaudit.Options{
			URL: url, Channel: redisaudit.Channel,
			Dial: func(ctx context.Context, network, to string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, to)
				dialed = append(dialed, &counting{Conn: conn})
				return dialed[len(dialed)-1], err
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := sink.Publish(t.Context(), [][]byte{[]byte("x")}); err == nil || len(dialed) == 0 {
			t.Fatalf("%s: %d dialed, %v", url, len(dialed), err)
		}
		if first := dialed[0].(*counting).first; (first == 22) != greeted { // a handshake record
			t.Errorf("%s begins with %d", url, first)
		}
		if err := sink.Close(); err != nil {
			t.Error(err)
		}
	}
}

// counting keeps the first byte that is written.
type counting struct {
	net.Conn
	first byte
}

func (c *counting) Write(b []byte) (int, error) {
	if c.first == 0 && len(b) > 0 {
		c.first = b[0]
	}
	return c.Conn.Write(b)
}
