// Package monitor is monitoring without installing anything: it keeps the
// service's own metrics for a bounded time in memory, answers PromQL on
// Prometheus' read API, evaluates the same rule files and sends alerts to
// Alertmanager and webhooks.
package monitor

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"headway/internal/disk"
	"headway/internal/history"
)

// Options are what a Monitor is made of.
type Options struct {
	Gatherer   prometheus.Gatherer   // required; what is watched
	Metrics    prometheus.Registerer // required; where the monitor's own metrics go
	Log        *slog.Logger          // required
	Rules      []byte                // a rule file of Prometheus'
	RulesFile  string                // read instead of Rules if set, and again when it changes
	Instance   string                // required; label of every series
	Interval   time.Duration         // required; between scrapes and evaluations
	Retention  time.Duration         // required
	MaxSeries  int                   // required
	MaxSamples int                   // in memory at once, of one query; 0: 5,000,000
	Snapshot   string                // file that keeps the history over restarts; "": none
	URL        *url.URL              // required; of the console, that alerts link to
	Receivers  []Receiver            // of alerts
	Alerted    func(AlertChange)     // called in turn for each alert that begins to fire or ends; nil: none is
	Now        func() time.Time      // nil: time.Now
}

// Limits of queries: a dashboard needs far less.
const (
	queryTimeout = 10 * time.Second // of one query, its wait for a place included
	maxWaiting   = 64               // queries that wait for a place
	lookback     = 5 * time.Minute
)

// places is how many queries are evaluated at once: on half of the processors,
// so that the other half decides.
func places() int { return max(1, runtime.GOMAXPROCS(0)/2) }

// snapshotEvery is how often the history is written to the disk.
const snapshotEvery = 10 * time.Minute

// Monitor watches one gatherer. All methods are safe for concurrent use.
type Monitor struct {
	o      Options
	store  *history.Store
	engine *promql.Engine
	parser parser.Parser
	// watchful is an engine that looks at the time at each sample, for long queries.
	watchful *promql.Engine
	rules    *rules
	scraper  *scraper
	metrics  *metrics
	notifier *notifier
	started  time.Time
	places   chan struct{}
	asked    atomic.Int64             // queries that have a place or wait for one
	last     map[*history.Series]bool // that the last scrape wrote
	at       int64                    // when it was, in milliseconds
	version  string                   // of RulesFile, as read last
}

// New makes a monitor with the history of the last snapshot. A snapshot that
// cannot be read costs only the history.
func New(o Options) (*Monitor, error) {
	if o.Gatherer == nil || o.Metrics == nil || o.Log == nil {
		return nil, errors.New("monitor: Gatherer, Metrics and Log are required")
	}
	if o.Interval <= 0 || o.Retention <= 0 || o.MaxSeries <= 0 || o.Instance == "" || o.URL == nil {
		return nil, errors.New("monitor: Interval, Retention, MaxSeries, Instance and URL are required")
	}
	o.MaxSamples = cmp.Or(o.MaxSamples, 5_000_000)
	if o.Now == nil {
		o.Now = time.Now
	}
	m := &Monitor{
		o: o, started: o.Now(), places: make(chan struct{}, places()), parser: newParser(),
		scraper: &scraper{
			gatherer: o.Gatherer, builder: labels.NewScratchBuilder(16),
			target: []labels.Label{{Name: "instance", Value: o.Instance}, {Name: "job", Value: "routing-service"}},
		},
	}
	engine := promql.EngineOpts{
		Logger: o.Log, MaxSamples: o.MaxSamples, Timeout: queryTimeout, LookbackDelta: lookback, Parser: m.parser,
		EnableAtModifier: true, EnableNegativeOffset: true,
		NoStepSubqueryIntervalFn: func(int64) int64 { return o.Interval.Milliseconds() },
	}
	m.engine = promql.NewEngine(engine)
	engine.EnableQueryCost = true // without limits: with it the time is looked at while samples are read, too
	m.watchful = promql.NewEngine(engine)
	var err error
	if m.store, err = history.New(history.Options{MaxSeries: o.MaxSeries, Retention: o.Retention, File: o.Snapshot, Now: o.Now, Log: o.Log}); err != nil {
		return nil, err
	}
	m.rules = &rules{store: m.store, query: m.instant, url: o.URL, log: o.Log, parser: m.parser}
	m.notifier, m.metrics = newNotifier(&o), newMetrics(o.Metrics, m.store)
	content := o.Rules
	if o.RulesFile != "" {
		m.version = disk.Version(o.RulesFile)
		if content, err = readRules(o.RulesFile); err != nil {
			return nil, err
		}
	}
	if err := m.rules.load(content); err != nil {
		return nil, err
	}
	return m, nil
}

// Run scrapes, evaluates and notifies until ctx ends, and then writes the
// history.
func (m *Monitor) Run(ctx context.Context) error {
	var wait sync.WaitGroup
	wait.Go(func() { m.notifier.run(ctx) })
	defer wait.Wait()
	tick := time.NewTicker(m.o.Interval)
	defer tick.Stop()
	save := time.NewTicker(snapshotEvery)
	defer save.Stop()
	m.Step(ctx)
	for {
		select {
		case <-ctx.Done():
			m.store.Save()
			return m.store.Close()
		case <-tick.C:
			m.Step(ctx)
		case <-save.C:
			m.store.Save()
		}
	}
}

// Step scrapes and evaluates once. Run calls it; a test that has its own clock
// calls it itself, from one goroutine.
func (m *Monitor) Step(ctx context.Context) {
	begin := time.Now()
	now := m.o.Now()
	at := timestamp.FromTime(now)
	if m.last == nil || at < m.at { // at the start, or the clock was set back
		if err := m.store.Cut(at); err != nil {
			m.o.Log.Error("samples of a clock that was ahead could not be dropped", "error", err)
		}
	}
	m.at = at
	samples, err := m.scraper.scrape()
	up := 1.0
	if err != nil {
		up = 0
		m.metrics.scrapeFailures.Inc()
		m.o.Log.Warn("some metrics could not be gathered", "error", err)
	}
	samples = append(samples, m.scraper.own("up", up), m.scraper.own("scrape_samples_scraped", float64(len(samples))),
		m.scraper.own("scrape_duration_seconds", time.Since(begin).Seconds()))
	if m.last, err = m.store.Add(at, samples, m.last); err != nil {
		m.o.Log.Error("the monitor cannot keep samples", "error", err)
	}
	m.store.Forget(at)
	m.reloadRules()
	m.rules.evaluate(ctx, now, m.o.Interval)
	due := m.rules.due(now, repeatAfter)
	m.notifier.notify(due)
	m.alerted(due)
	m.store.Keep(now)
	m.metrics.took.Set(time.Since(begin).Seconds())
}

// instant evaluates an instant query of ours, which waits for no place.
func (m *Monitor) instant(ctx context.Context, expr string, at time.Time) (promql.Vector, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	q, err := m.prepare(ctx, nil, expr, at, at, 0)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	result := q.Exec(ctx)
	if result.Err != nil {
		return nil, result.Err
	}
	switch v := result.Value.(type) {
	case promql.Vector:
		return v, nil
	case promql.Scalar:
		return promql.Vector{{T: v.T, F: v.V}}, nil
	}
	return nil, errors.New("the expression gives neither a vector nor a number")
}

// reloadRules takes a changed rule file over; one with an error changes
// nothing.
func (m *Monitor) reloadRules() {
	version := disk.Version(m.o.RulesFile)
	if m.o.RulesFile == "" || version == m.version {
		return
	}
	m.version = version
	content, err := os.ReadFile(m.o.RulesFile)
	if err == nil {
		err = m.rules.load(content)
	}
	if err != nil {
		m.metrics.ruleFailures.Inc()
		m.o.Log.Error("the rule file changed and cannot be used; the rules of before stay", "file", m.o.RulesFile, "error", err)
		return
	}
	m.o.Log.Info("rules read again", "file", m.o.RulesFile)
}

// Handler serves Prometheus' read API below prefix, such as /prometheus.
func (m *Monitor) Handler(prefix string) http.Handler { return http.StripPrefix(prefix, m.api()) }
