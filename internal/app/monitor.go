package app

import (
	"net"
	"net/http"
	"net/url"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"headway/grafana"
	"headway/internal/config"
	"headway/internal/console"
	"headway/internal/monitor"
	rules "headway/prometheus"
)

// historyFile keeps in the data directory what the monitor remembers over a
// restart.
const historyFile = "monitor.history"

// openMonitor makes the monitor and the pages that show it; neither is there
// when the configuration switches them off.
func (a *App) openMonitor(metrics *prometheus.Registry) (err error) {
	c := a.config.Monitor
	if !c.Enabled {
		return nil
	}
	base := a.baseURL()
	o := monitor.Options{
		Gatherer: metrics, Metrics: metrics, Log: a.log, Rules: rules.Rules, RulesFile: c.RulesFile, Instance: base.Host,
		Interval: c.Interval, Retention: c.Retention, MaxSeries: c.MaxSeries,
		Snapshot: filepath.Join(a.config.DataDir, historyFile), URL: base,
		Told: func(kind string, err error) {
			status := "success"
			if err != nil {
				status = "error"
			}
			a.outside.calls.WithLabelValues(kind, status).Inc()
		},
	}
	client := &http.Client{Timeout: c.Timeout}
	for _, receiver := range receivers(c) {
		receiver.Client = client
		o.Receivers = append(o.Receivers, receiver)
	}
	if a.monitor, err = monitor.New(o); err != nil {
		return err
	}
	a.console, err = console.New(grafana.Dashboards())
	return err
}

func receivers(c config.Monitor) (list []monitor.Receiver) {
	for _, u := range c.Alertmanagers {
		list = append(list, monitor.Receiver{URL: u, Kind: monitor.Alertmanager})
	}
	for _, u := range c.AlertWebhooks {
		list = append(list, monitor.Receiver{URL: u, Kind: monitor.Webhook})
	}
	return list
}

// baseURL is where people reach the service. A loopback address is localhost, as
// in prometheus.yml, so that the history goes by the same name in both.
func (a *App) baseURL() *url.URL {
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

// A nil pointer in an interface is not nil, hence the two.

func (a *App) monitorHandler() http.Handler {
	if a.monitor == nil {
		return nil
	}
	return a.monitor.Handler("/prometheus")
}

func (a *App) consoleHandler() http.Handler {
	if a.console == nil {
		return nil
	}
	return a.console
}
