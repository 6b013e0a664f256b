package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
)

// expression is one that a dashboard or a rule evaluates.
type expression struct{ where, panel, text string }

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
		fill := strings.NewReplacer("$__rate_interval", window, `"$job"`, `".+"`, `"$instance"`, `".+"`, `"$model"`, `".*"`, `"$region"`, `".*"`)
		for _, p := range d.Panels {
			for i, target := range p.Targets {
				all = append(all, expression{fmt.Sprintf("%s, %s, %d", name, p.Title, i), fmt.Sprintf("%s, %d", p.Title, i), fill.Replace(target.Expr)})
			}
		}
	}
	return all
}

// unknown reports what an expression names that Prometheus never saw.
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
// Prometheus on what the real service says: it parses, names what exists, has
// data that is not 0 where something happens, and the embedded monitor answers
// the same.
func TestEveryExpressionTellsTheTruth(t *testing.T) {
	t.Parallel()
	p := driven(t)
	prom := startPrometheus(t, p.url[len("http://"):], "localhost:9", 60)
	own := prometheusOf{p.url + "/prometheus"}
	eventually(t, patience, "there is a history of 15 s", func() error {
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
		eventually(t, patience, e.where+" names what exists and has data: "+e.text, func() error {
			if missing := unknown(t, prom, expr); len(missing) > 0 {
				return fmt.Errorf("nobody knows the %s", strings.Join(missing, ", the "))
			}
			found, err := prom.query(e.text)
			if err == nil && !slices.ContainsFunc(found, func(s sample) bool { return s.Value[1] != "NaN" }) {
				err = fmt.Errorf("it gives %v", found)
			}
			return err
		})
		if mayBeZero[e.panel] == "" {
			showsSomething(t, e, prom)
		}
		if mayDiffer[e.panel] == "" {
			answerAlike(t, e, prom, own)
		}
	}
	for _, series := range everyKind {
		showsSomething(t, expression{where: series, text: "rate(" + series + "[" + window + "])"}, prom)
	}
	for _, list := range []map[string]string{mayBeZero, mayDiffer} {
		for panel := range list {
			if !slices.ContainsFunc(dashboardExpressions(t), func(e expression) bool { return e.panel == panel }) {
				t.Errorf("there is no panel %q any more", panel)
			}
		}
	}
	rulesAreWell(t, prom, parse)
}

// mayBeZero are the expressions that are 0 where all is well, each with the
// reason. Every other one has to show that something happens.
var mayBeZero = map[string]string{
	"Alerts that fire, 0":               "nothing need fire",
	"Active Heads, 1":                   "no head is held by the guard",
	"Audit records, 1":                  "no record fails to be written",
	"Audit records, 2":                  "no record is lost",
	"Audit records not on Redis yet, 0": "all may have arrived",
}

// mayDiffer are the expressions that the embedded monitor answers otherwise.
var mayDiffer = map[string]string{
	"Alerts that fire, 0":           "Prometheus has rules with shortened times here",
	"Requests in flight by head, 0": "which heads are the busiest changes from one moment to the next",
}

// everyKind are series of traffic that panels sum: each kind of it happens.
var everyKind = []string{
	`external_service_calls_total{service="webhook",status="success"}`,
	`external_service_calls_total{service="webhook",status="error"}`,
	`message_queue_messages_total{queue="decisions.request",status="processed"}`,
	`message_queue_messages_total{queue="decisions.outcome",status="invalid"}`,
	`message_queue_messages_total{queue="dead_letters",status="published"}`,
	`message_queue_messages_total{queue="events",status="published"}`,
	`headway_stream_duration_seconds_count{transport="sse"}`,
	`headway_stream_duration_seconds_count{transport="websocket"}`,
	`headway_live_messages_total{type="decide",result="ok"}`,
	`external_service_calls_total{service="head",status="success"}`,
	`external_service_calls_total{service="head",status="error"}`,
	`external_service_calls_total{service="head",status="rejected"}`,
	`external_service_calls_total{service="otlp",status="error"}`,
	`headway_proxy_call_failures_total{reason="refused"}`,
	`headway_proxy_tokens_total{kind="output",source="reported"}`,
	`headway_admission_refused_total{reason="queue_timeout"}`,
	`headway_trace_spans_total{result="failed"}`,
}

// showsSomething wants an expression to have a value that is not 0.
func showsSomething(t *testing.T, e expression, prom prometheusOf) {
	t.Helper()
	eventually(t, patience, e.where+" shows what happens", func() error {
		found, err := prom.query(e.text)
		if err == nil && !slices.ContainsFunc(found, sample.isSomething) {
			err = fmt.Errorf("%s gives %v", e.text, found)
		}
		return err
	})
}

// isSomething reports a value that is neither 0 nor NaN.
func (s sample) isSomething() bool {
	v, err := s.number()
	return err == nil && v != 0 && !math.IsNaN(v)
}

func (s sample) number() (float64, error) {
	text, _ := s.Value[1].(string)
	return strconv.ParseFloat(text, 64)
}

// answerAlike wants both to answer with the same elements and, as they look at
// the service at other moments, with about the same values.
func answerAlike(t *testing.T, e expression, prom, own prometheusOf) {
	t.Helper()
	numbers := func(p prometheusOf, at time.Time) (map[string]float64, error) {
		var data struct{ Result []sample }
		if err := p.get("/api/v1/query", url.Values{"query": {e.text}, "time": {strconv.FormatFloat(float64(at.UnixMilli())/1e3, 'f', 3, 64)}}, &data); err != nil {
			return nil, err
		}
		all := map[string]float64{}
		for _, s := range data.Result {
			delete(s.Metric, "instance") // each has its own name for it
			v, err := s.number()
			if err != nil {
				return nil, err
			}
			all[fmt.Sprint(s.Metric)] = v
		}
		return all, nil
	}
	eventually(t, patience, "both answer "+e.where+" alike: "+e.text, func() error {
		at := time.Now().Add(-time.Second)
		theirs, err := numbers(prom, at)
		if err != nil {
			return err
		}
		ours, err := numbers(own, at)
		if err != nil {
			return err
		}
		largest := 0.0
		for _, v := range theirs {
			if !math.IsNaN(v) {
				largest = max(largest, math.Abs(v))
			}
		}
		for name, v := range theirs {
			mine, has := ours[name]
			if !has || !alike(v, mine, largest) {
				return fmt.Errorf("%s is %v there, and here %v (%v)", name, v, mine, has)
			}
		}
		if len(ours) != len(theirs) || len(ours) == 0 {
			return fmt.Errorf("%v there, and here %v", theirs, ours)
		}
		return nil
	})
}

// alike says whether two numbers of the same thing, looked at in moments that
// lie near to each other, are about the same. What is no number equals none.
func alike(a, b, largest float64) bool {
	if math.IsNaN(a) && math.IsNaN(b) || a == b {
		return true
	}
	apart := math.Abs(a - b)
	return apart <= 0.4*math.Abs(a) || apart <= 0.05*largest
}

func TestWhatIsNoNumberIsLikeNone(t *testing.T) {
	t.Parallel()
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		a, b, largest float64
		want          bool
	}{
		{1, 1, 1, true},
		{1, 1.3, 1, true},
		{1, 1.5, 1, false},
		{1, 4, 100, true},
		{0, 0, 0, true},
		{0, 1, 1, false},
		{nan, nan, 1, true},
		{1, nan, 1, false},
		{nan, 1, 1, false},
		{1, inf, 1, false},
		{inf, inf, inf, true},
	} {
		if got := alike(c.a, c.b, c.largest); got != c.want {
			t.Errorf("%v and %v of %v are alike: %v", c.a, c.b, c.largest, got)
		}
	}
}

// mayBeMissing are the metrics of rules that this service does not have, each
// with the reason.
var mayBeMissing = map[string]string{
	"headway_tls_certificate_not_after_seconds": "there is only with TLS",
}

func rulesAreWell(t *testing.T, prom prometheusOf, parse parser.Parser) {
	t.Helper()
	eventually(t, patience, "each rule is well", func() error {
		var data struct {
			Groups []struct {
				Rules []struct{ Name, Query, Health, LastError, Type string }
			}
		}
		if err := prom.get("/api/v1/rules", nil, &data); err != nil {
			return err
		}
		rules := 0
		for _, g := range data.Groups {
			for _, r := range g.Rules {
				rules++
				if r.Health != "ok" || r.LastError != "" {
					return fmt.Errorf("rule %s is %s: %s", r.Name, r.Health, r.LastError)
				}
				expr, err := parse.ParseExpr(r.Query)
				if err != nil {
					return fmt.Errorf("rule %s: %w", r.Name, err)
				}
				for _, what := range unknown(t, prom, expr) {
					if mayBeMissing[strings.TrimPrefix(what, "metric ")] == "" {
						return fmt.Errorf("rule %s: nobody knows the %s", r.Name, what)
					}
				}
			}
		}
		if rules < 40 {
			return fmt.Errorf("%d rules are loaded", rules)
		}
		return nil
	})
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
