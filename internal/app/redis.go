package app

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/audit"
	"headway/internal/outbound"
	"headway/internal/redisaudit"
	"headway/internal/trail"
)

// cursorFile keeps in the data directory how far the audit trail was published.
const cursorFile = "redis.cursor"

// redisTimeout is for connecting to an external one.
const redisTimeout = 2 * time.Second

// readRedis makes what publishes on an external Redis, which is not called yet,
// and refuses an address of the embedded one that others can reach.
func (a *App) readRedis() (external trail.Sink, err error) {
	c := a.config.Redis
	switch c.Mode {
	case "off":
		return nil, nil
	case "external":
	default:
		return nil, redisaudit.CheckListen(c.Listen)
	}
	if c.URL == "" {
		return nil, errors.New("redis.mode is external, but redis.url names no server")
	}
	if err := mayCall("redis.url", c.URL); err != nil {
		return nil, err
	}
	sink, err := redisaudit.Open(redisaudit.Options{
		URL: c.URL, PasswordFile: c.PasswordFile, Channel: c.Channel, Stream: c.Stream, Counted: a.outside.counts("redis"),
		Dial: outbound.NewDialer(outbound.Options{Timeout: redisTimeout}).DialContext,
	})
	if err != nil {
		return nil, err
	}
	a.stops = append(a.stops, sink.Close)
	return sink, nil
}

// openRedis makes what publishes the audit trail on its Redis channel: on the
// external sink, or on a server of our own.
func (a *App) openRedis(ctx context.Context, metrics prometheus.Registerer, sink trail.Sink) error {
	c := a.config.Redis
	switch c.Mode {
	case "off":
		return nil
	case "external":
	default:
		ended := prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headway_redis_clients_ended_total",
			Help: "Clients that the embedded Redis refused or ended: full (subscribers have all places), displaced (it subscribed nothing, and its place was needed), silent (it subscribed, sent nothing for a minute, and its place was needed), protocol, http, talkative, slow, idle (it subscribed nothing for five minutes), unfinished (the rest of a command did not come), panic.",
		}, []string{"reason"})
		for _, reason := range redisaudit.Reasons {
			ended.WithLabelValues(reason)
		}
		embedded, err := redisaudit.Listen(ctx, redisaudit.EmbeddedOptions{
			Listen: c.Listen, Channel: c.Channel, Log: a.log,
			Ended: func(reason string) { ended.WithLabelValues(reason).Inc() },
		})
		if errors.Is(err, syscall.EADDRINUSE) {
			// A second service on this machine must start all the same.
			a.log.Warn("the audit trail is not published: another process has the address of the embedded Redis; choose another with redis.listen, or say redis.mode: external or off", "addr", c.Listen)
			return nil
		}
		if err != nil {
			return err
		}
		a.stops = append(a.stops, embedded.Close)
		a.redis, sink = embedded, embedded
		if err := metrics.Register(ended); err != nil {
			return err
		}
	}
	shipper, err := trail.NewShipper(trail.ShipperOptions{
		Path: a.trail, CursorPath: filepath.Join(a.config.DataDir, cursorFile), Sink: sink, Log: a.log,
		Durable: func() uint64 { return a.journal.Stats().LastSeq },
	})
	if err != nil {
		return err
	}
	a.shipper.Store(shipper)
	return metrics.Register(newShipMetrics(shipper, "redis"))
}

// ship publishes the audit trail until ctx ends.
func (a *App) ship(ctx context.Context) error {
	if s := a.shipper.Load(); s != nil {
		return s.Run(ctx)
	}
	return nil
}

// publishCheckpoint has a checkpoint published after the records it covers.
func (a *App) publishCheckpoint(c audit.Checkpoint) {
	for _, shipper := range []*atomic.Pointer[trail.Shipper]{&a.shipper, &a.queueShipper} {
		if s := shipper.Load(); s != nil {
			s.Checkpoint(c)
		}
	}
}

// shipMetrics shows what a shipper counts.
type shipMetrics struct {
	shipper *trail.Shipper
	values  []shipValue
}

type shipValue struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(*trail.ShipperStats) float64
}

func newShipMetrics(shipper *trail.Shipper, sink string) *shipMetrics {
	m := &shipMetrics{shipper: shipper}
	add := func(kind prometheus.ValueType, name, help string, of func(*trail.ShipperStats) float64) {
		desc := prometheus.NewDesc(name, help, nil, prometheus.Labels{"sink": sink})
		m.values = append(m.values, shipValue{desc, kind, of})
	}
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue
	add(counter, "headway_audit_shipped_total", "Records of the audit trail that arrived at the sink, repetitions included.", func(s *trail.ShipperStats) float64 { return float64(s.Shipped) })
	add(counter, "headway_audit_unheard_total", "Records that arrived at the sink and were received by nobody.", func(s *trail.ShipperStats) float64 { return float64(s.Unheard) })
	add(counter, "headway_audit_ship_missed_total", "Records whose file was gone before they were shipped.", func(s *trail.ShipperStats) float64 { return float64(s.Missed) })
	add(counter, "headway_audit_ship_failures_total", "Attempts to ship that failed and were repeated.", func(s *trail.ShipperStats) float64 { return float64(s.Failures) })
	add(gauge, "headway_audit_ship_lag_records", "Records that have not arrived at the sink.", func(s *trail.ShipperStats) float64 { return float64(s.Lag) })
	add(gauge, "headway_audit_ship_lag_seconds", "Age of the oldest record that has not arrived at the sink.", func(s *trail.ShipperStats) float64 { return s.LagTime.Seconds() })
	add(gauge, "headway_audit_receivers", "Subscribers that received the last records.", func(s *trail.ShipperStats) float64 { return float64(max(0, s.Receivers)) })
	return m
}

// Describe implements prometheus.Collector.
func (m *shipMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, v := range m.values {
		ch <- v.desc
	}
}

// Collect implements prometheus.Collector.
func (m *shipMetrics) Collect(ch chan<- prometheus.Metric) {
	s := m.shipper.Stats()
	for _, v := range m.values {
		ch <- prometheus.MustNewConstMetric(v.desc, v.kind, v.of(&s))
	}
}
