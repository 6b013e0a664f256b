// Package monitor is the package's surface with nothing behind it. A binary
// that is built with it in the place of the true one shows what that one adds.
package monitor

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/outbound"
)

type Options struct {
	Gatherer              prometheus.Gatherer
	Metrics               prometheus.Registerer
	Log                   *slog.Logger
	Rules                 []byte
	RulesFile             string
	Instance, Job         string
	Interval, Retention   time.Duration
	MaxSeries, MaxSamples int
	Snapshot              string
	URL                   *url.URL
	Receivers             []Receiver
	Alerted               func(AlertChange)
	Now                   func() time.Time
}

type Receiver struct {
	URL, Kind string
	Client    *http.Client
	Count     *outbound.Counter
}

type AlertChange struct {
	Firing              bool
	At                  time.Time
	Labels, Annotations map[string]string
}

const (
	Alertmanager = "alertmanager"
	Webhook      = "webhook"
)

type Monitor struct{}

func New(Options) (*Monitor, error)            { return &Monitor{}, nil }
func (m *Monitor) Run(context.Context) error   { return promql(m) }
func (m *Monitor) Handler(string) http.Handler { return http.NotFoundHandler() }

func CheckRules(string, *slog.Logger) error { return nil }
