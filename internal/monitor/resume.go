package monitor

import (
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"headway/internal/history"
)

// outageTolerance is how old the history may be that alerts are resumed from, as
// in Prometheus: what was longer ago says nothing of now.
const outageTolerance = time.Hour

// resume takes the alerts over that a rule had when the service ended, from
// ALERTS_FOR_STATE as Prometheus does. The time without the service does not
// count as waited. An alert that fired fires on, and one whose reason has gone
// meanwhile ends by the rules of every other. found are the alerts of now;
// rules.mu must be held.
func (r *rules) resume(one *rule, found map[uint64]*alert, now time.Time) {
	name := labels.Label{Name: labels.AlertName, Value: one.Alert}
	since := now.Add(-outageTolerance)
	firedAt := map[uint64]time.Time{}
	one.written = map[*history.Series]bool{}
	for _, e := range r.store.Endings("ALERTS", name, since) {
		one.written[e.Series] = true
		if e.Labels.Get(alertState) == firing {
			firedAt[ofAlert(e.Labels).Hash()] = e.At
		}
	}
	for _, e := range r.store.Endings("ALERTS_FOR_STATE", name, since) {
		one.written[e.Series] = true
		was := &alert{labels: ofAlert(e.Labels), state: pending, activeAt: time.Unix(int64(e.Value), 0).Add(now.Sub(e.At))}
		hash := was.labels.Hash()
		if last, fired := firedAt[hash]; fired {
			was.activeAt = time.Unix(int64(e.Value), 0)
			was.state, was.firedAt, was.notifiedAt = firing, was.activeAt.Add(time.Duration(one.For)), last
		}
		if of := found[hash]; of != nil {
			was.labels, was.annotations, was.value = of.labels, of.annotations, of.value
		} else if !one.makes(was.labels) {
			continue
		}
		if len(one.active) < maxAlerts {
			one.active[hash] = was
		}
	}
}

// makes says whether a rule gives alerts of such labels: those that it sets
// itself without a template must be there.
func (one *rule) makes(l labels.Labels) bool {
	for name, value := range one.labels {
		if !isTemplate(value) && l.Get(name) != value {
			return false
		}
	}
	return true
}

// ofAlert are the labels of an alert whose series this is.
func ofAlert(l labels.Labels) labels.Labels {
	return labels.NewBuilder(l).Del(model.MetricNameLabel, alertState).Labels()
}
