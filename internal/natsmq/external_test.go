package natsmq_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"headway/internal/event"
	"headway/internal/freeport"
	"headway/internal/natsmq"
)

// The environment of a process of this test that is a NATS server.
const (
	serverDir  = "HEADWAY_TEST_NATS_DIR"
	serverPort = "HEADWAY_TEST_NATS_PORT"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(serverDir); dir != "" {
		beServer(dir, os.Getenv(serverPort))
		return
	}
	goleak.VerifyTestMain(m)
}

// beServer is a NATS server, with what its operator has to set, until it is
// killed.
func beServer(dir, port string) {
	n, err := strconv.Atoi(port)
	if err != nil {
		panic(err)
	}
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: n, JetStream: true, StoreDir: dir, SyncAlways: true, NoLog: true, NoSigs: true,
	})
	if err != nil {
		panic(err)
	}
	s.Start()
	if !s.ReadyForConnections(20 * time.Second) {
		panic("not ready")
	}
	_, _ = os.Stdout.WriteString("ready\n")
	_, _ = io.Copy(io.Discard, os.Stdin) // the parent process is gone
	s.Shutdown()
}

// natsServer is a NATS server in a process of its own, which can be killed.
type natsServer struct {
	t     *testing.T
	dir   string
	port  int
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

func newServer(t *testing.T) *natsServer {
	t.Helper()
	s := &natsServer{t: t, dir: t.TempDir(), port: freeport.Take(t)}
	s.start()
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *natsServer) url() string { return fmt.Sprintf("nats://127.0.0.1:%d", s.port) }

// connect connects for as long as the test lasts.
func (s *natsServer) connect(t *testing.T, options ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(s.url(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func (s *natsServer) start() {
	s.t.Helper()
	s.cmd = exec.CommandContext(s.t.Context(), os.Args[0])
	s.cmd.Env = append(os.Environ(), serverDir+"="+s.dir, fmt.Sprintf("%s=%d", serverPort, s.port))
	s.cmd.Stderr = os.Stderr
	out, err := s.cmd.StdoutPipe()
	if err == nil {
		s.stdin, err = s.cmd.StdinPipe()
	}
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		s.t.Fatalf("the server says %q, %v", line, err)
	}
}

// stop lets the server end as it should.
func (s *natsServer) stop() {
	_ = s.stdin.Close()
	_ = s.cmd.Wait()
}

// kill lets it end as in a power cut.
func (s *natsServer) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

func external(s *natsServer) func(*natsmq.Options) {
	return func(o *natsmq.Options) { o.External.URL, o.Listen, o.Dir = s.url(), "", "" }
}

// The server is killed and restarted under load: what it acknowledged is
// applied, and applied once.
func TestEveryAcknowledgedCommandIsAppliedOnce(t *testing.T) {
	s := newServer(t)
	w := newWorld(t, external(s))
	w.ready()
	registered := w.events.Subscribe()
	applied := map[string]int{}
	var counting sync.WaitGroup
	ctx, enough := context.WithCancel(t.Context())
	counting.Go(func() {
		for {
			e, lost, err := registered.Next(ctx)
			if err != nil {
				return
			}
			if lost > 0 {
				t.Errorf("%d events were lost to the test", lost)
			}
			if e.Type == event.HeadRegistered {
				applied[e.Head]++
			}
		}
	})

	nc := s.connect(t, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.RetryOnFailedConnect(true))
	js := jetStream(t, nc)
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	var next atomic.Int64
	load, stop := context.WithCancel(t.Context())
	var publishers sync.WaitGroup
	for range 8 {
		publishers.Go(func() {
			for load.Err() == nil {
				id := fmt.Sprint("gpu-", next.Add(1))
				for load.Err() == nil { // without an answer the client asks again, with the same id
					ctx, cancel := context.WithTimeout(load, time.Second)
					_, err := js.Publish(ctx, "headway.v1.commands.heads.register", []byte(registration(id)), jetstream.WithMsgID(id))
					cancel()
					if err == nil {
						mu.Lock()
						acknowledged[id] = true
						mu.Unlock()
						break
					}
				}
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(acknowledged)
	}
	for round, end := range []func(){s.kill, s.stop, s.kill, s.kill} {
		reached := count() + 100
		w.until(fmt.Sprint("load before round ", round), func() bool { return count() >= reached })
		end()
		s.start()
	}
	reached := count() + 100
	w.until("load after the last round", func() bool { return count() >= reached })
	stop()
	publishers.Wait()
	w.until("all that was acknowledged is applied", func() bool {
		mu.Lock()
		defer mu.Unlock()
		for id := range acknowledged {
			if _, err := w.fleet.Head(id); err != nil {
				return false
			}
		}
		return true
	})
	w.agree()
	<-time.After(200 * time.Millisecond) // for what would come twice
	enough()
	counting.Wait()
	for id, n := range applied {
		if n != 1 {
			t.Errorf("%s was applied %d times", id, n)
		}
	}
	if len(applied) < len(acknowledged) {
		t.Errorf("%d applied, %d acknowledged", len(applied), len(acknowledged))
	}
	if letters, total, err := w.queue.DeadLetters(t.Context(), 0, 3); err != nil || total != 0 {
		t.Errorf("%d dead letters: %+v, %v", total, letters, err)
	}
	t.Logf("%d acknowledged, %d applied, %d recognised as duplicates", len(acknowledged), len(applied), w.of("heads.register", "duplicate"))
}

func TestTheServiceStartsWhileTheServerIsAway(t *testing.T) {
	s := newServer(t)
	s.stop()
	w := newWorld(t, external(s))
	if ok, detail := w.queue.Ready(); ok || !strings.Contains(detail, "cannot be reached") {
		t.Errorf("ready %v: %s", ok, detail)
	}
	s.start()
	w.ready()
	nc := s.connect(t)
	w.until("it answers", func() bool {
		m, err := nc.Request("headway.v1.decisions.request", []byte(`{"model_type":"x"}`), time.Second)
		return err == nil && strings.Contains(string(m.Data), "unknown_model_type")
	})
}

// An external server would let the service publish anywhere.
func TestAnswersGoToInboxesOnAnExternalServer(t *testing.T) {
	s := newServer(t)
	w := newWorld(t, external(s))
	nc := s.connect(t)
	heard := w.listen(nc, "headway.v1.events.head.expired")
	for _, queue := range []string{"decisions.request", "decisions.request.k-1", "heads.status"} {
		w.until("it is answered", func() bool { // the service may come later
			if err := nc.PublishRequest("headway.v1."+queue, "headway.v1.events.head.expired", []byte("{}")); err != nil {
				t.Fatal(err)
			}
			_, err := nc.Request("headway.v1."+queue, []byte("{}"), time.Second)
			return err == nil
		})
	}
	if m, err := heard.NextMsg(50 * time.Millisecond); err == nil {
		t.Errorf("published %s", m.Data)
	}
}

func TestAnExternalServersCredentialsAreChecked(t *testing.T) {
	w := newWorld(t)
	for want, e := range map[string]natsmq.External{
		"one credential is enough": {CredsFile: "a", TokenFile: "b"},
		"queue.creds_file":         {CredsFile: "/does/not/exist"},
		"queue.token_file":         {TokenFile: "/does/not/exist"},
		"queue.ca_file":            {CAFile: "/does/not/exist"},
		"parse root certificate":   {CAFile: os.Args[0]},
		"queue.cert_file":          {CertFile: "/does/not/exist", KeyFile: "/x"},
	} {
		o := w.options
		e.URL = "nats://127.0.0.1:1"
		o.External, o.Metrics = e, prometheus.NewRegistry()
		if _, err := natsmq.Open(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v; want %s", e, err, want)
		}
	}
}
