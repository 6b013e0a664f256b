package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"headway/internal/freeport"
	"headway/tools/mixin"
)

// patience is for what happens at once on a machine that is not busy.
const patience = 3 * time.Minute

// debian finds a program of Debian's, or skips the test and says how to get it.
func debian(t testing.TB, program, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is missing; get it with: apt-get install -y --no-install-recommends %s", program, pkg)
	}
	return path
}

// started runs a program beside the test until it ends.
func started(t testing.TB, ready string, path string, args ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Dir = t.TempDir()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(path), out.String())
		}
	})
	eventually(t, patience, filepath.Base(path)+" is ready", func() error {
		_, err := fetch(ready)
		return err
	})
}

// eventually asks until there is no error, every 100 ms.
func eventually(t testing.TB, within time.Duration, what string, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s: %v", within, what, err)
		}
		<-time.After(100 * time.Millisecond)
	}
}

// fetch returns the body of an answer of status 200.
func fetch(address string) ([]byte, error) {
	client := http.Client{Timeout: 10 * time.Second}
	res, err := client.Get(address)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, body)
	}
	return body, err
}

// prometheusOf is Prometheus' HTTP API at an address, its own or ours.
type prometheusOf struct{ base string }

func (p prometheusOf) get(path string, params url.Values, data any) error {
	body, err := fetch(p.base + path + "?" + params.Encode())
	if err != nil {
		return err
	}
	answer := struct {
		Status string
		Data   any
	}{Data: data}
	return json.Unmarshal(body, &answer)
}

// sample is an element of an instant vector.
type sample struct {
	Metric map[string]string
	Value  [2]any
}

func (p prometheusOf) query(expr string) (vector []sample, err error) {
	var data struct{ Result []sample }
	err = p.get("/api/v1/query", url.Values{"query": {expr}}, &data)
	return data.Result, err
}

// startPrometheus runs a real Prometheus with the shipped configuration, but for
// its times and targets: every second instead of every 15, and windows and
// "for" of the rules divided by scale.
func startPrometheus(t testing.TB, target, alertmanager string, scale int) prometheusOf {
	t.Helper()
	program := debian(t, "prometheus", "prometheus")
	dir := t.TempDir()
	rules, err := mixin.RuleFile(scaled(mixin.Groups(), scale))
	if err != nil {
		t.Fatal(err)
	}
	shipped, err := os.ReadFile("../../prometheus/prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	config := strings.NewReplacer("15s", "1s", "localhost:8080", target, "localhost:9093", alertmanager).Replace(string(shipped))
	if strings.Count(config, "1s") != 2 || !strings.Contains(config, target) || !strings.Contains(config, alertmanager) {
		t.Fatalf("the shipped prometheus.yml has another form than this test knows:\n%s", config)
	}
	write(t, filepath.Join(dir, "rules/routing-service.rules.yml"), string(rules))
	write(t, filepath.Join(dir, "prometheus.yml"), config)
	addr := freeport.Address(t)
	started(t, "http://"+addr+"/-/ready", program, "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr, "--log.level=warn", "--rules.alert.resend-delay=1s")
	return prometheusOf{"http://" + addr}
}

// startAlertmanager runs a real Alertmanager with the shipped configuration, but
// for its times and receivers.
func startAlertmanager(t testing.TB, receiver string) (addr string) {
	t.Helper()
	program := debian(t, "prometheus-alertmanager", "prometheus-alertmanager")
	shipped, err := os.ReadFile("../../deploy/alertmanager/alertmanager.yml")
	if err != nil {
		t.Fatal(err)
	}
	config := strings.NewReplacer("group_wait: 30s", "group_wait: 1s", "group_wait: 10s", "group_wait: 1s", "group_interval: 5m", "group_interval: 1s",
		"group_interval: 1m", "group_interval: 1s", "http://localhost:9095", receiver).Replace(string(shipped))
	file := filepath.Join(t.TempDir(), "alertmanager.yml")
	write(t, file, config)
	addr = freeport.Address(t)
	started(t, "http://"+addr+"/-/ready", program, "--config.file="+file, "--storage.path="+t.TempDir(),
		"--web.listen-address="+addr, "--cluster.listen-address=", "--log.level=warn")
	return addr
}

func write(t testing.TB, file, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// pager takes what Alertmanager, or our own monitor, posts.
type pager struct {
	url string
	mu  sync.Mutex
	got []page
}

// page is an alert as a webhook gets it.
type page struct {
	Receiver string // the path
	Status   string
	Labels   map[string]string
	StartsAt time.Time
}

func startPager(t testing.TB) *pager {
	t.Helper()
	p := &pager{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body struct{ Alerts []page }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Errorf("what is posted: %v", err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, a := range body.Alerts {
			a.Receiver = r.URL.Path
			p.got = append(p.got, a)
		}
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	p.url = "http://" + l.Addr().String()
	return p
}

// has is nil if an alert came with the status.
func (p *pager) has(receiver, alert, status string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.got {
		if a.Labels["alertname"] == alert && a.Status == status && a.Receiver == receiver {
			return nil
		}
	}
	return fmt.Errorf("no %s of %s at %s among %v", status, alert, receiver, p.got)
}

// since are the alerts that came and began to fire after a time, the dead man's
// switch aside.
func (p *pager) since(begin time.Time) (pages []page) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.got {
		if a.Status == "firing" && a.Receiver != "/watchdog" && a.StartsAt.After(begin) {
			pages = append(pages, a)
		}
	}
	return pages
}

// scaled returns the groups with every "for", every window of a rate and every
// interval divided, so that a test does not have to wait; the rest is the same.
// The alerts are changed in place.
func scaled(groups []mixin.Group, by int) []mixin.Group {
	out := make([]mixin.Group, len(groups))
	for i, g := range groups {
		if g.Interval > 0 {
			g.Interval = max(g.Interval/time.Duration(by), time.Second)
		}
		g.Records = slices.Clone(g.Records)
		for j := range g.Records {
			g.Records[j].Expr = scaleWindows(g.Records[j].Expr, by)
		}
		for _, a := range g.Alerts {
			a.For /= time.Duration(by)
			a.Expr = scaleWindows(a.Expr, by)
		}
		out[i] = g
	}
	return out
}

// scaleWindows divides the durations in square brackets.
func scaleWindows(expr string, by int) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(expr, "[")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		window, after, _ := strings.Cut(rest, "]")
		if d, err := time.ParseDuration(strings.Replace(window, "d", "h", 1)); err == nil {
			if strings.HasSuffix(window, "d") {
				d *= 24
			}
			window = mixin.Duration(max(d/time.Duration(by), 4*time.Second))
		}
		b.WriteString("[" + window + "]")
		expr = after
	}
}
