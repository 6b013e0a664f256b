package main

import (
	"bufio"
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
	dir := t.TempDir()
	cmd := command(t, "serve", "--listen", "127.0.0.1:0", "--data-dir", dir, "--audit-file", filepath.Join(dir, "audit.log"), "--redis-mode", "off", "--http-lame-duck", "1ms", "--log-level", "debug")
	log, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = end, end
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end.Close()
	p := &process{TB: t, cmd: cmd, client: &http.Client{Timeout: 30 * time.Second}}
	for scan := bufio.NewScanner(log); p.url == ""; {
		if !scan.Scan() {
			t.Fatalf("the service did not start: %v", cmd.Wait())
		}
		if m := listening.FindStringSubmatch(scan.Text()); m != nil {
			p.url = "http://" + m[1]
		}
	}
	log.Close()

	req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, p.url+"/api/v1/policy", strings.NewReader(`{"aliases":{"a":"m"}}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("If-Match", "*")
	req.Header.Set("Content-Type", "application/json")
	res, err := p.client.Do(req)
	if err != nil {
		t.Fatalf("a change of the policy, which is logged: %v", err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("the policy: %d", res.StatusCode)
	}
	p.must(http.StatusCreated, "POST", "/api/v1/heads", headBody("a"))
	for deadline := time.Now().Add(30 * time.Second); !linesLost.Match(p.must(200, "GET", "/metrics", "")); {
		if time.Now().After(deadline) {
			t.Fatal("no lost line was counted")
		}
	}
	p.signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("it did not stop in order: %v", err)
	}
}
