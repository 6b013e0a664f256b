package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"

	"headway/internal/mixin"
)

const root = "../../.."

var endsWithMetric = regexp.MustCompile(`Metric: [a-zA-Z_, ]+\.$`)

// What is committed is what the code writes.
func TestTheFilesAreGenerated(t *testing.T) {
	files, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the code writes (%v); run: make generate", name, err)
		}
	}
	if len(files) < 7 {
		t.Fatalf("%d files are generated", len(files))
	}
}

// tool runs a program of Debian's at the root of the repository.
func tool(t *testing.T, debian, program string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed; on Debian: apt-get install -y --no-install-recommends %s", program, debian)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestPrometheusTakesTheFiles(t *testing.T) {
	out := tool(t, "prometheus", "promtool", "check", "config", "prometheus/prometheus.yml")
	if !strings.Contains(out, "1 rule files found") || !strings.Contains(out, "rules found") {
		t.Errorf("%s", out)
	}
}

func TestAlertmanagerTakesTheFile(t *testing.T) {
	out := tool(t, "prometheus-alertmanager", "amtool", "check-config", "alertmanager/alertmanager.yml")
	if !strings.Contains(out, "inhibit rules") || !strings.Contains(out, "3 receivers") {
		t.Errorf("%s", out)
	}
}

// Every alert fires in one case and does not in another, as promtool has it.
func TestEveryAlertFiresAndIsQuiet(t *testing.T) {
	for _, g := range mixin.Groups() {
		for i := range g.Alerts {
			a := &g.Alerts[i]
			if len(a.Fires.Series) == 0 || len(a.Quiet.Series) == 0 && a.Name != "Watchdog" {
				t.Errorf("%s has no case in which it fires, or none in which it is quiet", a.Name)
			}
			if a.Summary == "" || a.Description == "" || a.Meaning == "" || len(a.Causes) == 0 || len(a.Do) == 0 {
				t.Errorf("%s does not say all there is to say of it", a.Name)
			}
			if !slices.Contains([]string{mixin.Critical, mixin.Warning, mixin.None}, a.Severity) {
				t.Errorf("%s has the severity %q", a.Name, a.Severity)
			}
		}
	}
	files, err := filepath.Glob(root + "/prometheus/tests/*.yml")
	if err != nil || len(files) < 2 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			t.Parallel()
			tool(t, "prometheus", "promtool", "test", "rules", "prometheus/tests/"+filepath.Base(f))
		})
	}
}

// The six alerts of the guide's list and the four of its example are there,
// with its thresholds.
func TestTheGuidesAlertsAreThere(t *testing.T) {
	want := map[string]string{
		"HighRoutingErrors": `> 0.1`, "LowActiveHeads": `< 2`, "HighHTTPErrors": `> 0.05`, "HighLatency": `> 1`,
		"HighHTTPLatency": `> 1`, "HighMemoryUsage": `process_resident_memory_bytes > 1e9`, "HighCPUUsage": `> 0.8`,
	}
	for _, g := range mixin.Groups() {
		for i := range g.Alerts {
			a := &g.Alerts[i]
			threshold, named := want[a.Name]
			if !named {
				continue
			}
			delete(want, a.Name)
			if !strings.Contains(a.Expr, threshold) || mixin.Duration(a.For) != "5m" {
				t.Errorf("%s: %s for %s", a.Name, a.Expr, mixin.Duration(a.For))
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}

// The SDK reads both dashboards strictly, and they have the panels of the guide
// under its titles.
func TestTheDashboardsAreGrafanas(t *testing.T) {
	basic := []string{"Routing Decisions by Strategy", "Active Heads", "HTTP Requests", "Head Operations", "Cache Performance"}
	for file, titles := range map[string][]string{
		"routing-service.json": basic,
		"routing-service-enhanced.json": append(slices.Clone(basic), "HTTP Request Latency", "HTTP Error Rates", "Routing Errors",
			"System CPU and Memory Usage", "Real-time Connections", "Message Queue Activity",
			"Routing Decisions by Model Type and Region", "External Service Errors and Success"),
	} {
		content, err := os.ReadFile(root + "/grafana/dashboards/" + file)
		if err != nil {
			t.Fatal(err)
		}
		var d dashboard.Dashboard
		if err := d.UnmarshalJSONStrict(content); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		var got []string
		for _, p := range d.Panels {
			if p.Panel == nil {
				continue
			}
			got = append(got, *p.Panel.Title)
			if p.Panel.Type != "row" && (p.Panel.Description == nil || !endsWithMetric.MatchString(*p.Panel.Description)) {
				t.Errorf("%s: the description of %q does not end with its metric", file, *p.Panel.Title)
			}
		}
		for _, title := range titles {
			if !slices.Contains(got, title) {
				t.Errorf("%s has no panel %q", file, title)
			}
		}
		if file == "routing-service.json" && len(got) != len(basic) {
			t.Errorf("%s has the panels %q", file, got)
		}
	}
}
