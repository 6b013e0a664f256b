package engines

import "headway/internal/fleet"

// SGLang's prefix is "sglang:" or, in some versions, "sglang_". /health_generate
// would run a completion.
var sglang = Engine{
	Name:    "sglang",
	health:  "/health",
	models:  listOf,
	metrics: "/metrics", // with --enable-metrics
	serves:  []string{"POST /generate", "POST /encode", "POST /classify", "GET /health", "GET /v1/models"},
	load: func(s samples) Load {
		l := UnknownLoad()
		l.InFlight = s.count(where{}, "sglang:num_running_reqs", "sglang_num_running_reqs")
		l.Queued = s.count(where{}, "sglang:num_queue_reqs", "sglang_num_queue_reqs")
		l.KVCacheUsage = s.fraction(where{}, "sglang:token_usage", "sglang_token_usage")
		l.KVCapacityTokens = s.count(where{}, "sglang:max_total_num_tokens", "sglang_max_total_num_tokens")
		for _, name := range []string{"sglang:cache_config_info", "sglang_cache_config_info"} {
			if l.KVCapacityTokens <= 0 {
				l.KVCapacityTokens = s.labelled(name, "num_pages", "page_size")
			}
		}
		if l.KVCapacityTokens == 0 {
			l.KVCapacityTokens = fleet.Unknown // it is set after the start
		}
		return l
	},
}
