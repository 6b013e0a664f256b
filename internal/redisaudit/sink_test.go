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
	"slices"
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

// The stream keeps about a million entries.
func TestTheStreamIsBounded(t *testing.T) {
	url, commands := scripted(t, ":0", "+1-1")
	sink := open(t, redisaudit.Options{URL: url, Stream: "s"})
	if n, _, err := sink.Publish(t.Context(), [][]byte{[]byte("x")}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if got, want := commands(), []string{"PUBLISH " + redisaudit.Channel + " x", "XADD s maxlen ~ 1000000 * record x"}; !slices.Equal(got, want) {
		t.Errorf("sent %q, want %q", got, want)
	}
}

// open is a sink that dials as it comes. Its channel is that of the tests.
func open(t testing.TB, o redisaudit.Options) *redisaudit.Sink {
	t.Helper()
	sink, err := tryOpen(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sink.Close() })
	return sink
}

func tryOpen(o redisaudit.Options) (*redisaudit.Sink, error) {
	o.Channel, o.Dial = redisaudit.Channel, new(net.Dialer).DialContext
	return redisaudit.Open(o)
}

// scripted is a Redis that answers each PUBLISH and XADD with the next of its
// answers. It returns those commands.
func scripted(t *testing.T, answers ...string) (url string, commands func() []string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	var mu sync.Mutex
	var got []string
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
					args, err := readArguments(in)
					if err != nil {
						return
					}
					mu.Lock()
					switch name := strings.ToUpper(args[0]); {
					case (name == "PUBLISH" || name == "XADD") && len(answers) > 0:
						got = append(got, strings.Join(append([]string{name}, args[1:]...), " "))
						fmt.Fprintf(c, "%s\r\n", answers[0])
						answers = answers[1:]
					default:
						fmt.Fprint(c, "-ERR unknown command\r\n")
					}
					mu.Unlock()
				}
			})
		}
	})
	return "redis://" + l.Addr().String(), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return got
	}
}

// readArguments reads a command.
func readArguments(in *bufio.Reader) (args []string, err error) {
	number := func() int {
		line, readErr := in.ReadString('\n')
		if readErr != nil {
			err = readErr
			return 0
		}
		n, _ := strconv.Atoi(strings.TrimSpace(line[1:]))
		return n
	}
	for range number() {
		arg := make([]byte, number()+2)
		if _, readErr := io.ReadFull(in, arg); readErr != nil {
			return nil, readErr
		}
		args = append(args, strings.TrimSuffix(string(arg), "\r\n"))
	}
	return args, err
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
		url, _ := scripted(t, c.answers...)
		sink := open(t, redisaudit.Options{URL: url, Stream: stream, Count: calls.Redis})
		arrived, receivers, err := sink.Publish(t.Context(), [][]byte{[]byte("a"), []byte("b"), []byte("c")})
		if arrived != c.arrived || receivers != c.receivers || (err != nil) != (c.fault != "") || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%v: %d arrived, %d receivers, %v", c.answers, arrived, receivers, err)
		}
		if want := map[bool]string{true: "error", false: "success"}[err != nil]; !maps.Equal(counted(metrics, "external_service_calls_total"), map[string]int{want: 1}) {
			t.Errorf("%v: counted %v", c.answers, counted(metrics, "external_service_calls_total"))
		}
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
