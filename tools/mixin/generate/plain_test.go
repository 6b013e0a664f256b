package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"headway/tools/mixin"
)

// plain are the examples of the user's guide.
var plain = map[string]string{
	"HighRoutingErrors": `rate(routing_decisions_total{strategy="none"}[5m]) > 0.1`,
	"LowActiveHeads":    `active_heads < 2`,
	"HighHTTPLatency":   `histogram_quantile(0.95, sum(rate(http_request_duration_seconds_bucket[5m])) by (le)) > 1`,
	"HighMemoryUsage":   `process_resident_memory_bytes > 1e9`,
}

// random are samples every 30 s for 40 min, that bend now and then, as a gauge
// or a counter does; a scrape in thirty fails.
func random(r *rand.Rand, counter bool) string {
	var b strings.Builder
	level, value := 0, 0.0
	for range 80 {
		if r.IntN(10) == 0 {
			level = r.IntN(4)
		}
		switch {
		case r.IntN(30) == 0:
			b.WriteString(" _")
		case r.IntN(60) == 0:
			b.WriteString(" stale")
		case counter:
			fmt.Fprintf(&b, " %g", value)
		default:
			fmt.Fprintf(&b, " %d", level)
		}
		value += 1.5 * float64(level)
	}
	return b.String()
}

// firing is an expression that has a value while an alert of the name fires.
func firing(name string) string {
	return fmt.Sprintf(`(count(ALERTS{alertname=%q,alertstate="firing"}) > 0)`, name)
}

// Ours fires whenever the guide's plain expression does, at every half minute of
// samples that come and go as they like.
func TestOursFiresWheneverThePlainOneDoes(t *testing.T) {
	type rule struct {
		Alert string `yaml:"alert"`
		Expr  string `yaml:"expr"`
		For   string `yaml:"for"`
	}
	type question struct {
		Expr       string `yaml:"expr"`
		EvalTime   string `yaml:"eval_time"`
		ExpSamples []any  `yaml:"exp_samples"`
	}
	type test struct {
		Interval       string              `yaml:"interval"`
		InputSeries    []map[string]string `yaml:"input_series"`
		PromqlExprTest []question          `yaml:"promql_expr_test"`
	}
	var rules []rule
	var tests []test
	for _, g := range mixin.Groups() {
		for _, a := range g.Alerts {
			switch expr := plain[a.Name]; {
			case expr == "", expr == a.Expr && mixin.Duration(a.For) == "5m":
				continue
			default:
				rules = append(rules, rule{a.Name, a.Expr, mixin.Duration(a.For)}, rule{"Plain" + a.Name, expr, "5m"})
			}
			for _, c := range a.Also {
				if !strings.Contains(c.Name, "plain") {
					continue
				}
				early := test{Interval: mixin.Duration(c.Every)}
				for _, s := range c.Series {
					early.InputSeries = append(early.InputSeries, map[string]string{"series": s.Name, "values": s.Values})
				}
				both := firing("Plain"+a.Name) + " and " + firing(a.Name)
				early.PromqlExprTest = []question{{both, mixin.Duration(c.At), []any{map[string]any{"labels": "{}", "value": 1}}}}
				tests = append(tests, early)
			}
		}
	}
	if len(rules) != 4 || len(tests) != 2 {
		t.Fatalf("%d alerts differ from the guide's; this test knows samples for HighRoutingErrors and LowActiveHeads", len(rules)/2)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		one := test{Interval: "30s"}
		for _, instance := range []string{"a", "b"} {
			one.InputSeries = append(one.InputSeries,
				map[string]string{"series": fmt.Sprintf(`active_heads{job="j",instance=%q}`, instance), "values": random(r, false)},
				map[string]string{"series": fmt.Sprintf(`routing_decisions_total{strategy="none",job="j",instance=%q}`, instance), "values": random(r, true)})
		}
		for at := 0; at <= 40*60; at += 30 {
			for i := 0; i < len(rules); i += 2 {
				one.PromqlExprTest = append(one.PromqlExprTest, question{firing(rules[i+1].Alert) + " unless " + firing(rules[i].Alert), fmt.Sprintf("%ds", at), []any{}})
			}
		}
		tests = append(tests, one)
	}
	dir := t.TempDir()
	for name, content := range map[string]any{
		"rules.yml": map[string]any{"groups": []any{map[string]any{"name": "g", "rules": rules}}},
		"test.yml":  map[string]any{"rule_files": []string{"rules.yml"}, "evaluation_interval": "30s", "tests": tests},
	} {
		raw, err := yaml.Marshal(content)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	tool(t, "prometheus", "promtool", "test", "rules", filepath.Join(dir, "test.yml"))
}
