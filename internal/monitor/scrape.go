package monitor

import (
	"math"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"headway/internal/history"
)

// scraper turns gathered metrics into samples, as Prometheus reads them from
// the text format.
type scraper struct {
	gatherer prometheus.Gatherer
	target   []labels.Label // job and instance, as the target's
	builder  labels.ScratchBuilder
}

// scrape gathers once. Metrics that could be gathered are returned beside an
// error.
func (s *scraper) scrape() (samples []history.Sample, err error) {
	families, err := s.gatherer.Gather()
	for _, f := range families {
		for _, m := range f.GetMetric() {
			samples = s.metric(samples, f, m)
		}
	}
	return samples, err
}

func (s *scraper) metric(samples []history.Sample, f *dto.MetricFamily, m *dto.Metric) []history.Sample {
	add := func(suffix string, v float64, extra ...labels.Label) {
		samples = append(samples, history.Sample{Labels: s.labels(f.GetName()+suffix, m, extra), Value: v})
	}
	switch f.GetType() {
	case dto.MetricType_COUNTER:
		add("", m.GetCounter().GetValue())
	case dto.MetricType_GAUGE:
		add("", m.GetGauge().GetValue())
	case dto.MetricType_UNTYPED:
		add("", m.GetUntyped().GetValue())
	case dto.MetricType_SUMMARY:
		for _, q := range m.GetSummary().GetQuantile() {
			add("", q.GetValue(), labels.Label{Name: "quantile", Value: number(q.GetQuantile())})
		}
		add("_sum", m.GetSummary().GetSampleSum())
		add("_count", float64(m.GetSummary().GetSampleCount()))
	case dto.MetricType_HISTOGRAM, dto.MetricType_GAUGE_HISTOGRAM:
		h := m.GetHistogram()
		infinite := false
		for _, b := range h.GetBucket() {
			add("_bucket", float64(b.GetCumulativeCount()), labels.Label{Name: "le", Value: number(b.GetUpperBound())})
			infinite = infinite || math.IsInf(b.GetUpperBound(), 1)
		}
		if !infinite {
			add("_bucket", float64(h.GetSampleCount()), labels.Label{Name: "le", Value: "+Inf"})
		}
		add("_sum", h.GetSampleSum())
		add("_count", float64(h.GetSampleCount()))
	}
	return samples
}

// number writes a bound as Prometheus normalises it: 1 is 1.0.
func number(v float64) string {
	if math.IsInf(v, 1) {
		return "+Inf"
	}
	text := strconv.FormatFloat(v, 'g', -1, 64)
	if strings.ContainsAny(text, ".eN") {
		return text
	}
	return text + ".0"
}

func (s *scraper) labels(name string, m *dto.Metric, extra []labels.Label) labels.Labels {
	s.builder.Reset()
	s.builder.Add(model.MetricNameLabel, name)
	for _, l := range m.GetLabel() {
		if l.GetValue() == "" {
			continue // the same as a label that is not there
		}
		own := l.GetName()
		if own == "job" || own == "instance" {
			own = "exported_" + own // the target's win
		}
		s.builder.Add(own, l.GetValue())
	}
	for _, l := range append(extra, s.target...) {
		s.builder.Add(l.Name, l.Value)
	}
	s.builder.Sort()
	return s.builder.Labels()
}

// own is a sample of the monitor about the scrape itself.
func (s *scraper) own(name string, v float64) history.Sample {
	return history.Sample{Labels: s.labels(name, &dto.Metric{}, nil), Value: v}
}
