package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"go.yaml.in/yaml/v3"

	"headway/internal/routing"
	"headway/tools/mixin"
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

// A number that may have a fraction is rounded, and not to thousandths of one, which
// humanize writes as 133.3m.
func TestNumbersOfAlertsAreRounded(t *testing.T) {
	number := regexp.MustCompile(`\{\{\s*\$value\s*(\|\s*([a-zA-Z0-9]+)[^}]*)?\}\}`)
	fraction := regexp.MustCompile(`\b(rate|increase|histogram_quantile|avg|avg_over_time)\(|/`)
	seen := 0
	for _, g := range mixin.Groups() {
		for _, a := range g.Alerts {
			for _, m := range number.FindAllStringSubmatch(a.Summary+a.Description, -1) {
				seen++
				if f := m[2]; f == "humanize" || f == "" && fraction.MatchString(a.Expr) {
					t.Errorf("%s: %s of %s is not rounded", a.Name, m[0], a.Expr)
				}
			}
		}
	}
	if seen < 20 {
		t.Errorf("%d numbers", seen)
	}
}

// A number in a description agrees with its noun, one of anything too: it stands
// after the noun.
func TestNumbersOfAlertsFollowTheirNouns(t *testing.T) {
	before := regexp.MustCompile(`(\$value|\| humanize|\| value|\| printf "%\.\df") \}\} +([a-zA-Z{]+ ?[a-z]*)`)
	seen := 0
	for _, g := range mixin.Groups() {
		for _, a := range g.Alerts {
			for _, text := range []string{a.Summary, a.Description} {
				seen += strings.Count(text, "$value")
				for _, m := range before.FindAllStringSubmatch(text, -1) {
					if m[2] != "a second" {
						t.Errorf("%s: %q stands before what it counts: %s", a.Name, m[0], text)
					}
				}
			}
		}
	}
	if seen < 20 {
		t.Errorf("%d numbers", seen)
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
	out := tool(t, "prometheus-alertmanager", "amtool", "check-config", "deploy/alertmanager/alertmanager.yml")
	if !strings.Contains(out, "inhibit rules") || !strings.Contains(out, "4 receivers") {
		t.Errorf("%s", out)
	}
}

// Every alert fires in one case and does not in another, as promtool has it.
func TestEveryAlertFiresAndIsQuiet(t *testing.T) {
	for _, g := range mixin.Groups() {
		for _, a := range g.Alerts {
			if len(a.Fires.Series) == 0 || len(a.Quiet.Series) == 0 && a.Name != "Watchdog" {
				t.Errorf("%s has no case in which it fires, or none in which it is quiet", a.Name)
			}
			if a.Summary == "" || a.Description == "" || a.Meaning == "" || len(a.Causes) == 0 || len(a.Do) == 0 {
				t.Errorf("%s does not say all there is to say of it", a.Name)
			}
			if !slices.Contains([]string{mixin.Critical, mixin.Warning, mixin.Info, mixin.None}, a.Severity) {
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
		for _, a := range g.Alerts {
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

// Each reason of a failed decision is one that the service owes or one that the
// caller asked for.
func TestEveryFailureIsOwedOrAskedFor(t *testing.T) {
	lists := map[string][]string{}
	for list, reasons := range map[string][]string{"owed": mixin.Owed, "asked": mixin.Asked} {
		for _, reason := range reasons {
			lists[reason] = append(lists[reason], list)
		}
	}
	for _, f := range routing.FailureReasons() {
		if on := lists[f]; len(on) != 1 {
			t.Errorf("%s is on the lists %q, want one of owed and asked", f, on)
		}
		delete(lists, f)
	}
	if len(lists) > 0 {
		t.Errorf("these are no reasons of headway_decision_failures_total: %v", lists)
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

// drawn is a panel as its JSON has it.
type drawn struct {
	Type, Title string
	Targets     []struct {
		Expr           string
		Instant, Range bool
	}
	FieldConfig struct {
		Defaults struct {
			NoValue    string
			Thresholds struct {
				Steps []struct {
					Color string
					Value *float64
				}
			}
		}
	}
	Options struct{ GraphMode string }
}

func panelsOf(t *testing.T, file string) (schemaVersion int, panels []drawn) {
	t.Helper()
	content, err := os.ReadFile(root + "/grafana/dashboards/" + file)
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		SchemaVersion int
		Panels        []drawn
	}
	if err := json.Unmarshal(content, &d); err != nil {
		t.Fatal(err)
	}
	return d.SchemaVersion, d.Panels
}

// What says how it is asks an instant: a range would show the last value that
// there was, long after the service went. Every stat has thresholds of its own,
// as the default ones paint what is well red. Nothing that has no traffic is left
// blank.
func TestPanelsTellHowItIsNow(t *testing.T) {
	kinds := map[string]int{}
	for _, file := range []string{"routing-service.json", "routing-service-enhanced.json"} {
		version, panels := panelsOf(t, file)
		if version > 38 {
			t.Errorf("%s has the schema version %d; Grafana 10.0 has 38, and a server refuses one that is newer than its own", file, version)
		}
		for _, p := range panels {
			kinds[p.Type]++
			now := slices.Contains([]string{"stat", "bargauge", "table"}, p.Type)
			for _, target := range p.Targets {
				if target.Instant != now || target.Range == now {
					t.Errorf("%s, %s: instant is %v and range %v", file, p.Title, target.Instant, target.Range)
				}
				if strings.Contains(target.Expr, "histogram_quantile") && !strings.HasSuffix(target.Expr, ">= 0") {
					t.Errorf("%s, %s shows NaN without traffic, as an empty axis: %s", file, p.Title, target.Expr)
				}
				if strings.Contains(target.Expr, "histogram_quantile") && p.FieldConfig.Defaults.NoValue == "" {
					t.Errorf("%s, %s does not say when there is no traffic", file, p.Title)
				}
			}
			steps := p.FieldConfig.Defaults.Thresholds.Steps
			if p.Type == "stat" && (len(steps) == 0 || len(steps) == 2 && steps[1].Value != nil && *steps[1].Value == 80 || p.Options.GraphMode != "none") {
				t.Errorf("%s, %s has the thresholds %v and the graph %q", file, p.Title, steps, p.Options.GraphMode)
			}
		}
	}
	if kinds["stat"] < 6 || kinds["bargauge"] < 2 || kinds["table"] < 1 || kinds["timeseries"] < 20 {
		t.Errorf("there are %v", kinds)
	}
}

// Every alert carries the label that Alertmanager keeps alerts back by and that
// distinguishes ours from others, and no expression has a label of that name.
func TestEveryAlertCarriesTheLabelOfTheService(t *testing.T) {
	content, err := os.ReadFile(root + "/prometheus/rules/routing-service.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Labels      map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(content, &f); err != nil {
		t.Fatal(err)
	}
	alerts := 0
	own := regexp.MustCompile(`\b` + mixin.AppLabel + `\b`)
	for _, g := range f.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" {
				continue
			}
			alerts++
			if r.Labels[mixin.AppLabel] != mixin.App || own.MatchString(r.Expr) {
				t.Errorf("%s has the labels %v and the expression %s", r.Alert, r.Labels, r.Expr)
			}
		}
	}
	if alerts < 30 {
		t.Errorf("there are %d alerts", alerts)
	}
}
