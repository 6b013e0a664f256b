package monitor_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// BenchmarkBinary reports what the monitor adds to the stripped binary, and what
// PromQL's engine with its chunks would add alone. The binary is built with this
// package, and with the surface in testdata in its place.
func BenchmarkBinary(b *testing.B) {
	sources, err := filepath.Glob("*.go")
	if err != nil {
		b.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		b.Fatal(err)
	}
	none := map[string]string{} // no file, as the go command writes it
	for _, s := range sources {
		if !strings.HasSuffix(s, "_test.go") {
			none[filepath.Join(here, s)] = ""
		}
	}
	size := func(replaced map[string]string) float64 {
		b.Helper()
		dir := b.TempDir()
		overlay, err := json.Marshal(map[string]any{"Replace": replaced})
		if err != nil {
			b.Fatal(err)
		}
		file, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "headway")
		if err := os.WriteFile(file, overlay, 0o600); err != nil {
			b.Fatal(err)
		}
		build := exec.CommandContext(b.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-overlay", file, "-o", binary, "headway/cmd/headway")
		if out, err := build.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		info, err := os.Stat(binary)
		if err != nil {
			b.Fatal(err)
		}
		return float64(info.Size()) / 1e6
	}
	with := func(promql string) map[string]string {
		replaced := map[string]string{
			filepath.Join(here, "monitor.go"): filepath.Join(here, "testdata/without/monitor.go"),
			filepath.Join(here, "api.go"):     filepath.Join(here, promql),
		}
		for name := range none {
			if _, ok := replaced[name]; !ok {
				replaced[name] = ""
			}
		}
		return replaced
	}
	for b.Loop() {
		without := size(with("testdata/without/promql.go"))
		b.ReportMetric(size(nil)-without, "MB/monitor")
		b.ReportMetric(size(with("testdata/promql/promql.go"))-without, "MB/promql")
	}
}
