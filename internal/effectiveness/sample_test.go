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

func watch(t *testing.T) *effectiveness.Watch {
	t.Helper()
	w, err := effectiveness.New(effectiveness.Options{Known: strategy.NewKnown(strategy.KnownOptions{}), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// sampled is the effect of samples.
func sampled(t *testing.T, samples ...routing.Sample) effectiveness.Effect {
	t.Helper()
	w := watch(t)
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

// A shadow is compared by the decisions that the regret of both is known of.
func TestShadowsAreCompared(t *testing.T) {
	w := watch(t)
	heads := []routing.Seen{seen(100, 0, 1), seen(10, 0, 1)}
	sample := func(model string, chosen int, shadows ...routing.Shadow) {
		w.Sampled(&routing.Sample{
			Decision: &routing.Decision{Strategy: "random", ModelType: model, Head: heads[max(chosen, 0)].Head}, At: time.Now(),
			Share: 0.1, Heads: heads, Chosen: chosen, Best: 1, Shadows: shadows,
		})
	}
	sample("m", 0, routing.Shadow{Strategy: "best", Head: heads[1].Head}, routing.Shadow{Strategy: "lost", Regret: math.NaN()})
	sample("m", 1, routing.Shadow{Strategy: "best", Head: heads[1].Head})
	sample("n", 0, routing.Shadow{Strategy: "best", Head: heads[0].Head, Regret: 90})
	sample("n", -1, routing.Shadow{Strategy: "best", Head: heads[1].Head})
	sample("n", 0)
	want := []effectiveness.Shadowed{{Strategy: "random", Shadow: "best", Decisions: 4, Agreement: 0.5, Regret: 60, ShadowRegret: 30}}
	got := w.Shadows(time.Minute, "")
	if len(got) != 2 || got[0] != want[0] || got[1].Shadow != "lost" || got[1].Decisions != 1 || got[1].Agreement != 0 || !math.IsNaN(got[1].Regret) {
		t.Errorf("%+v; want %+v and one more", got, want)
	}
	if got := w.Shadows(time.Minute, "n"); len(got) != 1 || got[0].Decisions != 2 || got[0].Regret != 90 {
		t.Errorf("of one model type: %+v", got)
	}
	if e := w.Report(time.Minute, "")["random"]; e.Compared != 40 || e.Decisions != 0 {
		t.Errorf("the strategy itself: %+v", e)
	}
}
