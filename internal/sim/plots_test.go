package sim

import (
	"slices"
	"testing"

	"headway/internal/workload"
)

func TestChartsHaveALineForEachStrategy(t *testing.T) {
	s := study(t, "adaptive", "round_robin")
	s.Traffic, s.Rates = traffic(t, workload.Sample, 100), []float64{3, 5}
	names, charts := run(t, s).Charts()
	if want := []string{"ttft", "goodput", "hits", "imbalance", "sessions"}; !slices.Equal(names, want) {
		t.Fatalf("charts %q, want %q", names, want)
	}
	for _, c := range charts {
		if c.X != "requests/s" || len(c.Series) != 2 || c.Series[0].Name != "adaptive" || !slices.Equal(c.Series[1].X, []float64{3, 5}) || len(c.Series[1].Y) != 2 {
			t.Errorf("%s: %+v", c.Title, c)
		}
	}
	s.Traffic = traffic(t, "poisson:requests=50", 0)
	if names, _ := run(t, s).Charts(); slices.Contains(names, "sessions") {
		t.Error("there are no sessions, and a chart of them")
	}
}
