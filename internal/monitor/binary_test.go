package monitor_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// overlay is a file that has the go command build this package from its surface
// in testdata, with what of PromQL is in promql.
func overlay(t testing.TB, promql string) string {
	t.Helper()
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	replaced := map[string]string{} // by nothing, where no file is named
	for _, s := range sources {
		if !strings.HasSuffix(s, "_test.go") {
			replaced[filepath.Join(here, s)] = ""
		}
	}
	replaced[filepath.Join(here, "monitor.go")] = filepath.Join(here, "testdata/without/monitor.go")
	replaced[filepath.Join(here, "api.go")] = filepath.Join(here, promql)
	text, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "overlay.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// build builds the stripped binary and returns its size in MB.
func build(t testing.TB, flags ...string) float64 {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "headway")
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", binary}, flags...)
	if out, err := exec.CommandContext(t.Context(), "go", append(args, "../../cmd/headway")...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	info, err := os.Stat(binary)
	if err != nil {
		t.Fatal(err)
	}
	return float64(info.Size()) / 1e6
}

// BenchmarkBinary reports what the monitor adds to the stripped binary, and what
// PromQL's engine with its chunks would add alone.
func BenchmarkBinary(b *testing.B) {
	for b.Loop() {
		without := build(b, "-overlay", overlay(b, "testdata/without/promql.go"))
		b.ReportMetric(build(b)-without, "MB/monitor")
		b.ReportMetric(build(b, "-overlay", overlay(b, "testdata/promql/promql.go"))-without, "MB/promql")
	}
}

// The monitor adds what PromQL adds, and little more: 2.6 MB of 3.1. What it
// must not add is the database, discovery and clouds of Prometheus, 15 MB and
// more.
func TestTheMonitorAddsLittleToTheBinary(t *testing.T) {
	if added := build(t) - build(t, "-overlay", overlay(t, "testdata/without/promql.go")); added < 1 || added > 3.5 {
		t.Errorf("the monitor adds %.2f MB to the binary; 3.1 MB are known of", added)
	}
}
