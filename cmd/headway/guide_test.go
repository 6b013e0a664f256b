package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

var update = flag.Bool("update", false, "write the table of metrics into the monitoring guide")

// described is what the guide says of a metric.
type described struct {
	kind, help string
	labels     map[string]bool
}

// families reads what a scrape says of each metric.
func families(t *testing.T, scrape []byte) map[string]*described {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	parsed, err := parser.TextToMetricFamilies(bufio.NewReader(bytes.NewReader(scrape)))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*described{}
	for name, f := range parsed {
		d := &described{strings.ToLower(f.GetType().String()), f.GetHelp(), map[string]bool{}}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				d.labels[l.GetName()] = true
			}
		}
		all[name] = d
	}
	return all
}

var ours = regexp.MustCompile(`^(routing_|head_|active_heads|http_|cache_|external_|process_cpu_seconds_total$|process_resident_memory_bytes$|sse_|websocket_|message_queue_)`)

// metricTable is the guide's section about metrics.
func metricTable(all map[string]*described) string {
	var b strings.Builder
	table := func(title string, is func(string) bool) {
		fmt.Fprintf(&b, "\n### %s\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n", title)
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if !is(name) {
				continue
			}
			d := all[name]
			var labels []string
			for _, l := range slices.Sorted(maps.Keys(d.labels)) {
				labels = append(labels, "`"+l+"`")
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, d.kind, strings.Join(labels, ", "), strings.ReplaceAll(d.help, "|", `\|`))
		}
	}
	table("Of the guide", ours.MatchString)
	table("Headway's own", func(name string) bool { return strings.HasPrefix(name, "headway_") })
	table("Of the process", func(name string) bool {
		return !ours.MatchString(name) && !strings.HasPrefix(name, "headway_")
	})
	return b.String() + "\n"
}

// The guide lists every metric that the service has, with its labels and its
// meaning, and no other.
func TestTheGuideListsEveryMetric(t *testing.T) {
	t.Parallel()
	const file, begin, end = "../../docs/monitoring.md", "<!-- metrics: begin -->\n", "<!-- metrics: end -->\n"
	guide, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(guide), begin)
	old, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no table between %q and %q", file, begin, end)
	}
	dir := t.TempDir()
	if out, err := command(t, "tls", "init", "--dir", dir, "--host", "127.0.0.1").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	policy := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(policy, []byte("default_strategy: least_loaded\nshadow: [random]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := serve(t, t.TempDir(), "--policy", policy, "--redis-mode", "embedded", "--redis-listen", "127.0.0.1:0",
		"--tls-cert-file", dir+"/server.pem", "--tls-key-file", dir+"/server-key.pem")
	p.url = strings.Replace(p.url, "http:", "https:", 1)
	p.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	p.must(201, "POST", "/api/v1/heads", headBody("a"))
	for range 2 { // the second one sees the first in flight
		p.must(200, "POST", "/api/v1/decisions", `{"model_type":"m"}`)
	}
	table := metricTable(families(t, p.must(200, "GET", "/metrics", "")))
	if old == table {
		return
	}
	if !*update {
		t.Fatalf("the table of metrics in %s is out of date; run: go test ./cmd/headway -run TheGuideLists -update", file)
	}
	if err := os.WriteFile(file, []byte(before+begin+table+end+after), 0o600); err != nil {
		t.Fatal(err)
	}
}
