package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"headway/internal/freeport"
	"headway/internal/local"
	"headway/internal/mockhead"
)

// step is one command of a tour and what the page says that it prints.
type step struct{ command, output string }

// tour reads the commands of a section of a page.
func tour(t *testing.T, page, title string) []step {
	t.Helper()
	text, err := os.ReadFile("../../" + page)
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## "+title+"\n")
	section, _, ended := strings.Cut(section, "\n## ")
	if !found || !ended {
		t.Fatalf("%s has no section %q", page, title)
	}
	var steps []step
	open, inside := false, false // a block, and one of a shell
	for line := range strings.Lines(section) {
		command, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case strings.HasPrefix(line, "```"):
			open = !open
			inside = open && line != "```python\n" && line != "```yaml\n"
		case !inside, strings.HasPrefix(line, "# "): // root's commands change the machine
		case isCommand:
			steps = append(steps, step{command: command})
		case len(steps) == 0:
			t.Fatalf("output before the first command: %s", line)
		default:
			steps[len(steps)-1].output += line
		}
	}
	return steps
}

// What differs from one run to the next, as the README says.
var (
	decisionID = regexp.MustCompile(`dec_[0-9a-f]{32}`)
	requestID  = regexp.MustCompile(`"request_id":"[0-9a-f]{24}"`)
	port       = regexp.MustCompile(`127\.0\.0\.1:[0-9]+`)
	timestamp  = regexp.MustCompile(`20[0-9-]{8}T[0-9:.]+Z`)
	instance   = regexp.MustCompile(`localhost:[0-9]+`)
	unixTime   = regexp.MustCompile(`\[[0-9]{10}(\.[0-9]+)?,`)
	cost       = regexp.MustCompile(`cost [0-9.e-]+`)
	request    = regexp.MustCompile(`\[request [0-9a-f]{24}\]`)
	hash       = regexp.MustCompile(`\b[0-9a-f]{64}\b`)
	recordID   = regexp.MustCompile(`\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b`)
	node       = regexp.MustCompile(`"node":"[^"]+"`)
	requestRow = regexp.MustCompile(`\b[0-9a-f]{24}\b`) // of a table
	keyID      = regexp.MustCompile(`\b[0-9a-f]{12}\b`)
	howLong    = regexp.MustCompile(`\b[0-9]+(\.[0-9]+)?[smhd]\b`)
	created    = regexp.MustCompile(`"created":[0-9]+`)
	answerID   = regexp.MustCompile(`chatcmpl-[0-9a-f]+`)
	answerText = regexp.MustCompile(`"content":"[a-z ]*"`)
	finish     = regexp.MustCompile(`"finish_reason":"(?:length|stop)"`)
	generated  = regexp.MustCompile(`"(completion|total)_tokens":[0-9]+`)
	overhead   = regexp.MustCompile(`Overhead-Ms: [0-9.]+`)
	columns    = regexp.MustCompile(` {2,}`) // of a table, as wide as what is in them
)

func withoutOwn(s string) string {
	for _, own := range []struct {
		pattern *regexp.Regexp
		name    string
	}{{decisionID, "dec_ID"}, {requestID, `"request_id":"ID"`}, {port, "127.0.0.1:PORT"}, {timestamp, "TIME"}, {instance, "localhost:8080"}, {unixTime, "[TIME,"}, {cost, "cost C"}, {request, "[request ID]"}, {hash, "HASH"}, {recordID, "UUID"}, {node, `"node":"NODE"`}, {requestRow, "REQUEST"}, {keyID, "KEY"}, {howLong, "T"}, {created, `"created":TIME`}, {answerID, "ID"}, {answerText, `"content":"TEXT"`}, {finish, `"finish_reason":"R"`}, {generated, `"${1}_tokens":N`}, {overhead, "Overhead-Ms: T"}, {columns, "  "}} {
		s = own.pattern.ReplaceAllString(s, own.name)
	}
	return strings.TrimSuffix(s, "\n")
}

// reproduces runs the commands of a tour in one shell, with the names that
// replace gives for those of the page, and compares what they print.
func reproduces(t *testing.T, steps []step, dir string, replace *strings.Replacer) {
	t.Helper()
	debian(t, "bash", "bash")
	debian(t, "curl", "curl")
	const end = "\x1e" // after each command's output
	var script strings.Builder
	for _, s := range steps {
		fmt.Fprintf(&script, "%s\nstatus=$?; printf '%s'; (exit $status)\n", replace.Replace(s.command), end)
	}
	script.WriteString("exit 0\n")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // of which until knows nothing
	defer cancel()
	shell := exec.CommandContext(ctx, "bash")
	shell.WaitDelay = 10 * time.Second // for what it has begun
	shell.Dir = dir
	shell.Stdin = strings.NewReader(script.String())
	var stderr bytes.Buffer
	shell.Stderr = &stderr
	out, err := shell.Output()
	outputs := strings.Split(string(out), end)
	if err != nil {
		t.Fatalf("$ %s%v after\n%s%s", steps[min(len(outputs), len(steps))-1].command, err, outputs[len(outputs)-1], &stderr)
	}
	if len(outputs) != len(steps)+1 {
		t.Fatalf("%d outputs of %d commands; %s", len(outputs)-1, len(steps), &stderr)
	}
	for i, s := range steps {
		if got, want := withoutOwn(outputs[i]), withoutOwn(s.output); got != want {
			t.Errorf("$ %sprinted\n%s\nand the page says\n%s%s", s.command, outputs[i], s.output, &stderr)
		}
	}
}

// withDemo is a service with the demo's eight heads.
func withDemo(t *testing.T, args ...string) *process {
	t.Helper()
	p := serve(t, t.TempDir(), args...)
	demo := command(t, "demo", "--plain", "--server", p.url)
	if err := demo.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = demo.Process.Signal(os.Interrupt); _ = demo.Wait() })
	p.until(patience, "active_heads 8")
	return p
}

func TestTheTourInTheREADMEReproduces(t *testing.T) {
	steps := tour(t, "README.md", "A tour in five minutes")
	if len(steps) < 10 {
		t.Fatalf("found %d commands in the tour", len(steps))
	}
	p := withDemo(t)
	reproduces(t, steps, "", strings.NewReplacer("localhost:8080", strings.TrimPrefix(p.url, "http://")))
}

func TestTheFirstMinuteInTheREADMEReproduces(t *testing.T) {
	steps := tour(t, "README.md", "The first minute")
	if len(steps) != 6 {
		t.Fatalf("found %d commands in the first minute", len(steps))
	}
	p := withDemo(t)
	reproduces(t, steps, t.TempDir(), strings.NewReplacer("localhost:8080", strings.TrimPrefix(p.url, "http://")))
}

// The way from nothing to an alert that arrives, with the real Prometheus and
// Alertmanager. Only their waits are shorter than the page's.
func TestTheTourInTheMonitoringGuideReproduces(t *testing.T) {
	t.Parallel()
	debian(t, "prometheus", "prometheus")
	debian(t, "prometheus-alertmanager", "prometheus-alertmanager")
	debian(t, "perl", "perl-base")
	steps := tour(t, "docs/monitoring.md", "From nothing to an alert")
	if len(steps) < 11 {
		t.Fatalf("found %d commands in the tour", len(steps))
	}
	p := withDemo(t, "--monitor-interval", "1s", "--lease-base-interval", "10s") // a busy machine is no alert
	dir, service, prometheus, alertmanager := t.TempDir(), strings.TrimPrefix(p.url, "http://"), freeport.Address(t), freeport.Address(t)
	own := []string{"localhost:8080", service, "localhost:9090", prometheus, "localhost:9093", alertmanager, "localhost:9095", freeport.Address(t)}
	commands := strings.NewReplacer(append(own,
		"prometheus --config.file=prometheus/prometheus.yml", "prometheus --config.file=prometheus/prometheus.yml --web.listen-address="+prometheus,
		"prometheus-alertmanager --config", "prometheus-alertmanager --web.listen-address="+alertmanager+" --config")...)
	files := strings.NewReplacer(append(own, "_interval: 15s", "_interval: 1s", "for: 1m\n", "for: 2s\n", "group_wait: 10s", "group_wait: 1s")...)
	for _, file := range []string{"prometheus/prometheus.yml", "prometheus/rules/routing-service.rules.yml", "deploy/alertmanager/alertmanager.yml", "deploy/alertmanager/receiver"} {
		content, err := os.ReadFile("../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, file), files.Replace(string(content)))
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "data"), 0o750), os.Chmod(filepath.Join(dir, "deploy/alertmanager/receiver"), 0o700)); err != nil {
		t.Fatal(err)
	}
	said, err := os.ReadFile(filepath.Join(p.dataDir, local.File))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "data", local.File), string(said)) // whose data directory the page has as well
	reproduces(t, steps, dir, commands)
}

func TestTheTourOfRealTimeReproduces(t *testing.T) {
	steps := tour(t, "docs/realtime.md", "A tour")
	if len(steps) < 4 {
		t.Fatalf("found %d commands in the tour", len(steps))
	}
	p := withDemo(t)
	reproduces(t, steps, "", strings.NewReplacer("localhost:8080", strings.TrimPrefix(p.url, "http://")))
}

func TestTheTourOfTheQueueReproduces(t *testing.T) {
	steps := tour(t, "docs/queue.md", "A tour")
	if len(steps) < 6 {
		t.Fatalf("found %d commands in the tour", len(steps))
	}
	p := withDemo(t, "--queue-listen", "127.0.0.1:0")
	t.Setenv(asHeadway, "1")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	reproduces(t, steps, "", strings.NewReplacer(
		"nats ", natsTool(t)+" --server "+p.announced().QueueURL+" ",
		"bin/headway queue ls", self+" queue ls --server "+p.url, "bin/headway queue purge", self+" queue purge --server "+p.url))
}

// until scrapes until the line is there.
func (p *process) until(limit time.Duration, line string) {
	p.Helper()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	late := time.After(limit)
	for {
		_, body, err := p.do("GET", "/metrics", "")
		if err == nil && strings.Contains(string(body), "\n"+line+"\n") {
			return
		}
		select {
		case <-again.C:
		case <-late:
			p.Fatalf("no scrape said %q in %v (%v)", line, limit, err)
		}
	}
}

// vllmLoop starts the manual's loop for vLLM between a service and a server.
func vllmLoop(t *testing.T, service, server string) {
	t.Helper()
	for program, pkg := range map[string]string{"bash": "bash", "curl": "curl", "awk": "mawk", "sed": "sed"} {
		debian(t, program, pkg)
	}
	manual, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	_, loop, found := strings.Cut(string(manual), "\n```bash\n")
	loop, _, ended := strings.Cut(loop, "\n```\n")
	if !found || !ended {
		t.Fatal("the manual has no loop")
	}
	loop = strings.NewReplacer("http://127.0.0.1:8080", service, "http://127.0.0.1:8000", server, "sleep 2", "sleep 0.2").Replace(loop)
	shell := exec.CommandContext(t.Context(), "bash", "-c", loop)
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = shell.Process.Kill(); _ = shell.Wait() })
}

// TestTheLoopForVLLMInTheManual runs the manual's loop beside a server that
// speaks as vLLM does: it registers, reports the load, and registers again when
// the router has forgotten the head.
func TestTheLoopForVLLMInTheManual(t *testing.T) {
	engine, err := mockhead.Start(t.Context(), mockhead.Options{Models: []string{"llama-3.1-8b"}})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	p := serve(t, t.TempDir())
	vllmLoop(t, p.url, engine.URL())
	p.until(patience, "active_heads 1")
	if head := string(p.must(200, "GET", "/api/v1/heads/gpu-7", "")); !strings.Contains(head, `"in_flight":0,"queued":0`) {
		t.Errorf("the load is not reported: %s", head)
	}
	p.must(204, "DELETE", "/api/v1/heads/gpu-7", "")
	p.until(patience, "active_heads 1")
}

// A server whose metrics do not come in time, or say nothing of requests, may be
// busy: the loop reports it without a load, and not as idle.
func TestTheLoopForVLLMLeavesOutWhatItDoesNotKnow(t *testing.T) {
	for name, metrics := range map[string]http.HandlerFunc{
		"slow":   func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"failed": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"other":  func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("python_info 1\n")) },
	} {
		t.Run(name, func(t *testing.T) {
			mux := http.NewServeMux()
			mux.HandleFunc("/health", func(http.ResponseWriter, *http.Request) {})
			mux.HandleFunc("/metrics", metrics)
			server := httptest.NewServer(mux)
			defer server.Close()
			p := serve(t, t.TempDir())
			vllmLoop(t, p.url, server.URL)
			p.until(patience, "active_heads 1")
			var head struct{ Load map[string]any }
			if err := json.Unmarshal(p.must(200, "GET", "/api/v1/heads/gpu-7", ""), &head); err != nil {
				t.Fatal(err)
			}
			for _, field := range []string{"in_flight", "queued"} {
				if n, known := head.Load[field]; known {
					t.Errorf("%s is reported as %v", field, n)
				}
			}
		})
	}
}

func TestTheTourOfTheDataPlaneReproduces(t *testing.T) {
	steps := tour(t, "docs/data-plane.md", "Try it")
	if len(steps) != 8 {
		t.Fatalf("found %d commands in the tour", len(steps))
	}
	p := withDemo(t)
	reproduces(t, steps, t.TempDir(), strings.NewReplacer("localhost:8080", strings.TrimPrefix(p.url, "http://")))
}
