package engines

import (
	"net/http"

	"github.com/go-json-experiment/json"
)

// TGI's metrics have no use of the cache.
var tgi = Engine{
	Name:   "tgi",
	health: "/health",
	models: query[[]string]{http.MethodGet, "/info", "", func(text []byte) ([]string, error) { // each version has it
		info, err := readTGI(text)
		return []string{info.Model}, err
	}},
	slots: query[int64]{http.MethodGet, "/info", "", func(text []byte) (int64, error) {
		info, err := readTGI(text)
		return info.MaxConcurrent, err
	}},
	metrics: "/metrics",
	serves: []string{
		"POST /", "POST /generate", "POST /generate_stream", "POST /tokenize", "POST /chat_tokenize", "GET /health", "GET /info",
	},
	load: func(s samples) Load {
		l := UnknownLoad()
		l.InFlight = s.count(where{}, "tgi_batch_current_size")
		l.Queued = s.count(where{}, "tgi_queue_size")
		return l
	},
}

type tgiInfo struct {
	Model         string `json:"model_id"`
	MaxConcurrent int64  `json:"max_concurrent_requests"` // above it 429
}

func readTGI(text []byte) (info tgiInfo, err error) {
	err = json.Unmarshal(text, &info)
	return info, err
}
