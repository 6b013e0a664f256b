package sim

import (
	"slices"

	"headway/internal/plot"
)

// plots are what Charts draws of a result.
var plots = []struct {
	name  string
	chart plot.Chart
	value func(*Result) float64
}{
	{"ttft", plot.Chart{Title: "Mean time to first token", Y: "ms", Log: true}, func(r *Result) float64 { return r.TTFT.Mean }},
	{"goodput", plot.Chart{Title: "Goodput", Y: "% of requests"}, func(r *Result) float64 { return 100 * r.Goodput }},
	{"hits", plot.Chart{Title: "Prompt tokens found in caches", Y: "%"}, func(r *Result) float64 { return 100 * r.HitRate }},
	{"imbalance", plot.Chart{Title: "Imbalance: the busiest head's tokens ÷ the mean", Y: "×"}, func(r *Result) float64 { return r.Imbalance }},
	{"sessions", plot.Chart{Title: "Mean completion of a session", Y: "s"}, func(r *Result) float64 { return r.Session.Mean }},
}

// Charts are the plots of the report by name: a line for each strategy, over the load or
// the rate. That of sessions is left out where there are none.
func (r *Report) Charts() (names []string, charts []plot.Chart) {
	for _, p := range plots {
		c := p.chart
		c.X = "load"
		some := false
		for i := range r.Results {
			result := &r.Results[i]
			x := result.Rate
			if result.Load == nil {
				c.X = "requests/s"
			} else {
				x = *result.Load
			}
			at := slices.IndexFunc(c.Series, func(s plot.Series) bool { return s.Name == result.Strategy })
			if at < 0 {
				at = len(c.Series)
				c.Series = append(c.Series, plot.Series{Name: result.Strategy})
			}
			v := p.value(result)
			some = some || v > 0
			c.Series[at].X, c.Series[at].Y = append(c.Series[at].X, x), append(c.Series[at].Y, v)
		}
		if some {
			names, charts = append(names, p.name), append(charts, c)
		}
	}
	return names, charts
}
