package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A second signal cuts what the first one waits for: their callers get an error, and the
// process says what it cut.
func TestASecondSignalCutsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	head := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, streamedChunk)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer head.Close()
	p := serve(t, t.TempDir(), "--http-lame-duck", "10m", "--http-shutdown-timeout", "1h")
	p.must(http.StatusCreated, "POST", "/api/v1/heads", fmt.Sprintf(`{"id":"a","endpoint":%q,"model_types":["m"],"region":"eu","status":"active"}`, head.URL))
	client := &http.Client{Transport: &http.Transport{}}
	res, err := client.Post(p.url+"/v1/chat/completions", "application/json", strings.NewReader(`{"model":"m","stream":true,"messages":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	p.signal(syscall.SIGTERM)
	p.signal(syscall.SIGTERM) // is one with the first
	for line := range p.lines {
		if strings.Contains(line, "stopping: not ready any more") {
			break
		}
	}
	<-time.After(2 * time.Second) // or it would be one with the first
	p.signal(syscall.SIGTERM)
	text, err := io.ReadAll(res.Body)
	if err == nil || !strings.Contains(string(text), `"code":"stopping"`) || !strings.HasPrefix(string(text), streamedChunk) {
		t.Errorf("the stream ended with %v:\n%s", err, text)
	}
	err = <-p.exited
	if err == nil || !strings.Contains(err.Error(), "exit status 1") || !strings.Contains(err.Error(), "1 answers in their middle") || !strings.Contains(err.Error(), "http.shutdown_timeout") {
		t.Errorf("the service ended with %v", err)
	}
}

// An agent drains its head at the first signal, and at those that come together with
// it. A later one ends it at once: its head stays draining until its lease ends.
func TestASecondSignalEndsAnAgent(t *testing.T) {
	t.Parallel()
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/models":
			fmt.Fprint(w, `{"data":[{"id":"m"}]}`)
		case "/metrics": // a request that never ends
			fmt.Fprint(w, "vllm:num_requests_running 1\nvllm:num_requests_waiting 0\n")
		}
	}))
	defer engine.Close()
	dir := t.TempDir()
	p := serve(t, dir)
	agent := command(t, "agent", "--engine", "vllm", "--url", engine.URL, "--id", "a", "--interval", "100ms", "--drain-timeout", "1h", "--data-dir", dir)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- agent.Wait() }()
	head := func(text string) {
		t.Helper()
		eventually(t, time.Minute, "the head is "+text, func() error {
			_, body, err := p.do(http.MethodGet, "/api/v1/heads/a", "")
			if err != nil || !strings.Contains(string(body), text) {
				return errors.Join(err, fmt.Errorf("got %s", body))
			}
			return nil
		})
	}
	signal := func() {
		t.Helper()
		if err := agent.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
	}
	head(`"routable":true`)
	signal()
	signal()
	head(`"status":"draining"`)
	var ended error
	for n, gone := 0, false; !gone; n++ {
		select {
		case ended = <-exited:
			if gone = true; n == 0 {
				t.Errorf("two signals at once ended the agent: %v", ended)
			}
		case <-time.After(2 * time.Second): // or the next would be one with the first
			signal()
		}
	}
	if ended == nil || ended.Error() != "signal: terminated" {
		t.Errorf("the agent ended with %v", ended)
	}
	head(`"status":"draining"`)
	p.stop()
}

// Ctrl-C at a terminal does not wait for load balancers; SIGTERM does there too.
func TestCtrlCAtATerminalHasNoLameDuck(t *testing.T) {
	t.Parallel()
	cmd := command(t, "serve", "--listen", "127.0.0.1:0", "--data-dir", t.TempDir(), "--redis-mode", "off", "--http-lame-duck", "10m")
	cmd.Stdin = newTerminal(t)
	p := start(t, "", cmd)
	begin := time.Now()
	p.signal(os.Interrupt)
	if err := <-p.exited; err != nil || time.Since(begin) > 5*time.Minute {
		t.Errorf("the service ended after %s with %v", time.Since(begin), err)
	}
}

// newTerminal is a pseudo-terminal as a process sees it.
func newTerminal(t *testing.T) *os.File {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slave.Close() })
	return slave
}
