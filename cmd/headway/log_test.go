package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

var linesLost = regexp.MustCompile(`(?m)^headway_log_lines_lost_total [1-9]`)

// Who reads the log of a service can leave: `headway serve 2>&1 | tee log` and an
// interrupt, which ends tee first. The service goes on, and stops in order.
func TestAServiceOutlivesTheReaderOfItsLog(t *testing.T) {
	p, log := readLog(t)
	log.Close()

	p.changePolicy()
	p.must(http.StatusCreated, "POST", "/api/v1/heads", headBody("a"))
	for deadline := time.Now().Add(30 * time.Second); !linesLost.Match(p.must(200, "GET", "/metrics", "")); {
		if time.Now().After(deadline) {
			t.Fatal("no lost line was counted")
		}
	}
	p.signal(syscall.SIGTERM)
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("it did not stop in order: %v", err)
	}
}

// changePolicy changes the policy, which is logged before it is answered.
func (p *process) changePolicy() {
	p.Helper()
	req, err := http.NewRequestWithContext(p.Context(), http.MethodPatch, p.url+"/api/v1/policy", strings.NewReader(`{"aliases":{"a":"m"}}`))
	if err != nil {
		p.Fatal(err)
	}
	req.Header.Set("If-Match", "*")
	req.Header.Set("Content-Type", "application/json")
	res, err := p.client.Do(req)
	if err != nil {
		p.Fatalf("a change of the policy: %v", err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		p.Fatalf("the policy: %d", res.StatusCode)
	}
}

// readLog starts a service whose log is read by the test, up to where it listens.
func readLog(t *testing.T, args ...string) (p *process, log *os.File) {
	dir := t.TempDir()
	cmd := command(t, append([]string{"serve", "--listen", "127.0.0.1:0", "--data-dir", dir, "--audit-file", filepath.Join(dir, "audit.log"), "--redis-mode", "off", "--http-lame-duck", "1ms", "--log-level", "debug"}, args...)...)
	log, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = end, end
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end.Close()
	p = &process{TB: t, cmd: cmd, client: &http.Client{Timeout: 30 * time.Second}}
	for scan := bufio.NewScanner(log); p.url == ""; {
		if !scan.Scan() {
			t.Fatalf("the service did not start: %v", cmd.Wait())
		}
		if m := listening.FindStringSubmatch(scan.Text()); m != nil {
			p.url = "http://" + m[1]
		}
	}
	return p, log
}

// A reader of the log that is there and takes nothing, as a terminal that is stopped, holds
// up no request and no stop.
func TestAServiceGoesOnWhileItsLogIsNotRead(t *testing.T) {
	for _, inOrder := range []bool{true, false} {
		t.Run(fmt.Sprintf("the stop is in order: %t", inOrder), func(t *testing.T) { goesOnUnread(t, inOrder) })
	}
}

// goesOnUnread has the service stop in order, or with an error: a request does not end.
func goesOnUnread(t *testing.T, inOrder bool) {
	p, log := readLog(t, "--http-shutdown-timeout", "1s")
	defer log.Close()
	const heads = 400 // each is logged
	for n := range heads {
		p.must(http.StatusCreated, "POST", "/api/v1/heads", headBody(fmt.Sprintf("%s-%d", strings.Repeat("a", 50), n)))
	}
	p.changePolicy()
	if !inOrder {
		c, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{"); err != nil {
			t.Fatal(err)
		}
		eventually(t, patience, "the body is awaited", func() error {
			if n := p.metric("headway_proxy_bodies_awaited"); n != 1 {
				return fmt.Errorf("%v are", n)
			}
			return nil
		})
	}
	p.signal(syscall.SIGTERM)
	defer time.AfterFunc(time.Minute, func() { _ = p.cmd.Process.Kill() }).Stop()
	if err := p.cmd.Wait(); p.cmd.ProcessState.ExitCode() != map[bool]int{true: exitOK, false: exitError}[inOrder] {
		t.Errorf("it ended with %v", err)
	}
	unread, err := io.ReadAll(log)
	if n := strings.Count(string(unread), "msg=head.registered"); err != nil || n == 0 || n >= heads {
		t.Errorf("%d of %d lines were in the pipe, which was to be full; %v", n, heads, err)
	}
}
