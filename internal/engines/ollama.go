package engines

import (
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
)

// Ollama has no metrics. It takes a model's name without the tag latest too.
var ollama = Engine{
	Name:   "ollama",
	health: "/api/version",
	serves: []string{"GET /api/version", "GET /api/tags"}, // what generates takes keep_alive too, which unloads a model
	models: query[[]string]{http.MethodGet, "/api/tags", "", func(text []byte) ([]string, error) {
		var tags struct {
			Models []struct {
				Name string `json:"name"`
			} `json:"models"`
		}
		err := json.Unmarshal(text, &tags)
		var names []string
		for _, m := range tags.Models {
			names = append(names, m.Name)
			if short, ok := strings.CutSuffix(m.Name, ":latest"); ok {
				names = append(names, short)
			}
		}
		return names, err
	}},
}
