package redisaudit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"headway/internal/audit"
	"headway/internal/freeport"
	"headway/internal/outbound"
	"headway/internal/redisaudit"
	"headway/internal/trail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// redisServer is a real redis-server on a port of its own.
type redisServer struct {
	testing.TB
	port      int
	arguments []string
	command   *exec.Cmd
}

func newRedis(t testing.TB, arguments ...string) *redisServer {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is missing; on Debian: apt-get install redis-server")
	}
	r := &redisServer{TB: t, arguments: arguments, port: freeport.Take(t)}
	r.start()
	t.Cleanup(r.kill)
	return r
}

func (r *redisServer) url() string { return fmt.Sprintf("redis://127.0.0.1:%d", r.port) }

func (r *redisServer) start() {
	r.Helper()
	arguments := append([]string{"--port", fmt.Sprint(r.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", r.TempDir()}, r.arguments...)
	r.command = exec.Command("redis-server", arguments...)
	if err := r.command.Start(); err != nil {
		r.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Addr: fmt.Sprintf("127.0.0.1:%d", r.port)})
	defer func() { _ = client.Close() }()
	within(r, "redis-server to answer", func() bool {
		err := client.Ping(context.Background()).Err()
		return err == nil || redis.IsAuthError(err)
	})
}

func (r *redisServer) signal(s os.Signal) {
	r.Helper()
	if err := r.command.Process.Signal(s); err != nil {
		r.Fatal(err)
	}
}

func (r *redisServer) kill() {
	if r.command.ProcessState == nil {
		_ = r.command.Process.Signal(syscall.SIGCONT)
		_ = r.command.Process.Kill()
		_ = r.command.Wait()
	}
}

// within waits for a condition.
func within(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); <-time.After(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("gave up waiting for %s", what)
}

// listener is a subscriber that comes back when its connection breaks, as
// go-redis does it.
type listener struct {
	mu    sync.Mutex
	order []uint64          // as they came
	ids   map[uint64]string // by sequence
	fault error
}

func listen(t testing.TB, url string) *listener {
	t.Helper()
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	sub := client.Subscribe(context.Background(), redisaudit.Channel)
	if _, err := sub.Receive(context.Background()); err != nil {
		t.Fatal(err)
	}
	l := &listener{ids: map[uint64]string{}}
	var reading sync.WaitGroup
	reading.Go(func() {
		for m := range sub.Channel(redis.WithChannelHealthCheckInterval(200 * time.Millisecond)) {
			l.take(m.Payload)
		}
	})
	t.Cleanup(func() { _ = sub.Close(); _ = client.Close(); reading.Wait() })
	return l
}

func (l *listener) take(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, err := audit.ParseLine([]byte(line))
	if err != nil {
		return // a checkpoint
	}
	if id, seen := l.ids[r.Seq]; seen && id != r.ID {
		l.fault = fmt.Errorf("record %d came as %s and as %s", r.Seq, id, r.ID)
	}
	l.ids[r.Seq] = r.ID
	l.order = append(l.order, r.Seq)
}

// has reports whether every record from the first to the last has come.
func (l *listener) has(last uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for seq := uint64(1); seq <= last; seq++ {
		if l.ids[seq] == "" {
			return false
		}
	}
	return true
}

// ordered returns the first record that came before one that it follows: each
// comes after the one before it did, repetitions aside.
func (l *listener) ordered() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	highest := uint64(0)
	for _, seq := range l.order {
		if seq > highest+1 {
			return fmt.Errorf("record %d came after %d", seq, highest)
		}
		highest = max(highest, seq)
	}
	return l.fault
}

// published is a journal with a shipper behind it.
type published struct {
	testing.TB
	dir     string
	journal *audit.Journal
	shipper *trail.Shipper
	metrics *prometheus.Registry
	calls   *outbound.Calls
}

func (tr *published) count(status string) int {
	return counted(tr.metrics, "external_service_calls_total")[status]
}

func newTrail(t testing.TB, maxBytes int64) *published {
	t.Helper()
	tr := &published{TB: t, dir: t.TempDir(), metrics: prometheus.NewRegistry()}
	var err error
	tr.calls = outbound.NewCalls(tr.metrics)
	tr.journal, err = audit.Open(audit.Options{
		Path: filepath.Join(tr.dir, "audit.log"), Node: "n", MaxBytes: maxBytes, Log: slog.New(slog.DiscardHandler),
		CheckpointEvery: 200 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.journal.Close() })
	return tr
}

// ship runs a shipper until the returned function is called.
func (tr *published) ship(sink trail.Sink, change func(*trail.ShipperOptions)) (stop func()) {
	tr.Helper()
	o := trail.ShipperOptions{
		Path: filepath.Join(tr.dir, "audit.log"), CursorPath: filepath.Join(tr.dir, "redis.cursor"), Sink: sink,
		Log: slog.New(slog.DiscardHandler), Poll: 5 * time.Millisecond,
		Journal: tr.journal,
	}
	if change != nil {
		change(&o)
	}
	var err error
	if tr.shipper, err = trail.NewShipper(o); err != nil {
		tr.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- tr.shipper.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				tr.Errorf("the shipper ended with: %v", err)
			}
		})
	}
	tr.Cleanup(stop)
	return stop
}

func (tr *published) sink(url string) *redisaudit.Sink {
	tr.Helper()
	return open(tr.TB, redisaudit.Options{URL: url, Stream: "audit:routing:stream", Count: tr.calls.Redis})
}

// write adds records and returns the sequence of the last.
func (tr *published) write(n int) uint64 {
	tr.Helper()
	for i := range n {
		tr.journal.Happened(audit.Entry{
			Category: audit.Policy, Action: "policy.put", Outcome: audit.Success, Target: audit.Target{Type: "policy", ID: fmt.Sprint(i)},
			After: json.RawMessage(fmt.Sprintf(`{"n":%d,"text":%q}`, i, bytes.Repeat([]byte("x"), 200))),
		})
	}
	return tr.journal.Stats().LastSeq
}

// A Redis that is killed, started again, and paused: every record arrives, in
// order after the replay, and those that come twice have the same id.
func TestRedisGoesAndComesBack(t *testing.T) {
	r := newRedis(t)
	tr := newTrail(t, 64<<10) // rotates now and then
	l := listen(t, r.url())   // first: a message without a subscriber is lost
	tr.ship(tr.sink(r.url()), nil)
	last := tr.write(300)
	within(t, "the first records", func() bool { return l.has(last) })
	for range 3 {
		r.kill()
		tr.write(100)
		within(t, "a failure to be counted", func() bool { return tr.count("error") > 0 })
		r.start()
		last = tr.write(50)
		within(t, "the records of the outage", func() bool { return l.has(last) })
	}
	r.signal(syscall.SIGSTOP)
	failures := tr.count("error")
	last = tr.write(200)
	within(t, "a call to time out", func() bool { return tr.count("error") > failures })
	r.signal(syscall.SIGCONT)
	within(t, "the records of the pause", func() bool { return l.has(last) })
	within(t, "nothing to be left", func() bool { st := tr.shipper.Stats(); return st.Lag == 0 && st.LagTime == 0 })
	if err := l.ordered(); err != nil {
		t.Error(err)
	}
	if st := tr.shipper.Stats(); st.Missed != 0 || st.Receivers != 1 || st.Unheard > last || st.Failures == 0 || tr.count("success") == 0 {
		t.Errorf("counted: %+v, %d calls succeeded", st, tr.count("success"))
	}
}

// The process that ships ends and another goes on where it was.
func TestTheShipperGoesOnWhereItWas(t *testing.T) {
	r := newRedis(t)
	tr := newTrail(t, 32<<10)
	l := listen(t, r.url())
	sink := tr.sink(r.url())
	var last uint64
	for range 5 {
		stop := tr.ship(sink, nil)
		last = tr.write(60)
		stop()
		last = tr.write(60) // while no shipper runs
	}
	stop := tr.ship(sink, nil)
	within(t, "all records", func() bool { return l.has(last) })
	stop()
	if err := l.ordered(); err != nil {
		t.Error(err)
	}
	client := redis.NewClient(&redis.Options{Addr: fmt.Sprintf("127.0.0.1:%d", r.port)})
	defer func() { _ = client.Close() }()
	if n := client.XLen(t.Context(), "audit:routing:stream").Val(); n < int64(last) {
		t.Errorf("the stream has %d entries of %d", n, last)
	}
	// Torn, the cursor costs repetitions and no record.
	if err := os.WriteFile(filepath.Join(tr.dir, "redis.cursor"), []byte(`{"seq":1`), 0o600); err != nil {
		t.Fatal(err)
	}
	shipped := uint64(0)
	tr.ship(sink, nil)
	within(t, "all records again", func() bool { shipped = tr.shipper.Stats().Shipped; return shipped >= last })
	if err := l.ordered(); err != nil {
		t.Error(err)
	}
}

func TestAServerThatRefuses(t *testing.T) {
	r := newRedis(t, "--requirepass", "right")
	tr := newTrail(t, 0)
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("wrong\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, redisaudit.Options{URL: r.url(), PasswordFile: file, Count: tr.calls.Redis})
	if n, receivers, err := s.Publish(t.Context(), [][]byte{[]byte("x")}); err == nil || n != 0 || receivers > 0 || tr.count("error") != 1 {
		t.Errorf("with a wrong password: %d, %d, %v", n, receivers, err)
	}
	if err := os.WriteFile(file, []byte("right\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	right := open(t, redisaudit.Options{URL: r.url(), PasswordFile: file, Count: tr.calls.Redis})
	if n, _, err := right.Publish(t.Context(), [][]byte{[]byte("x")}); err != nil || n != 1 {
		t.Errorf("with the right password: %d, %v", n, err)
	}
	for _, url := range []string{"", "http://x", "redis://x:y:z"} {
		if _, err := tryOpen(redisaudit.Options{URL: url, Count: tr.calls.Redis}); err == nil {
			t.Errorf("%q is taken", url)
		}
	}
}
