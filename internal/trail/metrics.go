package trail

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

func (s *Shipper) register(metrics prometheus.Registerer) error {
	labels := prometheus.Labels{"sink": s.o.Name}
	var errs []error
	counter := func(name, help string, of func(*ShipperStats) uint64) {
		errs = append(errs, metrics.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, func() float64 {
			st := s.Stats()
			return float64(of(&st))
		})))
	}
	gauge := func(name, help string, of func(*ShipperStats) float64) {
		errs = append(errs, metrics.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, func() float64 {
			st := s.Stats()
			return of(&st)
		})))
	}
	counter("headway_audit_shipped_total", "Records of the audit trail that arrived at the sink, repetitions included.", func(s *ShipperStats) uint64 { return s.Shipped })
	counter("headway_audit_unheard_total", "Records that arrived at the sink and had no receiver.", func(s *ShipperStats) uint64 { return s.Unheard })
	counter("headway_audit_ship_missed_total", "Records whose file was gone before they were shipped.", func(s *ShipperStats) uint64 { return s.Missed })
	counter("headway_audit_ship_failures_total", "Attempts to ship that failed and were repeated.", func(s *ShipperStats) uint64 { return s.Failures })
	gauge("headway_audit_ship_lag_records", "Records that have not arrived at the sink.", func(s *ShipperStats) float64 { return float64(s.Lag) })
	gauge("headway_audit_ship_lag_seconds", "Age of the oldest record that has not arrived at the sink.", func(s *ShipperStats) float64 { return s.LagTime.Seconds() })
	gauge("headway_audit_receivers", "Subscribers that received the last records.", func(s *ShipperStats) float64 { return float64(max(0, s.Receivers)) })
	return errors.Join(errs...)
}
