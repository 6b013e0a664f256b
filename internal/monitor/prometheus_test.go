package monitor_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"headway/internal/freeport"
	"headway/internal/monitor"
)

// need skips a test whose program is not installed.
func need(t *testing.T, program, debian string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed; on Debian: apt-get install -y --no-install-recommends %s", program, debian)
	}
	return path
}

// history writes what a registry had at each step as OpenMetrics with time
// stamps, family by family as the format wants.
type history struct {
	order    []string
	families map[string]*strings.Builder
}

func (h *history) take(t testing.TB, g prometheus.Gatherer, at time.Time) {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		var text strings.Builder
		for _, m := range f.GetMetric() {
			ms := at.UnixMilli()
			m.TimestampMs = &ms
			for _, l := range []string{"instance", "job"} {
				name, value := l, map[string]string{"instance": "here", "job": "routing-service"}[l]
				m.Label = append(m.Label, pair(name, value))
			}
		}
		if _, err := expfmt.MetricFamilyToOpenMetrics(&text, f); err != nil {
			t.Fatal(err)
		}
		b := h.families[f.GetName()]
		if b == nil {
			b = &strings.Builder{}
			h.families[f.GetName()] = b
			h.order = append(h.order, f.GetName())
		}
		for line := range strings.Lines(text.String()) {
			if !strings.HasPrefix(line, "#") || b.Len() == 0 || !strings.Contains(b.String()[:min(b.Len(), 400)], line) {
				b.WriteString(line)
			}
		}
	}
}

func (h *history) text() string {
	var b strings.Builder
	slices.Sort(h.order)
	for _, name := range h.order {
		b.WriteString(h.families[name].String())
	}
	return b.String() + "# EOF\n"
}

// realPrometheus serves blocks made of the history and returns its address.
func realPrometheus(t *testing.T, h *history) string {
	t.Helper()
	server, tool := need(t, "prometheus", "prometheus"), need(t, "promtool", "prometheus")
	dir := t.TempDir()
	metrics, config := filepath.Join(dir, "metrics.txt"), filepath.Join(dir, "prometheus.yml")
	for file, text := range map[string]string{metrics: h.text(), config: "global: {}\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.CommandContext(t.Context(), tool, "tsdb", "create-blocks-from", "openmetrics", metrics, filepath.Join(dir, "data")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	address := freeport.Address(t)
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, server, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--storage.tsdb.retention.time=100y", "--web.listen-address="+address)
	log := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(); _ = cmd.Wait() })
	deadline := time.Now().Add(time.Minute)
	for ready := false; !ready; {
		if res, err := client.Get("http://" + address + "/-/ready"); err == nil {
			ready = res.StatusCode == http.StatusOK
			_ = res.Body.Close()
		}
		if time.Now().After(deadline) {
			t.Fatal("prometheus does not become ready")
		}
	}
	return "http://" + address
}

// vector is an answer as labels and numbers.
func vector(t testing.TB, base, expr string, at time.Time) map[string]float64 {
	t.Helper()
	res, err := client.Get(base + "/api/v1/query?" + url.Values{"query": {expr}, "time": {fmt.Sprint(at.Unix())}}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Status string
		Data   struct {
			Result []struct {
				Metric model.Metric
				Value  [2]any
			}
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Status != "success" {
		t.Fatalf("%s: %s", expr, body)
	}
	values := map[string]float64{}
	for _, r := range answer.Data.Result {
		v, err := strconv.ParseFloat(r.Value[1].(string), 64)
		if err != nil {
			t.Fatal(err)
		}
		values[r.Metric.String()] = v
	}
	return values
}

// The monitor gives the numbers of a real Prometheus that has the same samples.
// The times asked for lie between scrapes: since Prometheus 3 a range no longer
// has a sample at its very beginning, and Debian has an older one.
func TestTheSameNumbersAsPrometheus(t *testing.T) {
	need(t, "prometheus", "prometheus")
	h := &history{families: map[string]*strings.Builder{}}
	w := newWorld(t, func(o *monitor.Options) { o.Retention = 100 * time.Hour })
	w.pass(480, func(i int) {
		if i == 201 {
			w.requests.Reset() // as a restart does
		}
		w.requests.WithLabelValues("200").Add(float64(30 + i%13))
		w.requests.WithLabelValues("503").Add(2.5 * float64(i%2))
		w.heads.Set(math.Sin(float64(i)/40) * 7)
		for j := range 20 {
			w.latency.Observe(float64((i*31+j*17)%200) / 100)
		}
		h.take(t, w.watched, w.now)
	})
	base := realPrometheus(t, h)
	for _, expr := range []string{
		`active_heads`, `requests_total`, `rate(requests_total[5m])`, `sum by (code) (increase(requests_total[10m]))`,
		`irate(requests_total[1m])`, `histogram_quantile(0.95, sum(rate(latency_seconds_bucket[5m])) by (le))`,
		`latency_seconds_sum / latency_seconds_count`, `max_over_time(active_heads[2m])`, `min by (job) (max_over_time(active_heads[2m])) < 2`,
		`avg_over_time(active_heads[1h])`, `deriv(active_heads[5m])`, `predict_linear(active_heads[30m], 3600)`, `quantile_over_time(0.9, active_heads[1h])`,
		`stddev_over_time(active_heads[20m])`, `resets(requests_total[2h])`, `changes(active_heads[10m])`, `delta(active_heads[10m])`,
		`sum(rate(requests_total{code=~"5.."}[5m])) / sum(rate(requests_total[5m]))`, `topk(1, requests_total)`, `absent(nothing)`,
		`requests_total offset 30m`, `max_over_time(rate(requests_total[5m])[30m:1m])`, `label_replace(active_heads, "x", "$1", "job", "(.*)")`,
	} {
		for _, step := range []int{100, 205, 300, 479} {
			at := start.Add(time.Duration(step)*15*time.Second + 7*time.Second)
			want, got := vector(t, base, expr, at), vector(t, w.url, expr, at)
			if len(got) != len(want) {
				t.Errorf("%s at step %d: %v, Prometheus has %v", expr, step, got, want)
				continue
			}
			for l, v := range want {
				if g, ok := got[l]; !ok || !(math.Abs(g-v) <= 1e-9*math.Abs(v)) && !(math.IsNaN(g) && math.IsNaN(v)) {
					t.Errorf("%s at step %d: %s is %v, Prometheus has %v", expr, step, l, g, v)
				}
			}
		}
	}
}

func pair(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

// What fires when is written as a test for promtool, which must agree.
func TestTheSameFiringTimesAsPromtool(t *testing.T) {
	tool := need(t, "promtool", "prometheus")
	text := strings.ReplaceAll(rules, "    keep_firing_for: 1m\n", "    for: 30s\n") // Debian's does not know it yet
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "rules.yml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(o *monitor.Options) { o.Rules = []byte(text) })
	random := rand.New(rand.NewPCG(1, 2))
	heads, values, fired := 3.0, []string{}, 0
	var cases strings.Builder
	w.pass(200, func(i int) {
		if random.IntN(4) == 0 {
			heads = float64(random.IntN(4))
		}
		w.heads.Set(heads)
		values = append(values, fmt.Sprint(heads))
		if i == 0 {
			return
		}
		// The alerts of the last step stand until this one is made.
		var data struct {
			Alerts []struct {
				State               string
				Labels, Annotations map[string]string
			}
		}
		if err := json.Unmarshal(w.get("/api/v1/alerts", nil).Data, &data); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"LowHeads", "NoHeads"} {
			fmt.Fprintf(&cases, "  - eval_time: %ds\n    alertname: %s\n    exp_alerts:\n", 15*(i-1), name)
			none := true
			for _, a := range data.Alerts {
				if a.State != "firing" || a.Labels["alertname"] != name {
					continue
				}
				fired, none = fired+1, false
				delete(a.Labels, "alertname")
				expected, err := json.Marshal(map[string]any{"exp_labels": a.Labels, "exp_annotations": a.Annotations})
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&cases, "    - %s\n", expected)
			}
			if none {
				cases.WriteString("      []\n")
			}
		}
	})
	if fired < 20 || fired > 300 {
		t.Fatalf("%d of 400 alerts fire, which shows little", fired)
	}
	test := fmt.Sprintf("rule_files: [rules.yml]\nevaluation_interval: 15s\ntests:\n- interval: 15s\n  input_series:\n"+
		"  - series: 'active_heads{instance=\"here\",job=\"routing-service\"}'\n    values: '%s'\n  alert_rule_test:\n%s", strings.Join(values, " "), cases.String())
	file := filepath.Join(dir, "test.yml")
	if err := os.WriteFile(file, []byte(test), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), tool, "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("promtool disagrees: %v: %.3000s", err, out)
	}
}
