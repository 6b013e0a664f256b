package engines

import (
	"net/http"

	"github.com/go-json-experiment/json"
)

// Triton serves TensorRT-LLM and other backends; only the former counts its
// requests by state. Metrics have a listener of their own.
var triton = Engine{
	Name:        "triton",
	MetricsPort: "8002",
	health:      "/v2/health/ready",
	models: query[[]string]{http.MethodPost, "/v2/repository/index", `{"ready":true}`, func(text []byte) ([]string, error) {
		var index []struct {
			Name  string `json:"name"`
			State string `json:"state"`
		}
		err := json.Unmarshal(text, &index)
		var names []string
		for _, m := range index {
			if m.State == "READY" {
				names = append(names, m.Name)
			}
		}
		return names, err
	}},
	metrics: "/metrics",
	serves: []string{ // KServe's protocol; not the repository, shared memory, trace and log settings
		"GET /v2", "GET /v2/health/live", "GET /v2/health/ready",
		"GET /v2/models/{}", "GET /v2/models/{}/ready", "GET /v2/models/{}/config",
		"GET /v2/models/{}/versions/{}", "GET /v2/models/{}/versions/{}/ready", "GET /v2/models/{}/versions/{}/config",
		"POST /v2/models/{}/infer", "POST /v2/models/{}/generate", "POST /v2/models/{}/generate_stream",
		"POST /v2/models/{}/versions/{}/infer", "POST /v2/models/{}/versions/{}/generate", "POST /v2/models/{}/versions/{}/generate_stream",
	},
	load: func(s samples) Load {
		const requests, blocks = "nv_trt_llm_request_metrics", "nv_trt_llm_kv_cache_block_metrics"
		request := func(kind string) int64 { return s.count(where{"request_type", kind}, requests) }
		block := func(kind string) where { return where{"kv_cache_block_type", kind} }
		l := UnknownLoad()
		l.InFlight, l.Queued, l.MaxInFlight = request("scheduled"), request("waiting"), request("max")
		l.KVCacheUsage = s.fraction(block("fraction"), blocks)
		l.KVCapacityTokens = s.product(block("max"), blocks, block("tokens_per"), blocks)
		return l
	},
}
