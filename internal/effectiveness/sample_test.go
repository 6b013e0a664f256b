package effectiveness_test

import (
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/effectiveness"
	"headway/internal/fleet"
	"headway/internal/routing"
	"headway/internal/strategy"
)

// sampled is the effect of samples.
func sampled(t *testing.T, samples ...routing.Sample) effectiveness.Effect {
	t.Helper()
	w, err := effectiveness.New(effectiveness.Options{Known: strategy.NewKnown(strategy.KnownOptions{}), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range samples {
		s.Decision, s.At = &routing.Decision{Strategy: "random", ModelType: "m"}, time.Now()
		w.Sampled(&s)
	}
	return w.Report(time.Minute, "")["random"]
}

func seen(predicted, requests, weight float64) routing.Seen {
	return routing.Seen{Seen: strategy.Seen{Head: &fleet.Head{Spec: fleet.Spec{Weight: weight}}, Predicted: predicted, Requests: requests}}
}

func TestASampleCountsForThoseThatWereNot(t *testing.T) {
	heads := []routing.Seen{seen(100, 0, 1), seen(10, 0, 1)}
	e := sampled(t, routing.Sample{Share: 1, Heads: heads, Chosen: 0, Best: 1}, routing.Sample{Share: 0.01, Heads: heads, Chosen: 1, Best: 1},
		routing.Sample{Share: 1, Heads: heads, Chosen: -1, Best: 1}) // as a trial
	if e.Compared != 101 || math.Abs(e.Regret-90./101) > 1e-3 || !math.IsNaN(e.Imbalance) {
		t.Errorf("%+v; want 101 compared and 90 ms of regret once", e)
	}
}

func TestAnEvenShareIsByWeight(t *testing.T) {
	for _, c := range []struct {
		heads []routing.Seen
		want  float64
	}{
		{[]routing.Seen{seen(1, 6, 3), seen(1, 2, 1)}, 0},
		{[]routing.Seen{seen(1, 2, 3), seen(1, 6, 1)}, 4. / 8},
		{[]routing.Seen{seen(1, 1, 1), seen(1, 0, 1), seen(1, 0, 1)}, 0}, // one has to be somewhere
		{[]routing.Seen{seen(1, 9, 1), seen(1, 0, 1), seen(1, 0, 1)}, 6. / 9},
	} {
		if got := sampled(t, routing.Sample{Share: 1, Heads: c.heads, Chosen: 0, Best: 0}).Imbalance; math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%+v: %v, want %v", c.heads, got, c.want)
		}
	}
}
