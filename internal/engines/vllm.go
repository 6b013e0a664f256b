package engines

var vllm = Engine{
	Name:    "vllm",
	health:  "/health",
	models:  listOf,
	metrics: "/metrics",
	serves: []string{
		"POST /classify", "POST /pooling", "POST /rerank", "POST /v2/rerank", "POST /score", "POST /tokenize", "POST /detokenize",
		"GET /health", "GET /ping", "GET /version", "GET /v1/models",
	},
	load: func(s samples) Load {
		l := UnknownLoad()
		l.InFlight = s.count(where{}, "vllm:num_requests_running")
		l.Queued = s.count(where{}, "vllm:num_requests_waiting")
		// A fraction in spite of its name; the second is that of versions before 0.10.
		l.KVCacheUsage = s.fraction(where{}, "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
		l.KVCapacityTokens = s.labelled("vllm:cache_config_info", "num_gpu_blocks", "block_size")
		return l
	},
}
