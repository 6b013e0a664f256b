package monitor_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/monitor"
)

// A histogram has the bucket of all its observations, which the library leaves
// to the caller that writes them, and quantiles beyond the last bound are that bound.
func TestAHistogramHasItsLastBucket(t *testing.T) {
	w := newWorld(t, nil)
	w.pass(30, func(int) {
		w.latency.Observe(.05)
		w.latency.Observe(50)
	})
	w.near(`latency_seconds_bucket{le="+Inf"}`, 60)
	w.near(`latency_seconds_bucket{le="1.0"}`, 30)
	w.near(`histogram_quantile(0.9, sum by (le) (rate(latency_seconds_bucket[5m])))`, 1)
	w.near(`histogram_quantile(0.25, sum by (le) (rate(latency_seconds_bucket[5m])))`, .05)
}

// The labels job and instance are the target's, as with Prometheus.
func TestTheTargetsLabelsWin(t *testing.T) {
	w := newWorld(t, nil)
	queue := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "queue", Help: "x"}, []string{"job", "instance"})
	w.watched.MustRegister(queue)
	queue.WithLabelValues("own", "elsewhere").Set(3)
	w.pass(1, nil)
	w.near(`queue{job="routing-service",instance="here",exported_job="own",exported_instance="elsewhere"}`, 3)
}

// A rule gives a thousand alerts at most, and a group what its limit says.
func TestTheResultsOfARuleAreBounded(t *testing.T) {
	const text = `groups:
- name: many
  rules: [{alert: Many, expr: requests_total}]
- name: limited
  limit: 2
  rules: [{record: kept, expr: 'requests_total{code=~"00.."} + 1'}, {record: refused, expr: 'requests_total{code=~"0..."} + 1'}]
`
	w := newWorld(t, func(o *monitor.Options) { o.Rules = []byte(text) })
	for i := range 1000 {
		w.requests.WithLabelValues(fmt.Sprintf("1%03d", i))
	}
	health := func(rule string) string {
		t.Helper()
		var data struct {
			Groups []struct {
				Rules []struct {
					Name, Health, LastError string
					Alerts                  []any
				}
			}
		}
		if err := json.Unmarshal(w.get("/api/v1/rules", nil).Data, &data); err != nil {
			t.Fatal(err)
		}
		for _, g := range data.Groups {
			for _, r := range g.Rules {
				if r.Name == rule {
					return fmt.Sprint(r.Health, " ", len(r.Alerts))
				}
			}
		}
		return "gone"
	}
	w.pass(1, nil)
	if got := health("Many"); got != "ok 1000" {
		t.Errorf("a rule with 1,000 alerts is %s", got)
	}
	w.requests.WithLabelValues("0000")
	w.requests.WithLabelValues("0001")
	w.requests.WithLabelValues("0100")
	w.now = w.now.Add(15 * time.Second)
	w.pass(1, nil)
	if got := health("Many"); !strings.HasPrefix(got, "err ") {
		t.Errorf("a rule with 1,003 alerts is %s", got)
	}
	if got := health("kept"); got != "ok 0" {
		t.Errorf("a rule that gives as much as the limit of its group is %s", got)
	}
	if got := health("refused"); got != "err 0" {
		t.Errorf("a rule that gives more than the limit of its group is %s", got)
	}
	w.near(`count(kept)`, 2)
	if r := w.get("/api/v1/query", url.Values{"query": {"refused"}}); string(r.Data) != `{"resultType":"vector","result":[]}` {
		t.Errorf("it gave %s", r.Data)
	}
}

// An alert with keep_firing_for that comes back is kept as long as before when
// it goes again.
func TestAnAlertIsKeptEachTime(t *testing.T) {
	w := newWorld(t, func(o *monitor.Options) { o.Rules = []byte(rules) })
	firing := func(when string, want bool) {
		t.Helper()
		r := w.get("/api/v1/query", url.Values{"query": {`ALERTS{alertname="NoHeads",alertstate="firing"}`}})
		if got := strings.Contains(string(r.Data), "NoHeads"); got != want {
			t.Errorf("%s it fires: %v", when, got)
		}
	}
	w.now = start.Add(-15 * time.Second)
	steps := func(n int, heads float64) {
		w.heads.Set(heads)
		for range n {
			w.now = w.now.Add(15 * time.Second)
			w.Step(t.Context())
		}
	}
	steps(1, 0)
	firing("at first", true)
	steps(4, 5)
	firing("kept for 45 s", true)
	steps(8, 0) // longer than it is kept
	firing("when it is back", true)
	steps(4, 5)
	firing("kept for 45 s again", true)
	steps(1, 5)
	firing("after a minute", false)
}

// An alert that ended is posted with the time of its end, again for 15 minutes,
// and then forgotten.
func TestAnAlertThatEndedIsPostedForAWhile(t *testing.T) {
	am := &inbox{got: make(chan struct{}, 1000)}
	server := httptest.NewServer(am)
	defer server.Close()
	w := newWorld(t, func(o *monitor.Options) {
		o.Rules = []byte(strings.Replace(rules, "    keep_firing_for: 1m\n", "", 1))
		o.Receivers = []monitor.Receiver{{URL: server.URL, Kind: monitor.Alertmanager, Client: client}}
	})
	ctx, stop := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() { w.Notify(ctx) })
	defer func() { stop(); wait.Wait() }()
	type posted struct {
		Labels           map[string]string
		StartsAt, EndsAt time.Time
	}
	read := 0
	next := func() (list []posted) {
		t.Helper()
		select {
		case <-am.got:
		case <-time.After(time.Minute):
			t.Fatal("nothing was posted")
		}
		am.mu.Lock()
		defer am.mu.Unlock()
		_, body, _ := strings.Cut(am.bodies[read], " ")
		read++
		if err := json.Unmarshal([]byte(body), &list); err != nil {
			t.Fatal(err)
		}
		return list
	}
	w.Step(ctx) // no heads
	if got := next(); len(got) != 1 || !got[0].StartsAt.Equal(start) || !got[0].EndsAt.Equal(start.Add(4*time.Minute)) {
		t.Errorf("while it fires: %+v", got)
	}
	w.heads.Set(5)
	ended := start.Add(15 * time.Second)
	times := 0
	for w.now = ended; w.now.Before(ended.Add(20 * time.Minute)); w.now = w.now.Add(time.Minute) {
		w.Step(ctx)
		if w.now.Sub(ended) <= 15*time.Minute {
			times++
			if got := next(); len(got) != 1 || !got[0].EndsAt.Equal(ended) {
				t.Errorf("%s after its end: %+v; want the end at %s", w.now.Sub(ended), got, ended)
			}
		}
	}
	if times != 16 {
		t.Errorf("it was posted %d times", times)
	}
	// It may be posted once more before it is forgotten; then comes what fires next.
	w.heads.Set(0)
	w.Step(ctx)
	for more := 0; ; more++ {
		if got := next(); got[0].StartsAt.Equal(w.now) {
			break
		}
		if more == 1 {
			t.Fatal("it is posted for longer than 15 minutes")
		}
	}
}
