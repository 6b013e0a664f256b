package main

import (
	"bufio"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A process that stood still for longer than a lease, as a machine that was
// suspended, does not blame the heads: those that reported just before take
// requests at once, and none is said to have expired.
func TestAProcessThatStoodStillExpiresNoHead(t *testing.T) {
	const pause = 12 * time.Second // a lease lasts 8.1 s to 9.9 s
	p := serve(t, t.TempDir(), "--lease-base-interval", "3s", "--http-lame-duck", "1ms")
	told := p.headEvents()
	ids := []string{"a", "b", "c"}
	for _, id := range ids {
		p.must(201, "POST", "/api/v1/heads", headBody(id))
	}
	p.signal(syscall.SIGSTOP)
	<-time.After(pause) // the process has to stand still in real time
	p.signal(syscall.SIGCONT)
	p.must(200, "POST", "/api/v1/decisions", `{"model_type":"m"}`)
	for line := range p.lines {
		if strings.Contains(line, "this process was paused") {
			break
		}
	}
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for range 20 { // several looks at the leases, and long before they end
		<-again.C
		p.must(200, "POST", "/api/v1/decisions", `{"model_type":"m"}`)
	}
	for _, name := range []string{"headway_lease_expirations_total", "headway_held_heads"} {
		if got := gauge(p, name); got != "0" {
			t.Errorf("%s is %s after the pause", name, got)
		}
	}
	p.must(204, "DELETE", "/api/v1/heads/a", "")
	registered := 0
	for kind := range told {
		switch kind {
		case "head.registered":
			registered++
		case "head.expired", "head.held", "head.unroutable":
			t.Errorf("after the pause there was the event %s", kind)
		}
		if kind == "head.removed" { // what was before it has been read
			break
		}
	}
	if registered != len(ids) {
		t.Errorf("the events told of %d registrations; want %d", registered, len(ids))
	}
	p.stop()
}

// headEvents are the types of the events about heads from now on, until the
// stream ends.
func (p *process) headEvents() <-chan string {
	p.Helper()
	req, err := http.NewRequestWithContext(p.Context(), http.MethodGet, p.url+"/api/v1/events?types=head.*", nil)
	if err != nil {
		p.Fatal(err)
	}
	res, err := (&http.Client{Transport: p.client.Transport}).Do(req)
	if err != nil || res.StatusCode != http.StatusOK {
		p.Fatalf("events: %v", err)
	}
	p.Cleanup(func() { _ = res.Body.Close() })
	types := make(chan string, 1000)
	go func() {
		defer close(types)
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			if kind, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				types <- kind
			}
		}
	}()
	return types
}
