package monitor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/template"

	"headway/internal/history"
)

// alertState is the label of ALERTS that has the state.
const alertState = "alertstate"

// The states of an alert, as Prometheus names them.
const (
	inactive = "inactive"
	pending  = "pending"
	firing   = "firing"
)

// resolvedFor is how long receivers are notified that an alert ended, as in
// Prometheus: one of them may have been away.
const resolvedFor = 15 * time.Minute

// maxAlerts bounds the alerts of one rule.
const maxAlerts = 1000

// maxRules bounds a rule file.
const maxRules = 1 << 20

// rules evaluates rule groups.
type rules struct {
	store  *history.Store
	query  template.QueryFunc
	url    *url.URL // of the page that alerts link to
	log    *slog.Logger
	parser parser.Parser

	mu     sync.RWMutex
	groups []*group
}

// group is a set of rules that are evaluated together, in order.
type group struct {
	name     string
	interval time.Duration
	limit    int
	rules    []*rule
	last     time.Time // of the last evaluation
	took     time.Duration
}

// rule is one alerting or recording rule. rules.mu guards what changes.
type rule struct {
	rulefmt.Rule
	labels  map[string]string // the group's and its own
	expr    parser.Expr
	active  map[uint64]*alert
	written map[*history.Series]bool // by the last evaluation
	resumed bool                     // whether the alerts of before the start were taken over
	err     error                    // of the last evaluation
	last    time.Time
	took    time.Duration
}

// alert is one instance of an alerting rule.
type alert struct {
	labels, annotations labels.Labels
	state               string
	value               float64
	activeAt            time.Time
	firedAt             time.Time
	keptSince           time.Time
	resolvedAt          time.Time
	notifiedAt          time.Time // when receivers were notified last
	changed             bool      // in a batch: it began to fire, or ended
}

// load reads a rule file and takes its groups over. A file with an error
// leaves the groups as they are. Alerts of rules that stay keep their state.
func (r *rules) load(content []byte) error {
	groups, err := parseRules(content, r.parser, r.log)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range groups {
		r.inherit(g)
		for _, one := range g.rules {
			one.resumed = one.resumed || r.groups != nil // what comes later has no alerts of before the start
		}
	}
	r.groups = groups
	return nil
}

// CheckRules reads a rule file and returns what is wrong with it.
func CheckRules(path string, log *slog.Logger) error {
	content, err := readRules(path)
	if err != nil {
		return err
	}
	if _, err = parseRules(content, newParser(), log); err != nil {
		return fmt.Errorf("%s (monitor.rules_file): %w", path, err)
	}
	return nil
}

func readRules(path string) ([]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the rules (monitor.rules_file): %w", err)
	}
	return content, nil
}

func parseRules(content []byte, p parser.Parser, log *slog.Logger) (groups []*group, err error) {
	if len(content) > maxRules {
		return nil, fmt.Errorf("the rules have %d bytes, at most %d are read", len(content), maxRules)
	}
	parsed, errs := rulefmt.Parse(content, false, model.UTF8Validation, p, log)
	if len(errs) > 0 {
		lines := slices.Compact(strings.Split(errors.Join(errs...).Error(), "\n")) // the library repeats some
		return nil, errors.New("the rules are invalid: " + strings.Join(lines, "; "))
	}
	for _, g := range parsed.Groups {
		fresh := &group{name: g.Name, interval: time.Duration(g.Interval), limit: g.Limit}
		for _, one := range g.Rules {
			expr, err := p.ParseExpr(one.Expr)
			if err != nil {
				return nil, fmt.Errorf("rule %s: %w", cmp.Or(one.Alert, one.Record), err)
			}
			all := map[string]string{}
			maps.Copy(all, g.Labels)
			maps.Copy(all, one.Labels)
			fresh.rules = append(fresh.rules, &rule{Rule: one, labels: all, expr: expr, active: map[uint64]*alert{}})
		}
		groups = append(groups, fresh)
	}
	return groups, nil
}

// inherit takes over the state of rules that the group had before.
func (r *rules) inherit(g *group) {
	for _, old := range r.groups {
		if old.name != g.name {
			continue
		}
		g.last = old.last
		for _, fresh := range g.rules {
			for _, was := range old.rules {
				if was.Alert == fresh.Alert && was.Record == fresh.Record && was.Expr == fresh.Expr && maps.Equal(was.labels, fresh.labels) {
					fresh.active, fresh.written, fresh.resumed = was.active, was.written, was.resumed
				}
			}
		}
	}
}

// evaluate evaluates the groups that are due at now.
func (r *rules) evaluate(ctx context.Context, now time.Time, every time.Duration) {
	r.mu.RLock()
	groups := r.groups
	r.mu.RUnlock()
	for _, g := range groups {
		interval := cmp.Or(g.interval, every)
		if !g.last.IsZero() && now.Sub(g.last) < interval {
			continue
		}
		begin := time.Now()
		for _, one := range g.rules {
			r.run(ctx, g, one, now)
		}
		r.mu.Lock()
		g.last, g.took = now, time.Since(begin)
		r.mu.Unlock()
	}
}

func (r *rules) run(ctx context.Context, g *group, one *rule, now time.Time) {
	begin := time.Now()
	result, err := r.query(ctx, one.expr.String(), now)
	var samples []history.Sample
	if err == nil {
		if one.Alert != "" {
			samples, err = r.alerts(ctx, one, result, now)
		} else {
			samples, err = one.record(result)
		}
	}
	if err == nil && g.limit > 0 && len(samples) > g.limit {
		err = fmt.Errorf("it gives %d series, more than its group's limit of %d", len(samples), g.limit)
		samples = nil
	}
	if err == nil {
		one.written, err = r.store.Add(timestamp.FromTime(now), samples, one.written)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && one.err == nil {
		r.log.Warn("a rule cannot be evaluated", "group", g.name, "rule", cmp.Or(one.Alert, one.Record), "error", err)
	}
	one.err, one.last, one.took = err, now, time.Since(begin)
}

var errTwice = errors.New("two results have the same labels")

func (one *rule) record(result promql.Vector) ([]history.Sample, error) {
	samples := make([]history.Sample, 0, len(result))
	seen := map[uint64]bool{}
	for _, s := range result {
		b := labels.NewBuilder(s.Metric)
		b.Set(model.MetricNameLabel, one.Record)
		for name, value := range one.labels {
			b.Set(name, value)
		}
		l := b.Labels()
		if seen[l.Hash()] {
			return nil, errTwice
		}
		seen[l.Hash()] = true
		samples = append(samples, history.Sample{Labels: l, Value: s.F})
	}
	return samples, nil
}

// alerts takes the result of an alerting rule over into its alerts and returns
// the samples of ALERTS and ALERTS_FOR_STATE.
func (r *rules) alerts(ctx context.Context, one *rule, result promql.Vector, now time.Time) ([]history.Sample, error) {
	if len(result) > maxAlerts {
		return nil, fmt.Errorf("it gives %d alerts, at most %d are kept", len(result), maxAlerts)
	}
	found := make(map[uint64]*alert, len(result))
	for _, s := range result {
		fresh := r.instance(ctx, one, s, now)
		if found[fresh.labels.Hash()] != nil {
			return nil, errTwice
		}
		found[fresh.labels.Hash()] = fresh
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !one.resumed {
		one.resumed = true
		r.resume(one, found, now)
	}
	for hash, fresh := range found {
		if known := one.active[hash]; known != nil && known.state != inactive {
			known.value, known.annotations = fresh.value, fresh.annotations
		} else {
			one.active[hash] = fresh
		}
	}
	var samples []history.Sample
	for hash, a := range one.active {
		if found[hash] == nil && !one.keep(hash, a, now) {
			continue
		}
		if found[hash] != nil {
			a.keptSince = time.Time{}
		}
		if a.state == pending && now.Sub(a.activeAt) >= time.Duration(one.For) {
			a.state, a.firedAt = firing, now
		}
		samples = append(samples, a.samples()...)
	}
	return samples, nil
}

// keep decides what becomes of an alert whose expression has no result any
// more: true while it goes on firing for keep_firing_for.
func (one *rule) keep(hash uint64, a *alert, now time.Time) bool {
	if a.state == firing && one.KeepFiringFor > 0 {
		if a.keptSince.IsZero() {
			a.keptSince = now
		}
		if now.Sub(a.keptSince) < time.Duration(one.KeepFiringFor) {
			return true
		}
	}
	if a.state == pending || !a.resolvedAt.IsZero() && now.Sub(a.resolvedAt) > resolvedFor {
		delete(one.active, hash)
	}
	if a.state != inactive {
		a.state, a.resolvedAt = inactive, now
	}
	return false
}

func (a *alert) samples() []history.Sample {
	b := labels.NewBuilder(a.labels)
	b.Set(model.MetricNameLabel, "ALERTS")
	b.Set(alertState, a.state)
	shown := b.Labels()
	b.Reset(a.labels)
	b.Set(model.MetricNameLabel, "ALERTS_FOR_STATE")
	return []history.Sample{{Labels: shown, Value: 1}, {Labels: b.Labels(), Value: float64(a.activeAt.Unix())}}
}

// isTemplate says whether a label or an annotation has to be expanded.
func isTemplate(text string) bool { return strings.Contains(text, "{{") }

// variables are what templates of alerts may use.
const variables = `{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}{{$externalURL := .ExternalURL}}{{$value := .Value}}`

func (r *rules) instance(ctx context.Context, one *rule, s promql.Sample, now time.Time) *alert {
	data := template.AlertTemplateData(s.Metric.Map(), nil, r.url.String(), s)
	expanded := func(text string) string {
		result, err := expand(ctx, variables+text, "__alert_"+one.Alert, data, r.query, r.url, now)
		if err != nil {
			return fmt.Sprintf("<error expanding template: %s>", err)
		}
		return result
	}
	b := labels.NewBuilder(s.Metric)
	b.Del(model.MetricNameLabel)
	for name, value := range one.labels {
		b.Set(name, expanded(value))
	}
	b.Set(labels.AlertName, one.Alert)
	notes := map[string]string{}
	for name, value := range one.Annotations {
		notes[name] = expanded(value)
	}
	return &alert{labels: b.Labels(), annotations: labels.FromMap(notes), state: pending, value: s.F, activeAt: now}
}

// due returns the alerts to notify receivers of: those that fire, each again
// after a while, and those that ended; and all of the same names.
func (r *rules) due(now time.Time, again time.Duration) batch {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := batch{at: now}
	names := map[string]bool{}
	for _, a := range r.fired() {
		ended := a.state == inactive && a.resolvedAt.After(a.notifiedAt)
		if ended || now.Sub(a.notifiedAt) >= again && (a.state == firing || !a.notifiedAt.IsZero()) {
			copied := *a
			copied.changed = ended || a.state == firing && a.notifiedAt.Before(a.firedAt)
			a.notifiedAt = now
			b.alerts = append(b.alerts, &copied)
			names[a.labels.Get(labels.AlertName)] = true
		}
	}
	for _, a := range r.fired() {
		if names[a.labels.Get(labels.AlertName)] {
			copied := *a
			b.groups = append(b.groups, &copied)
		}
	}
	for _, list := range [][]*alert{b.alerts, b.groups} {
		slices.SortFunc(list, func(a, b *alert) int { return labels.Compare(a.labels, b.labels) })
	}
	return b
}

// fired are the alerts that fire, and those that ended and are not forgotten
// yet; r.mu must be held.
func (r *rules) fired() (list []*alert) {
	for _, g := range r.groups {
		for _, one := range g.rules {
			for _, a := range one.active {
				if a.state != pending && !a.firedAt.IsZero() {
					list = append(list, a)
				}
			}
		}
	}
	return list
}
