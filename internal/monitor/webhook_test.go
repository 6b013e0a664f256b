package monitor_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"headway/internal/freeport"
	"headway/internal/monitor"
)

// received is a message as Alertmanager's own package for receivers has it; what
// it does not name is refused, and what is missing is seen.
type received struct {
	Receiver          *string           `json:"receiver"`
	Status            *string           `json:"status"`
	Alerts            []receivedAlert   `json:"alerts"`
	GroupLabels       map[string]string `json:"groupLabels"`
	CommonLabels      map[string]string `json:"commonLabels"`
	CommonAnnotations map[string]string `json:"commonAnnotations"`
	ExternalURL       *string           `json:"externalURL"`
	Version           *string           `json:"version"`
	GroupKey          *string           `json:"groupKey"`
	TruncatedAlerts   *uint64           `json:"truncatedAlerts"`
}

type receivedAlert struct {
	Status       *string           `json:"status"`
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     *time.Time        `json:"startsAt"`
	EndsAt       *time.Time        `json:"endsAt"`
	GeneratorURL *string           `json:"generatorURL"`
	Fingerprint  *string           `json:"fingerprint"`
}

// sink is a receiver of webhooks that reads them strictly.
type sink struct {
	testing.TB
	mu     sync.Mutex
	refuse int
	got    chan received
}

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var m received
	in := json.NewDecoder(r.Body)
	in.DisallowUnknownFields()
	if err := in.Decode(&m); err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
		s.Errorf("a webhook that cannot be read: %s %v, %v", r.Method, r.Header, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse > 0 {
		s.refuse--
		w.WriteHeader(http.StatusNotFound)
		return
	}
	s.got <- m
}

func (s *sink) next() received {
	s.Helper()
	select {
	case m := <-s.got:
		return m
	case <-time.After(time.Minute):
		s.Fatal("no webhook came")
		panic("unreachable")
	}
}

func newSink(t testing.TB) (*sink, string) {
	s := &sink{TB: t, got: make(chan received, 100)}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return s, server.URL
}

const byCode = `groups:
- name: test
  rules:
  - alert: Errors
    expr: requests_total{code!="200"} > 0
    labels: {severity: warning, "of": "{{ $labels.code }}"}
    annotations: {summary: "answers with \"{{ $labels.code }}\"", runbook_url: "http://here/runbooks#errors"}
`

// realAlertmanager runs Debian's, which posts to a webhook, and returns its
// address.
func realAlertmanager(t *testing.T, hook, external string) string {
	t.Helper()
	program := need(t, "prometheus-alertmanager", "prometheus-alertmanager")
	dir := t.TempDir()
	config := filepath.Join(dir, "alertmanager.yml")
	text := "route: {receiver: headway, group_by: [alertname], group_wait: 2s, group_interval: 1s, repeat_interval: 4h}\n" +
		"receivers: [{name: headway, webhook_configs: [{url: '" + hook + "'}]}]\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	address := freeport.Address(t)
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, "--config.file="+config, "--storage.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--cluster.listen-address=", "--web.external-url="+external)
	log := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.WaitDelay = 20 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(); _ = cmd.Wait() })
	for deadline := time.Now().Add(time.Minute); ; {
		if res, err := client.Get("http://" + address + "/-/ready"); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return "http://" + address
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("Alertmanager does not become ready")
		}
	}
}

// What we post to webhooks is what Alertmanager posts of the same alerts, field
// by field.
func TestWebhooksAreThoseOfAlertmanager(t *testing.T) {
	const external = "http://headway.example:8080/"
	theirs, theirURL := newSink(t)
	ours, ourURL := newSink(t)
	am := realAlertmanager(t, theirURL, external)
	w := newWorld(t, func(o *monitor.Options) {
		o.Rules, o.URL = []byte(byCode), &url.URL{Scheme: "http", Host: "headway.example:8080", Path: "/"}
		o.Receivers = []monitor.Receiver{{URL: am, Kind: monitor.Alertmanager, Client: client}, {URL: ourURL, Kind: monitor.Webhook, Client: client}}
	})
	w.now = time.Now().Add(-2 * time.Minute).Truncate(time.Millisecond)
	ctx, stop := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() { w.Notify(ctx) })
	defer func() { stop(); wait.Wait() }()

	same := func(when string, alerts int) {
		t.Helper()
		a, b := ours.next(), theirs.next()
		for len(b.Alerts) < alerts { // it may take them in one after the other
			b = theirs.next()
		}
		byFingerprint := func(m received) map[string]receivedAlert {
			all := map[string]receivedAlert{}
			for _, one := range m.Alerts {
				all[*one.Fingerprint] = one
			}
			return all
		}
		if got, want := byFingerprint(a), byFingerprint(b); !reflect.DeepEqual(got, want) || len(got) != alerts {
			t.Errorf("%s: our alerts are\n%s\nand Alertmanager's\n%s", when, text(got), text(want))
		}
		a.Alerts, b.Alerts = nil, nil
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s: our message is\n%s\nand Alertmanager's\n%s", when, text(a), text(b))
		}
	}
	w.requests.WithLabelValues("200").Inc()
	w.requests.WithLabelValues("500").Inc()
	w.requests.WithLabelValues("503").Inc()
	w.pass(1, nil)
	same("two that fire", 2)
	w.now = w.now.Add(15 * time.Second)
	w.requests.DeleteLabelValues("500")
	w.pass(1, nil)
	same("one that ended", 2)
	w.now = w.now.Add(15 * time.Second)
	w.requests.Reset()
	w.pass(1, nil)
	same("the last one", 1)
}

func text(v any) string {
	b, _ := json.MarshalIndent(v, "", " ")
	return string(b)
}

// A webhook comes when something changed, again when it did not arrive, once
// more after hours, and with all that fires in the group.
func TestWebhooksComeWhenSomethingChanged(t *testing.T) {
	ours, address := newSink(t)
	w := newWorld(t, func(o *monitor.Options) {
		o.Rules, o.Interval = []byte(byCode), time.Minute
		o.Receivers = []monitor.Receiver{{URL: address, Kind: monitor.Webhook, Client: client}}
	})
	ctx, stop := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() { w.Notify(ctx) })
	defer func() { stop(); wait.Wait() }()
	step := func(d time.Duration) {
		w.now = w.now.Add(d)
		w.Step(ctx)
	}
	want := func(when, status string, alerts ...string) received {
		t.Helper()
		m := ours.next()
		var got []string
		for _, a := range m.Alerts {
			got = append(got, a.Labels["code"]+" "+*a.Status)
		}
		if *m.Status != status || strings.Join(got, ", ") != strings.Join(alerts, ", ") {
			t.Errorf("%s the webhook says %s: %v; want %s: %v", when, *m.Status, got, status, alerts)
		}
		return m
	}
	ours.refuse = 5 // as often as it is tried
	w.requests.WithLabelValues("500").Inc()
	step(0)
	step(time.Minute)
	m := want("after a failure", "firing", "500 firing")
	if !m.Alerts[0].EndsAt.IsZero() || !m.Alerts[0].StartsAt.Equal(start) || m.CommonLabels["of"] != "500" || m.CommonAnnotations["summary"] != `answers with "500"` {
		t.Errorf("the alert is %s", text(m))
	}
	for range 10 {
		step(time.Minute) // there is no change to post
	}
	w.requests.WithLabelValues("503").Inc()
	step(time.Minute)
	if m := want("with a second one", "firing", "500 firing", "503 firing"); len(m.CommonLabels) != 4 || m.CommonLabels["severity"] != "warning" {
		t.Errorf("the labels that both have are %v", m.CommonLabels)
	}
	w.requests.DeleteLabelValues("500")
	step(time.Minute)
	m = want("when one ends", "firing", "500 resolved", "503 firing")
	if !m.Alerts[0].EndsAt.Equal(w.now) {
		t.Errorf("it ended at %s, want %s", m.Alerts[0].EndsAt, w.now)
	}
	step(4*time.Hour - time.Minute)
	w.requests.DeleteLabelValues("503")
	step(2 * time.Minute)
	m = want("when the last one ends", "resolved", "503 resolved")
	if !m.Alerts[0].EndsAt.Equal(w.now) {
		t.Errorf("it ended at %s, want %s", m.Alerts[0].EndsAt, w.now)
	}
	w.requests.WithLabelValues("500").Inc()
	step(time.Minute)
	want("when it fires again", "firing", "500 firing")
	step(4 * time.Hour)
	want("after four hours", "firing", "500 firing")
	if len(ours.got) != 0 {
		t.Errorf("%d more webhooks came", len(ours.got))
	}
}

// A message has a thousand alerts at most, and says how many it leaves out.
func TestALongWebhookIsCut(t *testing.T) {
	ours, address := newSink(t)
	w := newWorld(t, func(o *monitor.Options) {
		o.Rules = []byte(byCode + "  - {alert: Errors, expr: 'requests_total > 1', labels: {severity: critical}}\n")
		o.Receivers = []monitor.Receiver{{URL: address, Kind: monitor.Webhook, Client: client}}
	})
	ctx, stop := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() { w.Notify(ctx) })
	defer func() { stop(); wait.Wait() }()
	for i := range 600 {
		w.requests.WithLabelValues(fmt.Sprint(i)).Add(2)
	}
	w.pass(1, nil)
	m := ours.next()
	if len(m.Alerts) != 1000 || *m.TruncatedAlerts != 599+600-1000 {
		t.Errorf("the message has %d alerts and leaves %d out", len(m.Alerts), *m.TruncatedAlerts)
	}
}

// tried makes requests, and says so after each.
type tried chan struct{}

func (t tried) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := http.DefaultTransport.RoundTrip(r)
	t <- struct{}{}
	return answer, err
}

// What may be secret in the address of a receiver is not in the log.
func TestAReceiversAddressIsNotLogged(t *testing.T) {
	const failing = "http://user:secret@127.0.0.1:1/services/T0/secret?token=secret"
	var log lockedBuffer
	tries := make(chan struct{})
	w := newWorld(t, func(o *monitor.Options) {
		o.Rules, o.Log = []byte(byCode), textLog(&log)
		o.Receivers = []monitor.Receiver{{URL: failing, Kind: monitor.Webhook, Client: &http.Client{Transport: tried(tries)}}}
	})
	ctx, stop := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() { w.Notify(ctx) })
	w.requests.WithLabelValues("500").Inc()
	w.pass(1, nil)
	for range 5 {
		<-tries
	}
	stop()
	wait.Wait()
	if said := log.String(); strings.Contains(said, "secret") || !strings.Contains(said, "127.0.0.1:1") {
		t.Errorf("the log says %s", said)
	}
}
