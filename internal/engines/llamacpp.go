package engines

import (
	"net/http"

	"github.com/go-json-experiment/json"
)

// llama.cpp's server has one slot for each request that it works on.
var llamacpp = Engine{
	Name:   "llamacpp",
	health: "/health", // 503 while the model is loaded
	models: listOf,
	slots: query[int64]{http.MethodGet, "/props", "", func(text []byte) (int64, error) {
		var props struct {
			Slots int64 `json:"total_slots"`
		}
		err := json.Unmarshal(text, &props)
		return props.Slots, err
	}},
	metrics: "/metrics", // with --metrics
	serves: []string{ // GET /slots and /props may show prompts of others
		"POST /completion", "POST /completions", "POST /infill", "POST /embedding", "POST /embeddings", "POST /rerank", "POST /reranking",
		"POST /tokenize", "POST /detokenize", "POST /apply-template", "GET /health", "GET /v1/models",
	},
	load: func(s samples) Load {
		l := UnknownLoad()
		l.InFlight = s.count(where{}, "llamacpp:requests_processing")
		l.Queued = s.count(where{}, "llamacpp:requests_deferred")
		l.KVCacheUsage = s.fraction(where{}, "llamacpp:kv_cache_usage_ratio") // of older versions
		return l
	},
}
