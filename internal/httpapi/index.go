package httpapi

import (
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"go.yaml.in/yaml/v3"

	"headway/api"
)

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
