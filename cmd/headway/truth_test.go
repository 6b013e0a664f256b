package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
)

// expression is one that a dashboard or a rule evaluates.
type expression struct{ where, text string }

// window stands for Grafana's $__rate_interval where samples come every second.
const window = "10s"

// dashboardExpressions are those of the panels, as Grafana fills them in when
// everything is chosen.
func dashboardExpressions(t *testing.T) (all []expression) {
	t.Helper()
	for _, name := range []string{"routing-service", "routing-service-enhanced"} {
		content, err := os.ReadFile("../../grafana/dashboards/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var d struct {
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
		}
		if err := json.Unmarshal(content, &d); err != nil {
			t.Fatal(err)
		}
		fill := strings.NewReplacer("$__rate_interval", window, `"$job"`, `".*"`, `"$instance"`, `".*"`, `"$model"`, `".*"`, `"$region"`, `".*"`)
		for _, p := range d.Panels {
			for i, target := range p.Targets {
				all = append(all, expression{fmt.Sprintf("%s, %s, %d", name, p.Title, i), fill.Replace(target.Expr)})
			}
		}
	}
	return all
}

// driven is a service in which everything that the dashboards show happens.
func driven(t *testing.T) *process {
	p := serve(t, t.TempDir(), "--lease-base-interval", "200ms", "--redis-mode", "embedded", "--redis-listen", "127.0.0.1:0")
	head := func(id, model, region string) {
		_, _, _ = p.do("POST", "/api/v1/heads", fmt.Sprintf(
			`{"id":%q,"endpoint":"http://127.0.0.1:9","model_types":[%q],"region":%q,"status":"active","load":{"in_flight":2,"queued":1}}`, id, model, region))
	}
	strangers := &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext}}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			head("a", "llama", "eu")
			head("b", "llama", "us")
			head("c", "qwen", "eu")
			if i%10 == 0 {
				head(fmt.Sprintf("gone-%d", i/10%3), "qwen", "us") // and never reports: its lease runs out
				_, _, _ = p.do("PATCH", "/api/v1/heads/c", fmt.Sprintf(`{"weight":%d}`, 1+i%7))
			}
			for n, body := range []string{
				`{"model_type":"llama","region":"eu","strategy":"round_robin"}`, `{"model_type":"llama","strategy":"least_loaded"}`,
				`{"model_type":"qwen","strategy":"random","session_key":"s"}`, `{"model_type":"llama","region":"asia","region_mode":"require"}`,
				`{"model_type":"unknown"}`, `{"model_type":`,
			} {
				_, answer, _ := p.do("POST", "/api/v1/decisions", body)
				var d struct {
					DecisionID string `json:"decision_id"`
				}
				if json.Unmarshal(answer, &d) == nil && d.DecisionID != "" && n < 2 {
					_, _, _ = p.do("POST", "/api/v1/decisions/"+d.DecisionID+"/outcome", `{"result":"`+[]string{"ok", "error"}[n]+`"}`)
				}
			}
			for range 2 { // too often for one address
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/api/v1/heads", nil)
				req.Header.Set("Authorization", "Bearer hw_nobody")
				if res, err := strangers.Do(req); err == nil {
					_ = res.Body.Close()
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() { stop(); <-done })
	return p
}

// knownTo reports what an expression names that Prometheus never saw.
func unknown(t *testing.T, prom prometheusOf, expr parser.Expr) (missing []string) {
	t.Helper()
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		bare := selector.Name
		if bare == "ALERTS" {
			return nil // Prometheus' own, which is there while something fires
		}
		var series []map[string]string
		if err := prom.get("/api/v1/series", url.Values{"match[]": {bare}}, &series); err != nil {
			t.Fatal(err)
		}
		if len(series) == 0 {
			missing = append(missing, "metric "+bare)
			return nil
		}
		for _, m := range selector.LabelMatchers {
			if m.Name == model.MetricNameLabel {
				continue
			}
			if !slices.ContainsFunc(series, func(s map[string]string) bool { return s[m.Name] != "" }) {
				missing = append(missing, "label "+m.Name+" of "+bare)
			}
		}
		return nil
	})
	return missing
}

// Every expression of both dashboards and of all rules is evaluated by the real
// Prometheus on what the real service says: it parses, names what there is, and
// has data.
func TestEveryExpressionTellsTheTruth(t *testing.T) {
	t.Parallel()
	p := driven(t)
	prom := startPrometheus(t, p.url[len("http://"):], "localhost:9", 60)
	own := prometheusOf{p.url + "/prometheus"}
	eventually(t, 40*time.Second, "there is a history of 15 s", func() error {
		found, err := prom.query(`count_over_time(up[1m]) >= 15`)
		if err == nil && len(found) == 0 {
			err = fmt.Errorf("not yet")
		}
		return err
	})
	parse := parser.NewParser(parser.Options{})
	for _, e := range dashboardExpressions(t) {
		expr, err := parse.ParseExpr(e.text)
		if err != nil {
			t.Errorf("%s: %v", e.where, err)
			continue
		}
		for _, what := range unknown(t, prom, expr) {
			t.Errorf("%s: nobody knows the %s: %s", e.where, what, e.text)
		}
		found, err := prom.query(e.text)
		if err != nil {
			t.Errorf("%s: %v", e.where, err)
		}
		if !slices.ContainsFunc(found, func(s sample) bool { return s.Value[1] != "NaN" }) {
			t.Errorf("%s has no data: %s", e.where, e.text)
		}
		if _, err := own.query(e.text); err != nil {
			t.Errorf("%s: the embedded monitor: %v", e.where, err)
		}
	}
	rulesAreWell(t, prom, parse)
}

// mayBeMissing are the metrics of rules that this service does not have, each
// with the reason.
var mayBeMissing = map[string]string{
	"headway_tls_certificate_not_after_seconds": "there is only with TLS",
}

func rulesAreWell(t *testing.T, prom prometheusOf, parse parser.Parser) {
	t.Helper()
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Query, Health, LastError, Type string }
		}
	}
	if err := prom.get("/api/v1/rules", nil, &data); err != nil {
		t.Fatal(err)
	}
	rules := 0
	for _, g := range data.Groups {
		for _, r := range g.Rules {
			rules++
			if r.Health != "ok" || r.LastError != "" {
				t.Errorf("rule %s is %s: %s", r.Name, r.Health, r.LastError)
			}
			expr, err := parse.ParseExpr(r.Query)
			if err != nil {
				t.Errorf("rule %s: %v", r.Name, err)
				continue
			}
			for _, what := range unknown(t, prom, expr) {
				if mayBeMissing[strings.TrimPrefix(what, "metric ")] == "" {
					t.Errorf("rule %s: nobody knows the %s", r.Name, what)
				}
			}
		}
	}
	if rules < 40 {
		t.Errorf("%d rules are loaded", rules)
	}
}

// Every metric of the guide has the guide's labels and no other, from the first
// scrape on.
func TestTheGuidesMetricsHaveItsLabels(t *testing.T) {
	t.Parallel()
	p := serve(t, t.TempDir())
	want := map[string][]string{
		"routing_decisions_total": {"model_type", "region", "strategy"}, "head_registrations_total": nil, "head_status_updates_total": nil,
		"active_heads": nil, "http_requests_total": {"endpoint", "method", "status"}, "http_request_duration_seconds_count": nil,
		"cache_hits_total": nil, "cache_misses_total": nil, "external_service_calls_total": {"service", "status"},
		"process_cpu_seconds_total": nil, "process_resident_memory_bytes": nil, "sse_connections": nil, "websocket_connections": nil,
		"message_queue_messages_total": {"queue", "status"},
	}
	seen := map[string]bool{}
	p.must(200, "GET", "/livez", "") // so that a request was counted
	scan := bufio.NewScanner(strings.NewReader(string(p.must(200, "GET", "/metrics", ""))))
	for scan.Scan() {
		name, _, _ := strings.Cut(scan.Text(), " ")
		name, list, _ := strings.Cut(strings.TrimSuffix(name, "}"), "{")
		names, asked := want[name]
		if !asked {
			continue
		}
		var got []string
		for pair := range strings.SplitSeq(list, ",") {
			if label, _, ok := strings.Cut(pair, "="); ok {
				got = append(got, label)
			}
		}
		if slices.Sort(got); !slices.Equal(got, names) {
			t.Errorf("%s has the labels %v; the guide says %v", name, got, names)
		}
		seen[name] = true
	}
	for name := range want {
		if !seen[name] {
			t.Errorf("the first scrape has no %s", name)
		}
	}
}
