package engines

// trtllm-serve's /metrics is a JSON document of iterations; Prometheus' text
// stands at another path, once the first iteration ran.
var trtllm = Engine{
	Name:    "trtllm",
	health:  "/health",
	models:  listOf,
	metrics: "/prometheus/metrics",
	serves:  []string{"GET /health", "GET /version", "GET /v1/models"},
	load: func(s samples) Load {
		l := UnknownLoad()
		l.InFlight = s.count(where{}, "trtllm_num_requests_running")
		l.Queued = s.count(where{}, "trtllm_num_requests_waiting")
		l.MaxInFlight = s.count(where{}, "trtllm_max_num_active_requests")
		l.KVCacheUsage = s.fraction(where{}, "trtllm_kv_cache_utilization")
		l.KVCapacityTokens = s.product(where{}, "trtllm_kv_cache_max_blocks", where{}, "trtllm_kv_cache_tokens_per_block")
		return l
	},
}
