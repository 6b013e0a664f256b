package trail

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

func (s *Shipper) register(metrics prometheus.Registerer) {
	to, labels := promauto.With(metrics), prometheus.Labels{"sink": s.o.Name} // nil: nowhere
	value := func(of func(*ShipperStats) float64) func() float64 {
		return func() float64 {
			st := s.Stats()
			return of(&st)
		}
	}
	counter := func(name, help string, of func(*ShipperStats) float64) {
		to.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, value(of))
	}
	gauge := func(name, help string, of func(*ShipperStats) float64) {
		to.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value(of))
	}
	counter("headway_audit_shipped_total", "Records of the audit trail that arrived at the sink, repetitions included.", func(s *ShipperStats) float64 { return float64(s.Shipped) })
	counter("headway_audit_unheard_total", "Records that arrived at the sink and had no receiver.", func(s *ShipperStats) float64 { return float64(s.Unheard) })
	counter("headway_audit_ship_missed_total", "Records whose file was gone before they were shipped.", func(s *ShipperStats) float64 { return float64(s.Missed) })
	counter("headway_audit_ship_failures_total", "Attempts to ship that failed and were repeated.", func(s *ShipperStats) float64 { return float64(s.Failures) })
	gauge("headway_audit_ship_lag_records", "Records that have not arrived at the sink.", func(s *ShipperStats) float64 { return float64(s.Lag) })
	gauge("headway_audit_ship_lag_seconds", "Age of the oldest record that has not arrived at the sink.", func(s *ShipperStats) float64 { return s.LagTime.Seconds() })
	gauge("headway_audit_receivers", "Subscribers that received the last records.", func(s *ShipperStats) float64 { return float64(max(0, s.Receivers)) })
}
