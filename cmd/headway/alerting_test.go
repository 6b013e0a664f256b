package main

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// traffic makes decisions until the test ends.
func (p *process) traffic(every time.Duration, body string) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(every):
				_, _, _ = p.do("POST", "/api/v1/decisions", body)
			}
		}
	}()
	p.Cleanup(sync.OnceFunc(func() { close(stop); <-done }))
}

// Heads are lost, decisions fail, the service goes: each is told by the real
// Prometheus to the real Alertmanager, and by it to whom the configuration
// names; what follows from something else is kept back.
func TestAlertsReachPeople(t *testing.T) {
	t.Parallel()
	people := startPager(t)
	alertmanager := startAlertmanager(t, people.url)
	p := serve(t, t.TempDir(), "--http-lame-duck", "1ms", "--monitor-enabled=false", "--lease-base-interval", "1m")
	prom := startPrometheus(t, p.url[len("http://"):], alertmanager, 60)
	for _, id := range []string{"a", "b", "c"} {
		p.must(201, "POST", "/api/v1/heads", headBody(id))
	}
	eventually(t, 20*time.Second, "the dead man's switch fires", func() error { return people.has("/watchdog", "Watchdog", "firing") })
	if err := people.has("/on-call", "LowActiveHeads", "firing"); err == nil {
		t.Error("LowActiveHeads fires with three heads")
	}
	p.must(200, "PATCH", "/api/v1/heads/a", `{"admin_state":"maintenance"}`)
	p.must(204, "DELETE", "/api/v1/heads/b", "")
	eventually(t, 40*time.Second, "LowActiveHeads is told", func() error { return people.has("/on-call", "LowActiveHeads", "firing") })
	p.must(204, "DELETE", "/api/v1/heads/c", "")
	p.traffic(50*time.Millisecond, `{"model_type":"m"}`)
	eventually(t, 40*time.Second, "HighRoutingErrors is told", func() error { return people.has("/team", "HighRoutingErrors", "firing") })
	if err := people.has("/team", "HighHTTPErrors", "firing"); err == nil {
		t.Error("HighHTTPErrors is told although HighRoutingErrors explains it")
	}
	p.must(200, "PATCH", "/api/v1/heads/a", `{"admin_state":"enabled"}`)
	p.must(201, "POST", "/api/v1/heads", headBody("b"))
	eventually(t, 40*time.Second, "LowActiveHeads is over", func() error { return people.has("/on-call", "LowActiveHeads", "resolved") })
	p.stop()
	eventually(t, 40*time.Second, "RoutingServiceDown is told", func() error { return people.has("/on-call", "RoutingServiceDown", "firing") })
	if _, err := prom.query("up"); err != nil {
		t.Error(err)
	}
}

// The embedded monitor tells the same without a Prometheus: to Alertmanager, and
// to webhooks.
func TestTheMonitorTellsAlertsByItself(t *testing.T) {
	t.Parallel()
	people, direct := startPager(t), startPager(t)
	alertmanager := startAlertmanager(t, people.url)
	rules := t.TempDir() + "/rules.yml"
	write(t, rules, `groups:
- name: short
  rules:
  - alert: LowActiveHeads
    expr: active_heads < 2
    for: 1s
    labels: {severity: critical}
    annotations: {summary: Low active heads}
`)
	p := serve(t, t.TempDir(), "--http-lame-duck", "1ms", "--monitor-interval", "1s", "--monitor-rules-file", rules,
		"--monitor-alertmanagers", "http://"+alertmanager, "--monitor-alert-webhooks", direct.url+"/hook")
	eventually(t, 20*time.Second, "the webhook is told", func() error { return direct.has("/hook", "LowActiveHeads", "firing") })
	eventually(t, 20*time.Second, "Alertmanager tells it", func() error { return people.has("/on-call", "LowActiveHeads", "firing") })
	p.must(201, "POST", "/api/v1/heads", headBody("a"))
	p.must(201, "POST", "/api/v1/heads", headBody("b"))
	eventually(t, 20*time.Second, "its end is told", func() error { return direct.has("/hook", "LowActiveHeads", "resolved") })
	for _, service := range []string{"alertmanager", "webhook"} {
		if v := gauge(p, fmt.Sprintf(`external_service_calls_total{service=%q,status="success"}`, service)); v == "0" {
			t.Errorf("calls of %s were not counted", service)
		}
	}
	p.stop()
}
