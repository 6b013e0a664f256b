package monitor_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/monitor"
)

// world is a monitor with a clock of its own over metrics that a test sets.
type world struct {
	testing.TB
	*monitor.Monitor
	now      time.Time
	watched  *prometheus.Registry
	requests *prometheus.CounterVec
	heads    prometheus.Gauge
	latency  prometheus.Histogram
	url      string
}

// client is how tests ask.
var client = &http.Client{Timeout: time.Minute}

var start = time.Unix(1_700_000_000, 0)

func newWorld(t testing.TB, change func(*monitor.Options)) *world {
	t.Helper()
	w := &world{
		TB: t, now: start, watched: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "requests_total", Help: "Requests."}, []string{"code"}),
		heads:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "active_heads", Help: "Heads."}),
		latency:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "latency_seconds", Help: "Latency.", Buckets: []float64{.1, 1}}),
	}
	w.watched.MustRegister(w.requests, w.heads, w.latency)
	o := monitor.Options{
		Gatherer: w.watched, Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
		Instance: "here", URL: &url.URL{Path: "/"}, Interval: 15 * time.Second, Retention: 24 * time.Hour, MaxSeries: 20_000,
		Now: func() time.Time { return w.now },
	}
	if change != nil {
		change(&o)
	}
	var err error
	if w.Monitor, err = monitor.New(o); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(w.Handler("/prometheus"))
	t.Cleanup(server.Close)
	w.url = server.URL + "/prometheus"
	return w
}

// pass lets n intervals pass.
func (w *world) pass(n int, each func(i int)) {
	for i := range n {
		if each != nil {
			each(i)
		}
		w.Step(w.Context())
		w.now = w.now.Add(15 * time.Second)
	}
	w.now = w.now.Add(-15 * time.Second) // the time of the last step
}

// reply is an answer of the read API.
type reply struct {
	code      int
	Status    string
	ErrorType string
	Error     string
	Data      json.RawMessage
}

func (w *world) get(path string, params url.Values) reply {
	w.Helper()
	return w.read(client.Get(w.url + path + "?" + params.Encode()))
}

func (w *world) post(path string, params url.Values) reply {
	w.Helper()
	return w.read(client.PostForm(w.url+path, params))
}

func (w *world) read(res *http.Response, err error) reply {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		w.Fatal(err)
	}
	r := reply{code: res.StatusCode}
	if err := json.Unmarshal(body, &r); err != nil {
		w.Fatalf("%s answered %.1000q: %v", res.Request.URL.Path, body, err)
	}
	return r
}

// value evaluates an expression that has one number.
func (w *world) value(expr string) float64 {
	w.Helper()
	r := w.get("/api/v1/query", url.Values{"query": {expr}})
	var data struct {
		Result []struct{ Value [2]any }
	}
	if err := json.Unmarshal(r.Data, &data); err != nil || len(data.Result) != 1 {
		w.Fatalf("%s gives %d %s %s", expr, r.code, r.Error, r.Data)
	}
	var v float64
	if _, err := fmt.Sscan(data.Result[0].Value[1].(string), &v); err != nil {
		w.Fatal(err)
	}
	return v
}

func (w *world) near(expr string, want float64) {
	w.Helper()
	if got := w.value(expr); !(math.Abs(got-want) <= 1e-9*math.Abs(want)) {
		w.Errorf("%s is %v, want %v", expr, got, want)
	}
}

func TestQueriesOfWhatWasScraped(t *testing.T) {
	w := newWorld(t, nil)
	w.pass(241, func(i int) {
		w.requests.WithLabelValues("200").Add(30)
		if i%2 == 0 {
			w.requests.WithLabelValues("500").Add(3)
		}
		w.heads.Set(float64(i % 7))
		w.latency.Observe(.05)
		w.latency.Observe(.5)
	})
	w.near(`up`, 1)
	w.near(`active_heads{job="routing-service",instance="here"}`, 240%7)
	w.near(`sum(rate(requests_total{code="200"}[5m]))`, 2)
	w.near(`sum(increase(requests_total{code="200"}[10m]))`, 1200)
	w.near(`max_over_time(active_heads[2m])`, 6)
	w.near(`histogram_quantile(0.75, sum(rate(latency_seconds_bucket[5m])) by (le))`, .1+.9/2)
	w.near(`count(count_over_time(requests_total[1h]) > 239)`, 2)
	w.near(`latency_seconds_count`, 482)
	w.near(`active_heads offset 15s`, 239%7)

	r := w.get("/api/v1/query_range", url.Values{
		"query": {"active_heads"}, "start": {fmt.Sprint(start.Unix())}, "end": {fmt.Sprint(w.now.Unix())}, "step": {"15"},
	})
	var data struct {
		ResultType string
		Result     []struct {
			Metric map[string]string
			Values [][2]any
		}
	}
	if err := json.Unmarshal(r.Data, &data); err != nil || data.ResultType != "matrix" || len(data.Result) != 1 || len(data.Result[0].Values) != 241 {
		t.Fatalf("a range gives %s", r.Data)
	}
	for i, v := range data.Result[0].Values {
		if v[0].(float64) != float64(start.Unix()+15*int64(i)) || v[1].(string) != fmt.Sprint(i%7) {
			t.Fatalf("point %d is %v", i, v)
		}
	}
}

func TestASeriesThatVanishesEnds(t *testing.T) {
	w := newWorld(t, nil)
	w.requests.WithLabelValues("200").Inc()
	w.pass(3, nil)
	w.near(`count(requests_total)`, 1)
	w.requests.Reset()
	w.now = w.now.Add(15 * time.Second)
	w.pass(1, nil)
	if r := w.get("/api/v1/query", url.Values{"query": {"requests_total"}}); strings.Contains(string(r.Data), `"200"`) {
		t.Errorf("it is still there: %s", r.Data)
	}
	w.requests.WithLabelValues("200").Inc()
	w.now = w.now.Add(15 * time.Second)
	w.pass(1, nil)
	w.near(`count(requests_total)`, 1)
}

func TestOldSamplesAndTooManySeriesAreLeftOut(t *testing.T) {
	w := newWorld(t, func(o *monitor.Options) { o.Retention, o.MaxSeries = time.Hour, 12 })
	for i := range 50 {
		w.requests.WithLabelValues(fmt.Sprint(i)).Inc()
	}
	w.pass(2, nil)
	if n := w.value(`count({__name__=~".+"})`); n != 12 {
		t.Errorf("it holds %v series, at most 12 are allowed", n)
	}
	w.requests.Reset()
	w.now = w.now.Add(15 * time.Second)
	// At each border of chunks, and between them, an hour is there: 240 samples,
	// and the one at its very beginning.
	for _, more := range []int{2*240 + 121, 60, 1, 58, 1} {
		w.now = w.now.Add(15 * time.Second)
		w.pass(more, nil)
		if n := w.value(`count_over_time(up[3h])`); n < 241 || n > 241+120 {
			t.Errorf("it holds %v samples of a series; an hour has 241, and a chunk 120", n)
		}
	}
	w.near(`active_heads`, 0)
	if r := w.get("/api/v1/series", url.Values{"match[]": {"requests_total"}}); string(r.Data) != "[]" {
		t.Errorf("series without samples are listed: %s", r.Data)
	}
}

const rules = `groups:
- name: test
  rules:
  - record: heads:half
    expr: active_heads / 2
    labels: {of: heads}
  - alert: LowHeads
    expr: active_heads < 2
    for: 1m
    labels: {severity: critical}
    annotations: {summary: "only {{ $value }} heads on {{ $labels.instance }}"}
  - alert: NoHeads
    expr: active_heads == 0
    keep_firing_for: 1m
`

func TestRules(t *testing.T) {
	w := newWorld(t, func(o *monitor.Options) { o.Rules = []byte(rules) })
	state := func(alert string) string {
		t.Helper()
		r := w.get("/api/v1/query", url.Values{"query": {`ALERTS{alertname="` + alert + `"}`}})
		switch {
		case strings.Contains(string(r.Data), `"alertstate":"firing"`):
			return "firing"
		case strings.Contains(string(r.Data), `"alertstate":"pending"`):
			return "pending"
		}
		return "inactive"
	}
	want := func(low, none string) {
		t.Helper()
		if state("LowHeads") != low || state("NoHeads") != none {
			t.Errorf("at %s LowHeads is %s and NoHeads %s; want %s and %s", w.now.Sub(start), state("LowHeads"), state("NoHeads"), low, none)
		}
	}
	w.heads.Set(5)
	w.pass(1, nil)
	w.near(`heads:half{of="heads"}`, 2.5)
	want("inactive", "inactive")
	next := func(heads float64) {
		w.heads.Set(heads)
		w.now = w.now.Add(15 * time.Second)
		w.pass(1, nil)
	}
	next(0)
	want("pending", "firing")
	next(1)
	next(1)
	next(1)
	want("pending", "firing") // 45 s; and NoHeads is kept
	next(1)
	want("firing", "firing")
	r := w.get("/api/v1/alerts", nil)
	if !strings.Contains(string(r.Data), `"summary":"only 1 heads on here"`) || !strings.Contains(string(r.Data), `"severity":"critical"`) {
		t.Errorf("the alerts are %s", r.Data)
	}
	next(1)
	want("firing", "inactive") // 1 min after it ended
	next(5)
	want("inactive", "inactive")
	var groups struct {
		Groups []struct {
			Rules []struct{ Name, Health, State, Type string }
		}
	}
	if err := json.Unmarshal(w.get("/api/v1/rules", nil).Data, &groups); err != nil || len(groups.Groups) != 1 || len(groups.Groups[0].Rules) != 3 {
		t.Fatalf("the rules are %+v, %v", groups, err)
	}
	for _, one := range groups.Groups[0].Rules {
		if one.Health != "ok" {
			t.Errorf("rule %+v", one)
		}
	}
}

// A start that is refused says in one line which file is wrong, and why.
func TestABadRuleFileIsNamed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rules.yml")
	for text, faults := range map[string]int{"groups: [{name: g, rules: [{alert: A, expr: 'sum('}, {alert: B, expr: ')'}]}]": 2, "groups: [": 1} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		said := fmt.Sprint(monitor.CheckRules(file, slog.New(slog.DiscardHandler)))
		if !strings.HasPrefix(said, file+" (monitor.rules_file): the rules are invalid: ") || strings.Contains(said, "\n") || strings.Count(said, "; ") != faults-1 {
			t.Errorf("of %s: %s", text, said)
		}
	}
}

func TestARuleFileThatChanges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rules.yml")
	at := start
	write := func(text string) {
		t.Helper()
		at = at.Add(time.Second)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
	write(rules)
	w := newWorld(t, func(o *monitor.Options) { o.RulesFile = file })
	w.pass(5, nil)
	has := func(text string) bool { return strings.Contains(string(w.get("/api/v1/rules", nil).Data), text) }
	write("groups: [{name: broken, rules: [{alert: A, expr: 'sum('}]}]")
	w.pass(2, nil)
	if !has("LowHeads") || has("broken") {
		t.Error("a file with an error changed the rules")
	}
	if !strings.Contains(string(w.get("/api/v1/alerts", nil).Data), `"firing"`) {
		t.Error("an alert that fired was forgotten")
	}
	write(strings.Replace(rules, "NoHeads", "NoHeadsAtAll", 1))
	w.pass(1, nil)
	if !has("NoHeadsAtAll") || !strings.Contains(string(w.get("/api/v1/alerts", nil).Data), `"LowHeads"`) {
		t.Error("a sound file was not taken over, or cost the state of a rule that stayed")
	}
	if _, err := monitor.New(monitor.Options{
		Gatherer: w.watched, Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler), Rules: []byte("nonsense"),
		Instance: "here", URL: &url.URL{Path: "/"}, Interval: time.Second, Retention: time.Hour, MaxSeries: 1,
	}); err == nil {
		t.Error("a start with rules that are none")
	}
}

func TestARestartKeepsTheHistory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "monitor.snapshot")
	keep := func(o *monitor.Options) { o.Snapshot = file }
	w := newWorld(t, keep)
	w.pass(200, func(i int) { w.heads.Set(float64(i)) })
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := w.Run(ctx); err != nil { // writes the history and ends
		t.Fatal(err)
	}
	after := newWorld(t, keep)
	after.now = w.now.Add(time.Minute)
	after.near(`active_heads`, 199)
	after.near(`count_over_time(active_heads[1h])`, 200)
	after.pass(130, func(i int) { after.heads.Set(float64(200 + i)) })
	after.near(`count_over_time(active_heads[2h])`, 330)

	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, damaged := range [][]byte{nil, whole[:len(whole)/2], []byte("rubbish"), append([]byte("x"), whole...)} {
		if err := os.WriteFile(file, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		fresh := newWorld(t, keep)
		fresh.pass(1, nil)
		fresh.near(`count_over_time(active_heads[1h])`, 1)
	}
}

func TestBadQueries(t *testing.T) {
	w := newWorld(t, nil)
	w.pass(3, nil)
	at := fmt.Sprint(start.Unix())
	for _, c := range []struct {
		path   string
		params url.Values
		code   int
		kind   string
	}{
		{"/api/v1/query", url.Values{"query": {"sum("}}, 400, "bad_data"},
		{"/api/v1/query", nil, 400, "bad_data"},
		{"/api/v1/query", url.Values{"query": {"up"}, "time": {"soon"}}, 400, "bad_data"},
		{"/api/v1/query", url.Values{"query": {"up"}, "timeout": {"-"}}, 400, "bad_data"},
		{"/api/v1/query", url.Values{"query": {`up + on() {__name__=~"up|active_heads"}`}}, 422, "execution"},
		{"/api/v1/query", url.Values{"query": {"up"}, "timeout": {"0.000000001"}}, 503, "timeout"},
		{"/api/v1/query", url.Values{"query": {strings.Repeat("(", 70_000)}}, 400, "bad_data"},
		{"/api/v1/query_range", url.Values{"query": {"up"}}, 400, "bad_data"},
		{"/api/v1/query_range", url.Values{"query": {"up"}, "start": {at}, "end": {at}, "step": {"0"}}, 400, "bad_data"},
		{"/api/v1/query_range", url.Values{"query": {"up"}, "start": {at}, "end": {"1"}, "step": {"1"}}, 400, "bad_data"},
		{"/api/v1/query_range", url.Values{"query": {"up"}, "start": {"0"}, "end": {at}, "step": {"1"}}, 400, "bad_data"},
		{"/api/v1/series", nil, 400, "bad_data"},
		{"/api/v1/series", url.Values{"match[]": {"{"}}, 400, "bad_data"},
		{"/api/v1/labels", url.Values{"limit": {"-1"}}, 400, "bad_data"},
		{"/api/v1/rules", url.Values{"type": {"odd"}}, 400, "bad_data"},
		{"/api/v1/admin/tsdb/delete_series", nil, 404, "not_found"},
	} {
		r := w.get(c.path, c.params)
		if r.code != c.code || r.Status != "error" || r.ErrorType != c.kind || r.Error == "" {
			t.Errorf("%s?%.60s: %d %s %q; want %d %s", c.path, c.params.Encode(), r.code, r.ErrorType, r.Error, c.code, c.kind)
		}
	}
}

// A query that asks for too much is refused before it has the memory, and one
// that comes among too many is asked to come again.
func TestHugeAndManyQueries(t *testing.T) {
	w := newWorld(t, func(o *monitor.Options) { o.MaxSamples = 50_000 })
	for i := range 300 {
		w.requests.WithLabelValues(fmt.Sprint(i)).Inc()
	}
	w.pass(20, nil)
	end := fmt.Sprint(w.now.Unix())
	huge := url.Values{"query": {`requests_total`}, "start": {fmt.Sprint(w.now.Unix() - 10_999)}, "end": {end}, "step": {"1"}}
	if r := w.get("/api/v1/query_range", huge); r.code != 422 || !strings.Contains(r.Error, "too many samples") {
		t.Errorf("a huge query: %d %s", r.code, r.Error)
	}
	var wait sync.WaitGroup
	var mu sync.Mutex
	codes := map[int]int{}
	for range 200 {
		wait.Go(func() {
			r := w.get("/api/v1/query_range", url.Values{"query": {`sum(rate(requests_total{code=~"1."}[5m]))`}, "start": {fmt.Sprint(w.now.Unix() - 200)}, "end": {end}, "step": {"1"}})
			mu.Lock()
			codes[r.code]++
			mu.Unlock()
		})
	}
	wait.Wait()
	if codes[200] == 0 || codes[200]+codes[503] != 200 {
		t.Errorf("200 queries at once: %v", codes)
	}
}

func TestWhatADataSourceAsks(t *testing.T) {
	w := newWorld(t, func(o *monitor.Options) { o.Rules, o.Interval = []byte(rules), 90*time.Second })
	w.requests.WithLabelValues("200").Inc()
	w.pass(2, nil)
	for path, want := range map[string]string{
		"/api/v1/labels":                         `["__name__","alertname","alertstate","code","instance","job","le","of","severity"]`,
		"/api/v1/label/code/values":              `["200"]`,
		"/api/v1/label/none/values":              `[]`,
		"/api/v1/series?match[]=up":              `[{"__name__":"up","instance":"here","job":"routing-service"}]`,
		"/api/v1/metadata?metric=requests_total": `{"requests_total":[{"type":"counter","help":"Requests.","unit":""}]}`,
		"/api/v1/query_exemplars":                `[]`,
		"/api/v1/status/config":                  `{"yaml":"global:\n  scrape_interval: 1m30s\n  evaluation_interval: 1m30s\n"}`,
	} {
		path, query, _ := strings.Cut(path, "?")
		params, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if r := w.get(path, params); r.code != 200 || string(r.Data) != want {
			t.Errorf("%s: %d %s %s; want %s", path, r.code, r.Error, r.Data, want)
		}
	}
	for _, path := range []string{"/api/v1/status/buildinfo", "/api/v1/status/runtimeinfo"} {
		if r := w.get(path, nil); r.Status != "success" {
			t.Errorf("%s: %+v", path, r)
		}
	}
	res, err := client.PostForm(w.url+"/api/v1/query", url.Values{"query": {"up"}})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); !strings.Contains(string(body), `"resultType":"vector"`) {
		t.Errorf("a query by POST: %s", body)
	}
}

// inbox takes what an Alertmanager or a webhook would.
type inbox struct {
	mu     sync.Mutex
	refuse int
	bodies []string
	got    chan struct{}
}

func (b *inbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse > 0 {
		b.refuse--
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	b.bodies = append(b.bodies, r.URL.Path+" "+string(body))
	b.got <- struct{}{}
}

func TestAlertsAreSent(t *testing.T) {
	am, hook := &inbox{refuse: 2, got: make(chan struct{}, 10)}, &inbox{got: make(chan struct{}, 10)}
	amServer, hookServer := httptest.NewServer(am), httptest.NewServer(hook)
	defer amServer.Close()
	defer hookServer.Close()
	var changes []string
	w := newWorld(t, func(o *monitor.Options) {
		o.Rules = []byte(rules)
		o.Alerted = func(c monitor.AlertChange) {
			changes = append(changes, fmt.Sprint(c.Labels["alertname"], " ", c.Firing))
		}
		o.Receivers = []monitor.Receiver{{URL: amServer.URL, Kind: monitor.Alertmanager, Client: client}, {URL: hookServer.URL, Kind: monitor.Webhook, Client: client}}
	})
	ctx, stop := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() { w.Notify(ctx) })
	defer func() { stop(); wait.Wait() }()
	receive := func(b *inbox) string {
		t.Helper()
		select {
		case <-b.got:
		case <-time.After(20 * time.Second):
			t.Fatal("no receiver was notified")
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.bodies[len(b.bodies)-1]
	}
	w.pass(1, nil) // no heads: NoHeads fires at once
	if body := receive(am); !strings.HasPrefix(body, "/api/v2/alerts [") || !strings.Contains(body, `"alertname":"NoHeads"`) || !strings.Contains(body, `"startsAt":"2023-11-14T22:13:20Z"`) {
		t.Errorf("the Alertmanager got %s", body)
	}
	if body := receive(hook); !strings.Contains(body, `"status":"firing"`) || !strings.Contains(body, `"version":"4"`) {
		t.Errorf("the webhook got %s", body)
	}
	w.heads.Set(5)
	w.now = w.now.Add(15 * time.Second)
	w.pass(6, nil)
	if body := receive(hook); !strings.Contains(body, `"status":"resolved"`) {
		t.Errorf("the webhook got %s", body)
	}
	if got := strings.Join(changes, ", "); got != "NoHeads true, NoHeads false" { // and no repetition
		t.Errorf("changes: %s", got)
	}
}

// lockedBuffer is a log that a test reads while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func textLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
