package monitor

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// describedMetric is one entry of the metadata.
type describedMetric struct {
	Type string `json:"type"`
	Help string `json:"help"`
	Unit string `json:"unit"`
}

func (m *Monitor) metadata(_ context.Context, form url.Values, _ *http.Request) (result, error) {
	limit, err := atMost(form)
	if err != nil {
		return result{}, err
	}
	families, err := m.o.Gatherer.Gather()
	if err != nil && len(families) == 0 {
		return result{}, err
	}
	all := map[string][]describedMetric{}
	for _, f := range families {
		if only := form.Get("metric"); len(all) < limit && (only == "" || only == f.GetName()) {
			all[f.GetName()] = []describedMetric{{Type: strings.ToLower(f.GetType().String()), Help: f.GetHelp(), Unit: f.GetUnit()}}
		}
	}
	return result{data: all}, nil
}

// shownAlert is an alert as Prometheus shows it.
type shownAlert struct {
	Labels      labels.Labels `json:"labels"`
	Annotations labels.Labels `json:"annotations"`
	State       string        `json:"state"`
	ActiveAt    time.Time     `json:"activeAt"`
	Value       string        `json:"value"`
}

type shownRule struct {
	State       string            `json:"state,omitzero"`
	Name        string            `json:"name"`
	Query       string            `json:"query"`
	Duration    *float64          `json:"duration,omitzero"`
	KeepFiring  *float64          `json:"keepFiringFor,omitzero"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations,omitzero"`
	Alerts      *[]shownAlert     `json:"alerts,omitzero"`
	Health      string            `json:"health"`
	LastError   string            `json:"lastError,omitzero"`
	EvalTime    float64           `json:"evaluationTime"`
	LastEval    time.Time         `json:"lastEvaluation"`
	Type        string            `json:"type"`
}

type shownGroup struct {
	Name     string      `json:"name"`
	File     string      `json:"file"`
	Rules    []shownRule `json:"rules"`
	Interval float64     `json:"interval"`
	Limit    int         `json:"limit"`
	EvalTime float64     `json:"evaluationTime"`
	LastEval time.Time   `json:"lastEvaluation"`
}

func (m *Monitor) listRules(_ context.Context, form url.Values, _ *http.Request) (result, error) {
	kind := form.Get("type")
	if kind != "" && kind != "alert" && kind != "record" {
		return result{}, bad("not supported value %q", kind)
	}
	m.rules.mu.RLock()
	defer m.rules.mu.RUnlock()
	groups := []shownGroup{}
	for _, g := range m.rules.groups {
		shown := shownGroup{
			Name: g.name, File: cmp.Or(m.o.RulesFile, "built in"), Rules: []shownRule{}, Interval: cmp.Or(g.interval, m.o.Interval).Seconds(), Limit: g.limit,
			EvalTime: g.took.Seconds(), LastEval: g.last.UTC(),
		}
		for _, one := range g.rules {
			if kind == "" || (kind == "alert") == (one.Alert != "") {
				shown.Rules = append(shown.Rules, one.show())
			}
		}
		groups = append(groups, shown)
	}
	return result{data: map[string]any{"groups": groups}}, nil
}

// show describes a rule; rules.mu must be held.
func (one *rule) show() shownRule {
	s := shownRule{
		Query: one.expr.String(), Labels: one.labels, Health: "ok",
		EvalTime: one.took.Seconds(), LastEval: one.last.UTC(),
	}
	if one.last.IsZero() {
		s.Health = "unknown"
	}
	if one.err != nil {
		s.Health, s.LastError = "err", one.err.Error()
	}
	if one.Record != "" {
		s.Name, s.Type = one.Record, "recording"
		return s
	}
	alerts := one.shownAlerts()
	hold, keep := time.Duration(one.For).Seconds(), time.Duration(one.KeepFiringFor).Seconds()
	s.Name, s.Type, s.Alerts, s.Annotations, s.Duration, s.KeepFiring = one.Alert, "alerting", &alerts, one.Annotations, &hold, &keep
	s.State = inactive
	for _, a := range alerts {
		if a.State == firing || s.State == inactive {
			s.State = a.State
		}
	}
	return s
}

func (one *rule) shownAlerts() []shownAlert {
	list := []shownAlert{}
	for _, a := range one.active {
		if a.state != inactive {
			list = append(list, shownAlert{a.labels, a.annotations, a.state, a.activeAt.UTC(), formatValue(a.value)})
		}
	}
	return list
}

func (m *Monitor) listAlerts() any {
	m.rules.mu.RLock()
	defer m.rules.mu.RUnlock()
	all := []shownAlert{}
	for _, g := range m.rules.groups {
		for _, one := range g.rules {
			all = append(all, one.shownAlerts()...)
		}
	}
	return map[string]any{"alerts": all}
}

// promqlVersion is the release whose PromQL is evaluated.
const promqlVersion = "3.16.0"

// buildInfo is what a Grafana data source asks to learn what it talks to.
func (m *Monitor) buildInfo() any {
	return map[string]string{"version": promqlVersion, "revision": "headway", "branch": "", "buildUser": "", "buildDate": "", "goVersion": ""}
}

// config is a part of Prometheus' configuration. The console reads from it how
// often there are samples.
func (m *Monitor) config() any {
	every := model.Duration(m.o.Interval).String()
	return map[string]string{"yaml": "global:\n  scrape_interval: " + every + "\n  evaluation_interval: " + every + "\n"}
}

func (m *Monitor) runtimeInfo() any {
	count, _, _ := m.store.Usage()
	return map[string]any{
		"startTime": m.started.UTC(), "reloadConfigSuccess": true, "timeSeriesCount": count, "storageRetention": m.o.Retention.String(),
	}
}
