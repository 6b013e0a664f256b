package engines

import (
	"bytes"
	"fmt"
	"math"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"headway/internal/fleet"
)

// samples are the metrics of an engine by name.
type samples map[string]*dto.MetricFamily

// parse reads metrics in Prometheus' text format. A fault anywhere makes all of
// them unknown.
func parse(text []byte) (samples, error) {
	p := expfmt.NewTextParser(model.UTF8Validation)
	families, err := p.TextToMetricFamilies(bytes.NewReader(append(text, '\n'))) // some leave out the last line's end
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	return families, nil
}

// where selects series by the value of a label; the zero value selects all.
type where struct{ label, value string }

// ranks are the labels of the parts that an engine consists of. Series that
// differ in other labels only, such as the rank within a tensor-parallel group,
// count the same thing.
var ranks = []string{"engine", "dp_rank", "model", "version"}

// parts are the values of a gauge for each part of the engine. They are nil if
// the metric is missing, or has a value that no count or fraction has.
func (s samples) parts(w where, name string) map[string]float64 {
	family := s[name]
	if family == nil {
		return nil
	}
	parts := map[string]float64{}
	for _, m := range family.GetMetric() {
		if w.label != "" && labelOf(m, w.label) != w.value {
			continue
		}
		var v float64
		switch {
		case m.GetGauge() != nil:
			v = m.GetGauge().GetValue()
		case m.GetUntyped() != nil:
			v = m.GetUntyped().GetValue()
		default:
			return nil
		}
		if math.IsNaN(v) || v < 0 || math.IsInf(v, 0) {
			return nil
		}
		part := ""
		for _, r := range ranks {
			part += labelOf(m, r) + "\x00"
		}
		parts[part] = max(parts[part], v)
	}
	return parts
}

func labelOf(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// count is the sum over the parts of the first metric that is there, or
// fleet.Unknown.
func (s samples) count(w where, names ...string) int64 {
	for _, name := range names {
		parts := s.parts(w, name)
		if len(parts) == 0 {
			continue
		}
		sum := 0.0
		for _, v := range parts {
			sum += v
		}
		if sum <= fleet.MaxTokens {
			return int64(math.Round(sum))
		}
	}
	return fleet.Unknown
}

// fraction is the mean over the parts of the first metric that is there, or NaN.
// A value above 1 is none: it may be a percentage, and scaling it would be a
// guess.
func (s samples) fraction(w where, names ...string) float64 {
	for _, name := range names {
		parts := s.parts(w, name)
		sum := 0.0
		for _, v := range parts {
			if v > 1 {
				return math.NaN()
			}
			sum += v
		}
		if len(parts) > 0 {
			return sum / float64(len(parts))
		}
	}
	return math.NaN()
}

// product is the count of one metric times the value that each part has of
// another, or fleet.Unknown.
func (s samples) product(w where, name string, each where, eachName string) int64 {
	n := s.count(w, name)
	size := fleet.Unknown
	for _, v := range s.parts(each, eachName) {
		if size != fleet.Unknown && size != int64(v) {
			return fleet.Unknown
		}
		size = int64(v)
	}
	return times(n, size)
}

// labelled is the sum over the parts of the product of two labels of a metric
// that only carries labels, or fleet.Unknown.
func (s samples) labelled(name, a, b string) int64 {
	sum := fleet.Unknown
	seen := map[string]bool{}
	for _, m := range s[name].GetMetric() {
		part := labelOf(m, "engine") + "\x00" + labelOf(m, "dp_rank")
		if seen[part] {
			continue
		}
		seen[part] = true
		n := times(whole(labelOf(m, a)), whole(labelOf(m, b)))
		if n == fleet.Unknown {
			return fleet.Unknown
		}
		sum = max(sum, 0) + n
	}
	return sum
}

func times(a, b int64) int64 {
	if a <= 0 || b <= 0 || a > fleet.MaxTokens/b {
		return fleet.Unknown
	}
	return a * b
}
