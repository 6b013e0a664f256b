package httpapi

import (
	"math"
	"net/http"
	"time"

	"headway/api"
	"headway/internal/apiv1"
	"headway/internal/effectiveness"
	"headway/internal/routing"
	"headway/internal/strategy"
)

func (s *Server) listStrategies(w *answer, r *http.Request) error {
	q := readQuery(r, "window", "model_type")
	window := q.window()
	if err := q.err(); err != nil {
		return err
	}
	stats, effects := s.o.Router.StrategyStats(), s.o.Effect.Report(window, q.values["model_type"])
	page := api.StrategyList{WindowSeconds: int64(window / time.Second)}
	for _, spec := range strategy.Specs() {
		listed := described(&spec)
		listed.Results = results(stats[spec.Name])
		effect, decided := effects[spec.Name]
		if !decided {
			effect = effectiveness.Unknown()
		}
		listed.Effectiveness = effectOf(&effect)
		page.Data = append(page.Data, listed)
	}
	page.Shadow = []api.StrategyShadow{}
	for _, c := range s.o.Effect.Shadows(window, q.values["model_type"]) {
		page.Shadow = append(page.Shadow, api.StrategyShadow{
			Strategy: c.Strategy, Shadow: c.Shadow, Decisions: c.Decisions, Agreement: c.Agreement,
			RegretMs: rounded(c.Regret, 100), ShadowRegretMs: rounded(c.ShadowRegret, 100),
		})
	}
	return writeJSON(w, http.StatusOK, page)
}

// window is the parameter of that name.
func (q *query) window() time.Duration {
	text := q.values["window"]
	if text == "" {
		return effectiveness.UsualWindow
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < effectiveness.LeastWindow || d > effectiveness.MostWindow || d%time.Minute != 0 {
		q.fault("window", "want a time of 1m to 1h in whole minutes, such as 15m")
	}
	return d
}

// described is a strategy without what it led to.
func described(spec *strategy.Spec) api.Strategy {
	d := api.Strategy{Name: spec.Name, Summary: spec.Summary, Formula: spec.Formula, Parameters: []api.StrategyParameter{}}
	for _, p := range spec.Parameters {
		parameter := api.StrategyParameter{Name: p.Name, Type: string(p.Kind), Default: p.Default, Unit: p.Unit, Summary: p.Summary}
		if p.Kind == strategy.KindNumber {
			parameter.Minimum, parameter.Maximum = apiv1.Number(p.Min), apiv1.Number(p.Max)
		}
		d.Parameters = append(d.Parameters, parameter)
	}
	return d
}

func results(stat routing.StrategyStat) api.StrategyResults {
	return api.StrategyResults{
		Decisions: stat.Decisions, OK: stat.OK, Errors: stat.Errors, Cancelled: stat.Cancelled, Expired: stat.Expired,
		Refused: stat.Refused, MeanTTFTMs: rounded(stat.MeanTTFT, 100),
	}
}

// rounded is a number in whole parts of one, nil for NaN.
func rounded(v, parts float64) *float64 { return apiv1.Number(math.Round(v*parts) / parts) }

func effectOf(e *effectiveness.Effect) api.StrategyEffectiveness {
	of := api.StrategyEffectiveness{
		Decisions: e.Decisions, TTFTMs: rounded(e.TTFT, 100), RegretMs: rounded(e.Regret, 100), RegretReliable: e.Reliable(),
		CalibrationError: rounded(e.Calibration, 1e4), CalibrationBias: rounded(e.Bias, 1e4), Predictions: e.Predictions,
		Imbalance: rounded(e.Imbalance, 1e4), ObjectiveMet: e.Met, ObjectiveMissed: e.Missed,
		Refused: e.Refused,
	}
	if e.Promises > 0 {
		of.PrefixPromised, of.PrefixDelivered, of.PrefixKept = &e.Promised, &e.Delivered, &e.Kept
	}
	return of
}
