package httpapi

import (
	"fmt"
	"math"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"go.yaml.in/yaml/v3"

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

func (s *Server) livez(w *answer, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, api.Readiness{Status: "ok", Checks: []api.Check{{Name: "process", OK: true, Detail: "answering"}}})
}

func (s *Server) readyz(w *answer, _ *http.Request) error {
	ready := s.o.Fleet.Ready()
	say := func(ok bool, yes, no string) string {
		if ok {
			return yes
		}
		return no
	}
	fleetDetail := fmt.Sprintf("heads: %d, of which take requests: %d", s.o.Fleet.Snapshot().Heads, s.o.Fleet.Snapshot().Active)
	if ready.Assumed > 0 {
		fleetDetail += fmt.Sprintf("; assumed healthy since before the restart: %d", ready.Assumed)
	}
	if ready.Held > 0 {
		fleetDetail += fmt.Sprintf("; more that take requests though their leases ran out, since the mass-expiry guard holds them: %d", ready.Held)
	}
	draining := s.draining.Load()
	body := api.Readiness{Status: "ok", Checks: []api.Check{
		{Name: "fleet", OK: ready.Loaded, Detail: say(ready.Loaded, fleetDetail, "the state has not been read yet")},
		{Name: "state", OK: ready.StoreUp, Detail: say(ready.StoreUp, "the last write succeeded", "the last write failed; see the log")},
		{Name: "policy", OK: true, Detail: fmt.Sprintf("revision %d", s.o.Router.Policy().Revision)},
		{Name: "stopping", OK: !draining, Detail: say(!draining, "no", "the service is stopping")},
	}}
	if s.o.Queue != nil { // decisions do not depend on it, and so readiness does not
		body.Checks = append(body.Checks, api.Check{Name: "queue", OK: true, Detail: s.o.Queue()})
	}
	for _, c := range body.Checks {
		if !c.OK {
			body.Status = "unavailable"
			return writeJSON(w, http.StatusServiceUnavailable, body)
		}
	}
	return writeJSON(w, http.StatusOK, body)
}

func (s *Server) getOpenAPI(w *answer, _ *http.Request) error {
	w.Header()["Content-Type"] = jsonType
	_, _ = w.Write(s.openAPI)
	return nil
}

// openAPIJSON turns the description into JSON, which tools expect at
// /openapi.json.
func openAPIJSON(external string) ([]byte, error) {
	var document map[string]any
	if err := yaml.Unmarshal(api.OpenAPI, &document); err != nil {
		return nil, err
	}
	if external != "" {
		document["servers"] = []map[string]string{{"url": external}}
	}
	return json.Marshal(document, json.Deterministic(true))
}

// index leads a browser to the console and lists the routes for others. Its URLs
// are relative, so that they hold below the path of a proxy, too.
func (s *Server) index(w *answer, r *http.Request) error {
	index := api.Index{Name: "headway", Version: s.o.Version, OpenAPI: "openapi.json"}
	if s.o.Console != nil {
		index.Console = "console/"
		if strings.Contains(strings.Join(r.Header["Accept"], ","), "text/html") {
			w.Header()["Location"] = []string{index.Console}
			w.WriteHeader(http.StatusFound)
			return nil
		}
	}
	for _, rt := range s.routes() {
		index.Routes = append(index.Routes, api.Route{Method: rt.method, Path: strings.TrimSuffix(rt.pattern, "{$}")})
	}
	return writeJSON(w, http.StatusOK, index)
}
