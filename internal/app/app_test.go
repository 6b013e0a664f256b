package app_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/spf13/pflag"
	"go.uber.org/goleak"

	"headway/api"
	"headway/client"
	"headway/internal/app"
	"headway/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run starts the whole service on a free port and returns its address and a
// function that stops it and says how that went.
func run(t *testing.T, change ...func(*config.Config)) (url string, stop func() error) {
	t.Helper()
	c := defaults(t)
	c.Redis.Mode = "off"
	for _, f := range change {
		f(&c)
	}
	c.Listen, c.DataDir, c.HTTP.LameDuck = "127.0.0.1:0", filepath.Join(t.TempDir(), "data"), time.Millisecond
	c.Audit.File = filepath.Join(t.TempDir(), "audit.log")
	a, err := app.New(t.Context(), app.Options{Config: c, Version: "v0.0.0-test", Commit: "0123456", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	stop = func() error { cancel(); return <-ended }
	return "http://" + a.Addr().String(), stop
}

// ask sends one request and wants the status.
func ask(t *testing.T, status int, method, url, body string) []byte {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	a, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil || a.StatusCode != status {
		t.Fatalf("%s %s: %d %s, %v; want %d", method, url, a.StatusCode, text, err, status)
	}
	return text
}

func scrape(t *testing.T, url string) map[string]*dto.MetricFamily {
	t.Helper()
	text := ask(t, http.StatusOK, http.MethodGet, url+"/metrics", "")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// promise is a metric with all of its labels.
type promise struct {
	name   string
	kind   dto.MetricType
	labels []string
}

// promised are the metrics that dashboards and alerts rely on. Each has a series from the first scrape on: a rate over one
// that appears with its first event misses that event, and an alert over one
// that is not there never fires.
var promised = []promise{
	{"routing_decisions_total", dto.MetricType_COUNTER, []string{"strategy", "model_type", "region"}},
	{"head_registrations_total", dto.MetricType_COUNTER, nil},
	{"head_status_updates_total", dto.MetricType_COUNTER, nil},
	{"active_heads", dto.MetricType_GAUGE, nil},
	{"http_requests_total", dto.MetricType_COUNTER, []string{"method", "endpoint", "status"}},
	{"http_request_duration_seconds", dto.MetricType_HISTOGRAM, nil},
	{"cache_hits_total", dto.MetricType_COUNTER, nil},
	{"cache_misses_total", dto.MetricType_COUNTER, nil},
	{"external_service_calls_total", dto.MetricType_COUNTER, []string{"service", "status"}},
	{"process_cpu_seconds_total", dto.MetricType_COUNTER, nil},
	{"process_resident_memory_bytes", dto.MetricType_GAUGE, nil},
	{"sse_connections", dto.MetricType_GAUGE, nil},
	{"websocket_connections", dto.MetricType_GAUGE, nil},
	{"message_queue_messages_total", dto.MetricType_COUNTER, []string{"queue", "status"}},
}

// check wants the promised metrics and no others of such names.
func check(t *testing.T, families map[string]*dto.MetricFamily) {
	t.Helper()
	for _, p := range promised {
		family := families[p.name]
		if family == nil || len(family.GetMetric()) == 0 {
			t.Errorf("%s is not there", p.name)
			continue
		}
		if family.GetType() != p.kind {
			t.Errorf("%s is a %s; want a %s", p.name, family.GetType(), p.kind)
		}
		want := slices.Sorted(slices.Values(p.labels))
		for _, m := range family.GetMetric() {
			var have []string
			for _, l := range m.GetLabel() {
				if have = append(have, l.GetName()); l.GetValue() == "" {
					t.Errorf("%s has an empty %s", p.name, l.GetName())
				}
			}
			if slices.Sort(have); !slices.Equal(have, want) {
				t.Errorf("%s has the labels %q; want %q", p.name, have, want)
			}
		}
	}
	for name, family := range families {
		known := slices.ContainsFunc(promised, func(p promise) bool { return p.name == name })
		// Names of our own differ from promised ones, and from those that every
		// process has, by their beginning.
		if !known && !strings.HasPrefix(name, "headway_") && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") && !strings.HasPrefix(name, "promhttp_") {
			t.Errorf("%s is neither promised nor under headway_", name)
		}
		if family.GetHelp() == "" {
			t.Errorf("%s does not say what it is", name)
		}
	}
}

// value is the value of one series.
func value(t *testing.T, families map[string]*dto.MetricFamily, name string, labels ...string) float64 {
	t.Helper()
	for _, m := range families[name].GetMetric() {
		match := true
		for i := 0; i < len(labels); i += 2 {
			match = match && slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool {
				return l.GetName() == labels[i] && l.GetValue() == labels[i+1]
			})
		}
		if match {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	t.Errorf("no series %s%q", name, labels)
	return -1
}

func TestPromisedMetricsAreThereFromTheFirstScrape(t *testing.T) {
	url, stop := run(t)
	families := scrape(t, url)
	check(t, families)
	for _, s := range [][]string{
		{"routing_decisions_total", "strategy", "none"},
		{"routing_decisions_total", "strategy", "adaptive"},
		{"http_requests_total", "method", "POST", "endpoint", "/api/v1/decisions", "status", "200"},
		{"http_requests_total", "method", "PUT", "endpoint", "/api/v1/heads/{id}/status", "status", "200"},
		{"external_service_calls_total", "service", "redis", "status", "error"},
		{"message_queue_messages_total", "queue", "dead_letters", "status", "dead_lettered"},
		{"active_heads"},
	} {
		if got := value(t, families, s[0], s[1:]...); got != 0 {
			t.Errorf("%q is %g before anything happened", s, got)
		}
	}
	if err := stop(); err != nil {
		t.Errorf("it stopped with: %v", err)
	}
}

func TestPromisedMetricsCountWhatTheySay(t *testing.T) {
	url, stop := run(t)
	head := `{"id":"a","endpoint":"http://10.0.0.1:8000","model_type":"llama-3.1-8b","region":"eu-west","status":"active"}`
	var registered api.RegistrationAnswer
	if err := json.Unmarshal(ask(t, http.StatusCreated, http.MethodPost, url+"/api/v1/heads", head), &registered); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		ask(t, http.StatusOK, http.MethodPut, url+"/api/v1/heads/a/status", fmt.Sprintf(`{"epoch":%d,"status":"active"}`, registered.Lease.Epoch))
	}
	for range 3 {
		ask(t, http.StatusOK, http.MethodPost, url+"/api/v1/decisions", `{"model_type":"llama-3.1-8b","strategy":"round_robin"}`)
	}
	ask(t, http.StatusNotFound, http.MethodPost, url+"/api/v1/decisions", `{"model_type":"nobody-knows","region":"nowhere"}`)
	ask(t, http.StatusServiceUnavailable, http.MethodPost, url+"/api/v1/decisions", `{"model_type":"llama-3.1-8b","region":"nowhere","region_mode":"require"}`)
	ask(t, http.StatusNotFound, http.MethodGet, url+"/nothing/here", "")
	families := scrape(t, url)
	check(t, families)
	for _, s := range []struct {
		want   float64
		series []string
	}{
		{3, []string{"routing_decisions_total", "strategy", "round_robin", "model_type", "llama-3.1-8b", "region", "eu-west"}},
		{1, []string{"routing_decisions_total", "strategy", "none", "model_type", "other", "region", "other"}},
		{1, []string{"routing_decisions_total", "strategy", "none", "model_type", "llama-3.1-8b", "region", "other"}},
		{1, []string{"head_registrations_total"}},
		{2, []string{"head_status_updates_total"}},
		{1, []string{"active_heads"}},
		{3, []string{"http_requests_total", "method", "POST", "endpoint", "/api/v1/decisions", "status", "200"}},
		{1, []string{"http_requests_total", "method", "POST", "endpoint", "/api/v1/decisions", "status", "503"}},
		{1, []string{"http_requests_total", "method", "GET", "endpoint", "other", "status", "404"}},
	} {
		if got := value(t, families, s.series[0], s.series[1:]...); got != s.want {
			t.Errorf("%q is %g; want %g", s.series, got, s.want)
		}
	}
	for _, name := range []string{"process_cpu_seconds_total", "process_resident_memory_bytes", "cache_misses_total"} {
		if value(t, families, name) <= 0 {
			t.Errorf("%s is not counted", name)
		}
	}
	if n := families["http_request_duration_seconds"].GetMetric()[0].GetHistogram().GetSampleCount(); n != 9 {
		t.Errorf("http_request_duration_seconds has %d requests; want 9", n)
	}
	if err := stop(); err != nil {
		t.Errorf("it stopped with: %v", err)
	}
}

// defaults is the configuration of an operator who set nothing.
func defaults(t *testing.T) config.Config {
	t.Helper()
	flags := pflag.NewFlagSet("headway", pflag.ContinueOnError)
	config.AddFlags(flags)
	c, err := config.Load(flags, nil, os.ReadFile)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAFailedStartLeavesNothingBehind(t *testing.T) {
	c := defaults(t)
	c.DataDir, c.HTTP.LameDuck = t.TempDir(), time.Millisecond
	c.Audit.File = filepath.Join(c.DataDir, "audit.log")
	for range 2 { // the second would not get the state file if the first had kept it
		c.Listen = "0.0.0.0:0"
		if _, err := app.New(t.Context(), app.Options{Config: c, Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "headway keys create") {
			t.Fatalf("listening on %s: %v; want a refusal that says what to do", c.Listen, err)
		}
	}
	c.Listen = "127.0.0.1:0"
	a, err := app.New(t.Context(), app.Options{Config: c, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// An alert of the monitor is an event when it begins and when it ends, for
// subscribers and for webhooks.
func TestAlertsAreEvents(t *testing.T) {
	rules := filepath.Join(t.TempDir(), "rules.yml")
	text := `groups: [{name: g, rules: [{alert: Crowded, expr: sse_connections > 1, labels: {severity: warning, region: us}, annotations: {summary: two listen}}]}]`
	if err := os.WriteFile(rules, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	url, stop := run(t, func(c *config.Config) {
		c.Monitor.Interval, c.Monitor.RulesFile, c.Queue.Mode = 50*time.Millisecond, rules, "off"
	})
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	c, err := client.New(url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	second, leave := context.WithCancel(t.Context())
	gone := make(chan struct{})
	defer func() { leave(); <-gone }()
	var got []string
	for n, err := range c.Watch(t.Context(), api.Subscription{Types: []string{"alert.*"}}) {
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case n.Snapshot != nil:
			go func() {
				defer close(gone)
				for _, err := range c.Watch(second, api.Subscription{}) {
					if err != nil {
						t.Error(err)
					}
				}
			}()
			continue
		case n.Event == nil:
			t.Fatalf("%+v", n)
		}
		if !strings.Contains(string(n.Event.Data), `"alert":"Crowded","severity":"warning"`) || !strings.Contains(string(n.Event.Data), `"summary":"two listen"`) || n.Event.Region != "us" {
			t.Errorf("%+v, %s", n.Event, n.Event.Data)
		}
		leave()
		if got = append(got, n.Event.Type); len(got) == 2 {
			break
		}
	}
	if strings.Join(got, " ") != "alert.firing alert.resolved" {
		t.Errorf("told %v", got)
	}
}

// What is in the way of a start is found before anything is written: the
// configuration and the files that it names decide it.
func TestARefusedStartLeavesNothing(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = busy.Close() })
	files := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(files, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	broken, sound := file("broken", "]["), file("sound", "x")
	hooks := file("hooks.yaml", "endpoints:\n- {name: a, url: 'http://169.254.169.254/', secret_file: "+file("secret", "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")+"}\n")
	for name, change := range map[string]func(*config.Config){
		"the service's":          func(c *config.Config) { c.Listen = busy.Addr().String() },
		"the queue's":            func(c *config.Config) { c.Queue.Listen = busy.Addr().String() },
		"no address":             func(c *config.Config) { c.Listen = "nonsense" },
		"no certificate":         func(c *config.Config) { c.TLS.CertFile, c.TLS.KeyFile = "missing.pem", "missing.pem" },
		"no key":                 func(c *config.Config) { c.Listen = "0.0.0.0:0" },
		"no key, behind a proxy": func(c *config.Config) { c.Listen, c.HTTP.BehindProxy = "0.0.0.0:0", true },
		"in the clear": func(c *config.Config) {
			c.Listen, c.Access.OIDC.Issuer, c.Access.OIDC.Audience, c.Access.OIDC.RolesClaim = "0.0.0.0:0", "https://issuer.example", "headway", "roles"
		},
		"an issuer that must not be dialed": func(c *config.Config) {
			c.Access.OIDC.Issuer, c.Access.OIDC.Audience, c.Access.OIDC.RolesClaim = "http://169.254.169.254", "headway", "roles"
		},
		"no file of webhooks": func(c *config.Config) { c.Webhooks.File = "missing.yaml" },
		"a queue that must not be called": func(c *config.Config) {
			c.Queue.Mode, c.Queue.URL = "external", "nats://127.0.0.1:1,nats://169.254.169.254:4222"
		},
		"two credentials of the queue": func(c *config.Config) {
			c.Queue.Mode, c.Queue.URL, c.Queue.CredsFile, c.Queue.TokenFile = "external", "nats://127.0.0.1:1", sound, sound
		},
		"no credential of the queue": func(c *config.Config) {
			c.Queue.Mode, c.Queue.URL, c.Queue.CredsFile = "external", "nats://127.0.0.1:1", "missing.creds"
		},
		"no token of the queue": func(c *config.Config) {
			c.Queue.Mode, c.Queue.URL, c.Queue.TokenFile = "external", "nats://127.0.0.1:1", "missing"
		},
		"no authority of the queue": func(c *config.Config) {
			c.Queue.Mode, c.Queue.URL, c.Queue.CAFile = "external", "nats://127.0.0.1:1", "missing.pem"
		},
		"a bad authority of the queue": func(c *config.Config) {
			c.Queue.Mode, c.Queue.URL, c.Queue.CAFile = "external", "nats://127.0.0.1:1", broken
		},
		"a bad certificate for the queue": func(c *config.Config) {
			c.Queue.Mode, c.Queue.URL, c.Queue.CertFile, c.Queue.KeyFile = "external", "nats://127.0.0.1:1", broken, broken
		},
		"a queue for others without a key": func(c *config.Config) { c.Queue.Listen = "0.0.0.0:0" },
		"a Redis that must not be called":  func(c *config.Config) { c.Redis.Mode, c.Redis.URL = "external", "redis://169.254.169.254:6379" },
		"no URL of Redis":                  func(c *config.Config) { c.Redis.Mode = "external" },
		"no password of Redis": func(c *config.Config) {
			c.Redis.Mode, c.Redis.URL, c.Redis.PasswordFile = "external", "redis://127.0.0.1:1", "missing"
		},
		"a Redis for others":          func(c *config.Config) { c.Redis.Mode, c.Redis.Listen = "embedded", "0.0.0.0:0" },
		"no policy":                   func(c *config.Config) { c.Policy = "missing.yaml" },
		"a bad policy":                func(c *config.Config) { c.Policy = broken },
		"no rules":                    func(c *config.Config) { c.Monitor.RulesFile = "missing.yml" },
		"bad rules":                   func(c *config.Config) { c.Monitor.RulesFile = broken },
		"no signing key":              func(c *config.Config) { c.Audit.SigningKeyFile = "missing.pem" },
		"a bad signing key":           func(c *config.Config) { c.Audit.SigningKeyFile = broken },
		"a trail that is a directory": func(c *config.Config) { c.Audit.File = filepath.Dir(broken) },
		"no directory of the trail":   func(c *config.Config) { c.Audit.File = filepath.Join(files, "missing", "audit.log") },
		"a trail below a file":        func(c *config.Config) { c.Audit.File = filepath.Join(broken, "log", "audit.log") },
		"a bad certificate":           func(c *config.Config) { c.TLS.CertFile, c.TLS.KeyFile = broken, broken },
		"a webhook for alerts": func(c *config.Config) {
			c.Monitor.AlertWebhooks = []string{"http://127.0.0.1:1/", "http://169.254.169.254/"}
		},
		"an Alertmanager": func(c *config.Config) { c.Monitor.Alertmanagers = []string{"http://[fe80::1]:9093"} },
		"a directory of ACME": func(c *config.Config) {
			c.TLS.ACMEHosts, c.TLS.ACMEDirectory = []string{"a.example"}, "https://169.254.169.254/"
		},
		"webhooks that must not be called": func(c *config.Config) { c.Webhooks.File = hooks },
	} {
		dir := t.TempDir()
		c := defaults(t)
		c.Listen, c.DataDir, c.Audit.File, c.Redis.Mode = "127.0.0.1:0", filepath.Join(dir, "data"), filepath.Join(dir, "audit.log"), "off"
		change(&c)
		if a, err := app.New(t.Context(), app.Options{Config: c, Log: slog.New(slog.DiscardHandler)}); err == nil {
			t.Errorf("%s: it started at %s", name, a.Addr())
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_ = a.Run(ctx)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: %v was left, error %v", name, left, err)
		}
	}
}

// A trail in the directory of the data needs no directory of before, however
// both are named.
func TestTheTrailMayBeWithTheData(t *testing.T) {
	t.Chdir(t.TempDir())
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	c := defaults(t)
	c.Listen, c.DataDir, c.Audit.File, c.Redis.Mode, c.Queue.Mode = "127.0.0.1:0", "./data", filepath.Join(here, "data", "audit.log"), "off", "off"
	c.HTTP.LameDuck = time.Millisecond
	for range 2 { // the second time it is there
		a, err := app.New(t.Context(), app.Options{Config: c, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := a.Run(ctx); err != nil {
			t.Error(err)
		}
	}
}
