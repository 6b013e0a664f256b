package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
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

// Heads are lost, decisions fail, the service goes: the real Prometheus
// notifies the real Alertmanager of each, which notifies the receivers of the
// configuration. What follows from another alert is inhibited.
func TestAlertsReachPeople(t *testing.T) {
	t.Parallel()
	people := startPager(t)
	alertmanager := startAlertmanager(t, people.url)
	p := serve(t, t.TempDir(), "--monitor-enabled=false", "--lease-base-interval", "1m")
	prom := startPrometheus(t, p.url[len("http://"):], alertmanager, 60)
	head := func(id string) string {
		return fmt.Sprintf(`{"id":%q,"endpoint":"http://127.0.0.1:9","model_types":["m-%[1]s"],"region":"r-%[1]s","status":"active"}`, id)
	}
	for _, id := range []string{"a", "b", "c"} {
		p.must(201, "POST", "/api/v1/heads", head(id))
	}
	p.must(201, "POST", "/api/v1/heads", head("d"))
	p.must(200, "POST", "/api/v1/heads", strings.Replace(head("d"), "active", "offline", 1)) // its engine has ended
	eventually(t, patience, "the dead man's switch fires", func() error { return people.has("/watchdog", "Watchdog", "firing") })
	if err := people.has("/on-call", "LowActiveHeads", "firing"); err == nil {
		t.Error("LowActiveHeads fires with three heads")
	}
	p.must(200, "PATCH", "/api/v1/heads/a", `{"admin_state":"maintenance"}`)
	p.must(204, "DELETE", "/api/v1/heads/b", "")
	eventually(t, patience, "LowActiveHeads is sent", func() error { return people.has("/on-call", "LowActiveHeads", "firing") })
	p.must(204, "DELETE", "/api/v1/heads/c", "")
	p.traffic(50*time.Millisecond, `{"model_type":"m-a"}`)
	eventually(t, patience, "HighRoutingErrors is sent", func() error { return people.has("/team", "HighRoutingErrors", "firing") })
	if err := people.has("/team", "HighHTTPErrors", "firing"); err == nil {
		t.Error("HighHTTPErrors is sent although the failed decisions explain it")
	}
	p.must(200, "PATCH", "/api/v1/heads/a", `{"admin_state":"enabled"}`)
	p.must(201, "POST", "/api/v1/heads", head("b"))
	eventually(t, patience, "LowActiveHeads is over", func() error { return people.has("/on-call", "LowActiveHeads", "resolved") })
	for _, sent := range []string{"DecisionErrorBudgetBurn1h", "DecisionErrorBudgetBurn6h", "ModelWithoutHeads"} {
		eventually(t, patience, sent+" is sent", func() error { return people.has("/on-call", sent, "firing") })
	}
	for _, sent := range people.since(time.Time{}) {
		if sent.Labels["alertname"] == "ModelWithoutHeads" && sent.Labels["model_type"] != "m-d" {
			t.Errorf("a model type that was retired, or whose head is in maintenance, is missed: %v", sent)
		}
		if sent.Labels["severity"] == "info" {
			t.Errorf("what only keeps others back is sent: %v", sent)
		}
	}
	begin := time.Now()
	p.stop()
	eventually(t, patience, "RoutingServiceDown is sent", func() error {
		if len(people.since(begin)) == 0 {
			return errors.New("not yet")
		}
		return people.has("/on-call", "RoutingServiceDown", "firing")
	})
	// As long as any alert waits for, and two of its windows of five minutes.
	eventually(t, patience, "the service has been away for long", func() error {
		away, err := prom.query(`sum_over_time((up{job="routing-service"} == bool 0)[1m:1s]) > 14`)
		if err == nil && len(away) == 0 {
			err = errors.New("not yet")
		}
		return err
	})
	for _, sent := range people.since(begin) {
		if sent.Labels["alertname"] != "RoutingServiceDown" {
			t.Errorf("sent although RoutingServiceDown explains it: %v", sent)
		}
	}
}

// What Alertmanager inhibits with the shipped configuration:
// what follows from something else, and nothing besides.
func TestAlertmanagerKeepsBackWhatFollows(t *testing.T) {
	t.Parallel()
	type labels = map[string]string
	const down, absent = "RoutingServiceDown", "RoutingServiceMetricsAbsent"
	for name, c := range map[string]struct {
		sent []labels
		kept []string // names of those that are kept back
	}{
		"the service is gone": {
			[]labels{
				{"alertname": down, "job": "j", "instance": "a"},
				{"alertname": absent},
				{"alertname": "Watchdog"},
				{"alertname": "HighRoutingErrors"},
				{"alertname": "LowActiveHeads", "job": "j"},
				{"alertname": "ModelWithoutHeads", "job": "j", "model_type": "m"},
				{"alertname": "HighMemoryUsage", "job": "j", "instance": "a"},
				{"alertname": "AnothersAlert", "app": "shop", "job": "j"},
			},
			[]string{"HighMemoryUsage", "HighRoutingErrors", "LowActiveHeads", "ModelWithoutHeads", absent},
		},
		"one instance of several is gone": {
			[]labels{
				{"alertname": down, "job": "j", "instance": "a"},
				{"alertname": "LowActiveHeads", "job": "j"},
				{"alertname": "HighHTTPErrors"},
				{"alertname": "HighMemoryUsage", "job": "j", "instance": "a"},
				{"alertname": "PolicyLoadFailed", "job": "j", "instance": "b"},
			},
			[]string{"HighMemoryUsage"},
		},
		"it is slow and fails": {
			[]labels{
				{"alertname": "HighHTTPLatency"},
				{"alertname": "HighLatency", "endpoint": "/x"},
				{"alertname": "HighRoutingErrors"},
				{"alertname": "HighRoutingErrorRatio", "job": "j"},
				{"alertname": "HighHTTPErrors"},
				{"alertname": "DecisionsExplainHTTPErrors", "severity": "info"},
				{"alertname": "ModelWithoutHeads", "job": "j"},
			},
			[]string{"HighHTTPErrors", "HighLatency", "HighRoutingErrorRatio"},
		},
		"it fails beside callers that ask for what nobody has": {
			[]labels{
				{"alertname": "HighRoutingErrors"},
				{"alertname": "HighRoutingErrorRatio", "job": "j"},
				{"alertname": "HighHTTPErrors"},
			},
			[]string{"HighRoutingErrorRatio"},
		},
		"budgets are burnt": {
			[]labels{
				{"alertname": "DecisionErrorBudgetBurn1h", "severity": "critical", "job": "j"},
				{"alertname": "DecisionErrorBudgetBurn3d", "severity": "warning", "job": "j"},
				{"alertname": "DecisionLatencyBudgetBurn1d", "severity": "warning", "job": "j"},
				{"alertname": "DecisionErrorBudgetBurn1d", "severity": "warning", "job": "k"},
			},
			[]string{"DecisionErrorBudgetBurn3d"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := startAlertmanager(t, startPager(t).url)
			var posted []map[string]labels
			for _, l := range c.sent {
				if l["app"] == "" {
					l["app"] = "routing-service"
				}
				posted = append(posted, map[string]labels{"labels": l})
			}
			raw, err := json.Marshal(posted)
			if err != nil {
				t.Fatal(err)
			}
			client := http.Client{Timeout: 10 * time.Second}
			res, err := client.Post("http://"+addr+"/api/v2/alerts", "application/json", bytes.NewReader(raw))
			if err != nil || res.StatusCode != http.StatusOK {
				t.Fatalf("%v, %v", res, err)
			}
			_ = res.Body.Close()
			eventually(t, patience, "it knows what to keep back", func() error { return keepsBack(addr, len(c.sent), c.kept) })
		})
	}
}

// keepsBack is nil if Alertmanager has so many alerts, and keeps back those of
// the names.
func keepsBack(addr string, n int, names []string) error {
	raw, err := fetch("http://" + addr + "/api/v2/alerts")
	var known []struct {
		Labels map[string]string
		Status struct{ State string }
	}
	if err == nil {
		err = json.Unmarshal(raw, &known)
	}
	if err != nil {
		return err
	}
	states := map[string][]string{}
	for _, a := range known {
		states[a.Status.State] = append(states[a.Status.State], a.Labels["alertname"])
	}
	kept := states["suppressed"]
	slices.Sort(kept)
	if len(states["active"])+len(kept) != n || !slices.Equal(kept, names) {
		return fmt.Errorf("of %d it has %v; want %v kept back", n, states, names)
	}
	return nil
}

// The embedded monitor sends the same without a Prometheus: to Alertmanager, and
// to webhooks.
func TestTheMonitorSendsAlertsByItself(t *testing.T) {
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
	p := serve(t, t.TempDir(), "--monitor-interval", "1s", "--monitor-rules-file", rules,
		"--monitor-alertmanagers", "http://"+alertmanager, "--monitor-alert-webhooks", direct.url+"/hook")
	eventually(t, patience, "the webhook is sent", func() error { return direct.has("/hook", "LowActiveHeads", "firing") })
	eventually(t, patience, "Alertmanager sends it", func() error { return people.has("/on-call", "LowActiveHeads", "firing") })
	p.must(201, "POST", "/api/v1/heads", headBody("a"))
	p.must(201, "POST", "/api/v1/heads", headBody("b"))
	eventually(t, patience, "its end is sent", func() error { return direct.has("/hook", "LowActiveHeads", "resolved") })
	for _, service := range []string{"alertmanager", "webhook"} {
		if v := gauge(p, fmt.Sprintf(`external_service_calls_total{service=%q,status="success"}`, service)); v == "0" {
			t.Errorf("calls of %s were not counted", service)
		}
	}
	p.stop()
}
