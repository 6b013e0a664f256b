package routing_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"headway/internal/fleet"
	"headway/internal/routing"
	"headway/internal/strategy"
)

// recorder knows the collectors that were registered with it.
type recorder struct {
	*prometheus.Registry
	collectors []prometheus.Collector
}

func (r *recorder) MustRegister(cs ...prometheus.Collector) {
	r.collectors = append(r.collectors, cs...)
	r.Registry.MustRegister(cs...)
}

// Thousands of series are most of a scrape. They come in the order that the
// library sorts them into, which then finds nothing to do, and with labels that
// are made once.
func TestDecisionsAreCollectedInOrderWithTheirLabels(t *testing.T) {
	reg := &recorder{Registry: prometheus.NewRegistry()}
	w := newWorld(t, func(o *routing.Options) { o.Metrics = reg })
	for i := range 60 {
		w.head(fmt.Sprint("h", i), fmt.Sprint("r", 7*i%20), func(s *fleet.Spec) { s.ModelTypes = []string{fmt.Sprint("m", 11*i%30)} })
	}
	for i := range 60 {
		for _, name := range []string{"round_robin", "random", "power_of_two"} {
			w.decide(strategy.Request{ModelType: fmt.Sprint("m", 11*i%30), Strategy: name})
		}
	}
	collect := func() (labels []string, first *dto.LabelPair) {
		for _, c := range reg.collectors {
			all := make(chan prometheus.Metric, 10_000)
			c.Collect(all)
			close(all)
			for m := range all {
				if !strings.Contains(m.Desc().String(), `"routing_decisions_total"`) {
					continue
				}
				var written dto.Metric
				if err := m.Write(&written); err != nil {
					t.Fatal(err)
				}
				text := ""
				for _, l := range written.GetLabel() {
					text += l.GetName() + "=" + l.GetValue() + "\x00"
				}
				if labels = append(labels, text); first == nil {
					first = written.GetLabel()[0]
				}
			}
		}
		return labels, first
	}
	labels, first := collect()
	if len(labels) < 90 || !slices.IsSorted(labels) {
		t.Errorf("%d series, sorted: %t", len(labels), slices.IsSorted(labels))
	}
	if _, again := collect(); first != again {
		t.Error("labels are made again for each scrape")
	}
}
