package live_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"headway/internal/event"
	"headway/internal/live"
	"headway/internal/strategy"
)

// listeners are half over Server-Sent Events and half over WebSocket.
const listeners = 10_000

// crowdOf is the variable that makes this program a crowd of listeners at an
// address, instead of running tests.
const crowdOf = "HEADWAY_TEST_CROWD"

// enoughFiles lets this process have so many files open.
func enoughFiles(want uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Cur >= want {
		return nil
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: want, Max: max(limit.Max, want)}); err != nil {
		return fmt.Errorf("%d open files are needed and %d allowed; raise the limit with: ulimit -n %d: %w", want, limit.Max, want, err)
	}
	return nil
}

// crowd listens until its standard input ends, and returns the exit code. It
// takes as little of the processors as there is: elsewhere it would be on other
// machines.
func crowd(address string) int {
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, 19)
	if err := enoughFiles(listeners + 100); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var failed atomic.Bool
	places := make(chan struct{}, 64)
	for i := range listeners {
		places <- struct{}{}
		go func() {
			defer func() { <-places }()
			conn, err := connect(address)
			if err == nil && i%2 == 0 {
				_, err = io.WriteString(conn, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
			} else if err == nil {
				if _, err = io.WriteString(conn, upgrade); err == nil {
					err = ws.WriteFrame(conn, ws.MaskFrame(ws.NewTextFrame([]byte(`{"type":"subscribe"}`))))
				}
			}
			if err != nil {
				failed.Store(true)
				fmt.Fprintln(os.Stderr, err)
				return
			}
			go func() { _, _ = io.Copy(io.Discard, conn) }()
		}()
	}
	if _, _ = io.Copy(io.Discard, os.Stdin); failed.Load() {
		return 1
	}
	return 0
}

// connect waits for a free port: a benchmark before this one leaves tens of
// thousands of connections that the kernel remembers for a minute.
func connect(address string) (conn net.Conn, err error) {
	for limit := time.Now().Add(90 * time.Second); ; <-time.After(time.Second) {
		if conn, err = net.Dial("tcp", address); !errors.Is(err, syscall.EADDRNOTAVAIL) || time.Now().After(limit) {
			return conn, err
		}
	}
}

// gather has the crowd listen to the world.
func (w *world) gather() (leave func()) {
	w.Helper()
	if err := enoughFiles(listeners + 200); err != nil {
		w.Fatal(err)
	}
	var said strings.Builder
	cmd := exec.CommandContext(w.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), crowdOf+"="+w.server.Listener.Addr().String())
	cmd.Stderr = &said
	stay, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		w.Fatal(err)
	}
	for limit := time.Now().Add(2 * time.Minute); w.value("sse_connections") != listeners/2 || w.value("websocket_connections") != listeners/2; <-time.After(100 * time.Millisecond) {
		if time.Now().After(limit) {
			_ = stay.Close()
			_ = cmd.Wait()
			w.Fatalf("%v streams and %v WebSockets listen, not %d each\n%s", w.value("sse_connections"), w.value("websocket_connections"), listeners/2, said.String())
		}
	}
	return func() {
		_ = stay.Close()
		if err := cmd.Wait(); err != nil {
			w.Errorf("the crowd: %v\n%s", err, said.String())
		}
	}
}

// BenchmarkDecideBesideSubscribers is the time of a decision, at 10,000 a second,
// while 100 events a second go to 10,000 connections, over that while as many
// events go to another hub. Both are measured in turn, in slices of one run, so that a
// busy moment of the machine falls on both. The listeners are a process of their
// own.
func BenchmarkDecideBesideSubscribers(b *testing.B) {
	w := newWorld(b, func(o *live.Options) {
		o.MaxStreams, o.Timing = 2*listeners, live.Timing{Heartbeat: time.Minute, Pong: time.Minute}
	})
	w.register("gpu-1", "us-east")
	empty := newWorld(b)
	defer w.gather()()

	var sent atomic.Bool // whether the events go to the crowd
	stop := make(chan struct{})
	var publishing sync.WaitGroup
	publishing.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			to := empty.events
			if sent.Load() {
				to = w.events
			}
			to.Publish(event.Event{Type: event.HeadChanged, Head: "gpu-1", Region: "us-east", Time: time.Now()})
		}
	})
	const (
		pairs   = 6
		settle  = 1500 * time.Millisecond // what was sent before has arrived
		seconds = 2
	)
	request := &strategy.Request{ModelType: "llama"}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	took := map[bool][]time.Duration{}
	for b.Loop() {
		for i := range 2 * pairs {
			beside := i%2 == 1
			sent.Store(beside)
			w.report("gpu-1")
			<-time.After(settle)
			for n := range seconds * 1000 {
				<-tick.C
				if n%1000 == 0 {
					w.report("gpu-1")
				}
				for range 10 {
					begin := time.Now()
					if _, err := w.router.Decide(request); err != nil {
						b.Fatal(err)
					}
					took[beside] = append(took[beside], time.Since(begin))
				}
			}
		}
	}
	close(stop)
	publishing.Wait()
	at := func(beside bool, share float64) float64 {
		slices.Sort(took[beside])
		return float64(took[beside][int(share*float64(len(took[beside])-1))])
	}
	b.ReportMetric(at(true, 0.5), "ns/decision")
	b.ReportMetric(at(true, 0.5)/at(false, 0.5), "×median")
	b.ReportMetric(at(true, 0.99), "ns/p99")
	b.ReportMetric(at(true, 0.99)/at(false, 0.99), "×p99")
	b.ReportMetric(listeners, "listeners")
}
