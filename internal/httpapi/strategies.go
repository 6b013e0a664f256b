package httpapi

import (
	"math"
	"net/http"

	"headway/api"
	"headway/internal/apiv1"
	"headway/internal/strategy"
)

func (s *Server) listStrategies(w *answer, _ *http.Request) error {
	stats := s.o.Router.StrategyStats()
	page := api.List[api.Strategy]{}
	for _, spec := range strategy.Specs() {
		stat := stats[spec.Name]
		listed := api.Strategy{
			Name: spec.Name, Summary: spec.Summary, Formula: spec.Formula, Parameters: []api.StrategyParameter{},
			Results: api.StrategyResults{
				Decisions: stat.Decisions, OK: stat.OK, Errors: stat.Errors, Cancelled: stat.Cancelled, Expired: stat.Expired,
				MeanTTFTMs: apiv1.Number(math.Round(stat.MeanTTFT*100) / 100),
			},
		}
		for _, p := range spec.Parameters {
			parameter := api.StrategyParameter{Name: p.Name, Type: string(p.Kind), Default: p.Default, Unit: p.Unit, Summary: p.Summary}
			if p.Kind == strategy.KindNumber {
				parameter.Minimum, parameter.Maximum = apiv1.Number(p.Min), apiv1.Number(p.Max)
			}
			listed.Parameters = append(listed.Parameters, parameter)
		}
		page.Data = append(page.Data, listed)
	}
	return writeJSON(w, http.StatusOK, page)
}
