package monitor

import (
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// webhookRepeat is when a receiver of webhooks gets alerts that still fire once
// more, as by Alertmanager's default.
const webhookRepeat = 4 * time.Hour

// maxPosted bounds the alerts of one message; the rest is counted in it.
const maxPosted = 1000

// webhookMessage is what Alertmanager posts to webhooks, version 4.
type webhookMessage struct {
	Receiver          string            `json:"receiver"`
	Status            string            `json:"status"`
	Alerts            []webhookAlert    `json:"alerts"`
	GroupLabels       map[string]string `json:"groupLabels"`
	CommonLabels      map[string]string `json:"commonLabels"`
	CommonAnnotations map[string]string `json:"commonAnnotations"`
	ExternalURL       string            `json:"externalURL"`
	Version           string            `json:"version"`
	GroupKey          string            `json:"groupKey"`
	TruncatedAlerts   uint64            `json:"truncatedAlerts"`
}

// webhookAlert is one alert in it. One that fires has the zero time as its end.
type webhookAlert struct {
	Status       string            `json:"status"`
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL"`
	Fingerprint  string            `json:"fingerprint"`
}

// delivered is what a receiver of webhooks knows of the alerts of one name, in
// which they are grouped.
type delivered struct {
	states map[string]string // by fingerprint
	at     time.Time
}

// message makes the message of one group, and what its receiver knows after it.
// There is none while nothing changed: Alertmanager would be silent, too. A
// message has every alert of the group that fires, since receivers take its
// status for that of the group, and those that ended since the last.
func (l *lane) message(name string, alerts []*alert, now time.Time) (*webhookMessage, delivered) {
	before := l.delivered[name]
	after := delivered{map[string]string{}, now}
	m := &webhookMessage{
		Receiver: "headway", Status: "resolved", Alerts: []webhookAlert{}, ExternalURL: l.external, Version: "4",
		GroupLabels: map[string]string{labels.AlertName: name}, GroupKey: fmt.Sprintf("{}:{%s=%q}", labels.AlertName, name),
	}
	changed := now.Sub(before.at) >= webhookRepeat
	for _, a := range alerts {
		one := webhookAlert{
			Status: "firing", Labels: a.labels.Map(), Annotations: a.annotations.Map(), StartsAt: a.firedAt.UTC(),
			GeneratorURL: l.source, Fingerprint: fingerprint(a.labels),
		}
		if a.state == inactive {
			one.Status, one.EndsAt = "resolved", a.resolvedAt.UTC()
		} else {
			m.Status = "firing"
		}
		after.states[one.Fingerprint] = one.Status
		known := before.states[one.Fingerprint] == one.Status
		if changed = changed || !known; !known || one.Status == "firing" {
			m.Alerts = append(m.Alerts, one)
		}
	}
	if !changed || len(m.Alerts) == 0 {
		return nil, before
	}
	if n := len(m.Alerts); n > maxPosted {
		m.Alerts, m.TruncatedAlerts = m.Alerts[:maxPosted], uint64(n-maxPosted)
	}
	m.CommonLabels = common(m.Alerts, func(a webhookAlert) map[string]string { return a.Labels })
	m.CommonAnnotations = common(m.Alerts, func(a webhookAlert) map[string]string { return a.Annotations })
	return m, after
}

// fingerprint is the name of an alert that receivers know it by again, made as
// Alertmanager makes it.
func fingerprint(l labels.Labels) string {
	set := model.LabelSet{}
	l.Range(func(one labels.Label) { set[model.LabelName(one.Name)] = model.LabelValue(one.Value) })
	return set.Fingerprint().String()
}

// common are the pairs that all alerts have.
func common(alerts []webhookAlert, of func(webhookAlert) map[string]string) map[string]string {
	all := map[string]string{}
	for name, value := range of(alerts[0]) {
		if !slices.ContainsFunc(alerts, func(a webhookAlert) bool { v, ok := of(a)[name]; return !ok || v != value }) {
			all[name] = value
		}
	}
	return all
}
