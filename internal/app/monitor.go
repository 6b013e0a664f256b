package app

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strings"

	"headway/grafana"
	"headway/internal/console"
	"headway/internal/event"
	"headway/internal/monitor"
	"headway/internal/outbound"
	rules "headway/prometheus"
)

// historyFile is the monitor's history in the data directory.
const historyFile = "monitor.history"

// openMonitor makes the monitor and its pages, unless they are disabled.
func (a *App) openMonitor(context.Context) (err error) {
	c := a.config.Monitor
	if !c.Enabled {
		return nil
	}
	base := cmp.Or(a.external(), a.ownURL()) // where users reach the service
	o := monitor.Options{
		Gatherer: a.metrics, Metrics: a.metrics, Log: a.log, Rules: rules.RulesFor(base.String()), RulesFile: c.RulesFile, Instance: a.ownURL().Host,
		Interval: c.Interval, Retention: c.Retention, MaxSeries: c.MaxSeries,
		Snapshot: filepath.Join(a.config.DataDir, historyFile), URL: base,
		Alerted: a.publishAlert,
	}
	client := outbound.NewClient(outbound.Options{Timeout: c.Timeout}) // the monitor counts
	for _, u := range c.Alertmanagers {
		o.Receivers = append(o.Receivers, monitor.Receiver{URL: u, Kind: monitor.Alertmanager, Client: client, Count: a.calls.Alertmanager})
	}
	for _, u := range c.AlertWebhooks {
		o.Receivers = append(o.Receivers, monitor.Receiver{URL: u, Kind: monitor.Webhook, Client: client, Count: a.calls.Webhook})
	}
	if a.monitor, err = monitor.New(o); err != nil {
		return err
	}
	a.monitorPages = a.monitor.Handler("/prometheus")
	a.console, err = console.New(grafana.DashboardsFor(base.String()))
	return err
}

// AlertState is the data of an event about an alert.
type AlertState struct {
	Alert       string            `json:"alert"`
	Severity    string            `json:"severity,omitempty"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"` // what it means, and the runbook
}

// LogValue writes the state as fields.
func (s AlertState) LogValue() slog.Value {
	return slog.GroupValue(slog.String("alert", s.Alert), slog.String("severity", s.Severity), slog.String("summary", s.Annotations["summary"]))
}

// publishAlert publishes an alert as an event, for webhooks and streams.
func (a *App) publishAlert(c monitor.AlertChange) {
	e := event.Event{
		Type: event.AlertResolved, Time: c.At, Region: c.Labels["region"],
		Data: AlertState{Alert: c.Labels["alertname"], Severity: c.Labels["severity"], Labels: c.Labels, Annotations: c.Annotations},
	}
	if c.Firing {
		e.Type = event.AlertFiring
	}
	if m := c.Labels["model_type"]; m != "" {
		e.ModelTypes = []string{m}
	}
	a.events.Publish(e)
}

// external is the configured URL of the service, nil without one.
func (a *App) external() *url.URL {
	u, err := url.Parse(strings.TrimSuffix(a.config.External, "/"))
	if a.config.External == "" || err != nil { // the configuration has checked it
		return nil
	}
	return u
}

// ownURL is where the service listens. A loopback address is localhost, as in
// prometheus.yml, so that both have the same instance.
func (a *App) ownURL() *url.URL {
	u := &url.URL{Scheme: "http", Host: a.Addr().String()}
	if a.certs != nil {
		u.Scheme = "https"
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil {
		return u
	}
	if ip := net.ParseIP(host); ip.IsLoopback() || ip.IsUnspecified() {
		u.Host = net.JoinHostPort("localhost", port)
	}
	return u
}
