package engines

import (
	"strings"
	"testing"
)

// What a client may ask stands in a list, exactly as it is sent.
func TestWhatClientsMayAskOfAnEngine(t *testing.T) {
	for name, c := range map[string]struct{ may, mayNot string }{
		"triton": {
			"GET /v2|HEAD /v2/health/ready|POST /v2/models/yolo/infer|POST /v2/models/y.o-l_o/versions/1/infer|POST /v2/models/m/generate_stream|GET /v2/models/m/config",
			"POST /v2/repository/index|POST /v2/repository/models/m/load|POST /v2/repository/models/m/unload|POST /v2/models/m/trace/setting|POST /v2/logging|" +
				"POST /v2/systemsharedmemory/region/r/register|POST /v2/models/../repository/models/m/unload|POST /v2/models/m%2f..%2frepository/infer|POST /v2/models//infer|" +
				"POST /v2/models/m/infer/|POST //v2/models/m/infer|POST /v2/models/m/infer;x|POST /v2/models/m;x/infer|POST /v2/models/m/%69nfer|POST /V2/models/m/infer|" +
				"GET /v2/models/m/infer|DELETE /v2/models/m|PUT /v2/models/m/infer|post /v2/models/m/infer|POST /v2/models/a/b/infer|POST /v2/models/é/infer|POST v2/models/m/infer|POST /v2/models/m/versions/1",
		},
		"vllm": {
			"POST /classify|POST /pooling|GET /health|GET /v1/models",
			"POST /v1/load_lora_adapter|POST /v1/unload_lora_adapter|POST /sleep|POST /wake_up|POST /reset_prefix_cache|POST /collective_rpc|POST /start_profile|" +
				"POST /v1/chat/completions|GET /v1/responses/x|GET /metrics|POST /health|GET /server_info|POST /scale_elastic_ep|POST /update_weights|GET /|OPTIONS /health",
		},
		"sglang": {
			"POST /generate|POST /encode",
			"GET /flush_cache|POST /flush_cache|POST /abort_request|POST /update_weights_from_disk|GET /start_profile|POST /release_memory_occupation|GET /health_generate|GET /get_server_info|POST /open_session|POST /set_internal_state|POST /configure_logging",
		},
		"llamacpp": {
			"POST /completion|POST /infill",
			"GET /slots|POST /slots/0|GET /props|POST /props|POST /lora-adapters|POST /models/unload|GET /metrics",
		},
		"ollama": {
			"GET /api/tags",
			"POST /api/pull|DELETE /api/delete|POST /api/create|POST /api/push|POST /api/generate|POST /api/copy|POST /api/blobs/x",
		},
		"tgi":    {"POST /|POST /generate|GET /info", "GET /metrics|POST /generate/x"},
		"trtllm": {"GET /health", "POST /release_memory|POST /update_weights|POST /kv_cache_events"},
		"openai": {"GET /v1/models", "DELETE /v1/models/m|POST /v1/files|GET /v1/files|POST /v1/fine_tuning/jobs|POST /v1/batches"},
		"comfy":  {"", "GET /health|POST /prompt|GET /|GET "},
		"":       {"", "GET /health|POST /v1/unload_lora_adapter"},
	} {
		for want, list := range map[bool]string{true: c.may, false: c.mayNot} {
			for request := range strings.SplitSeq(list, "|") {
				method, path, is := strings.Cut(request, " ")
				if is && Of(name).Serves(method, path) != want {
					t.Errorf("%s %s: not %t", name, request, want)
				}
			}
		}
	}
}

// What the service asks for itself is known to change nothing.
func TestWhatChangesNothingAtAnEngine(t *testing.T) {
	for request, want := range map[string]bool{
		"vllm GET /metrics": true, "vllm HEAD /health": true, "vllm POST /metrics": false, "vllm GET /reset": false, "llamacpp GET /props": true, "llamacpp POST /props": false,
		"triton GET /v2/repository/index": false, "triton POST /v2/repository/index": false, " GET /health": true, " GET ": false, "ollama GET ": false, "openai GET /metrics": false,
	} {
		name, rest, _ := strings.Cut(request, " ")
		method, path, _ := strings.Cut(rest, " ")
		if Of(name).Tells(method, path) != want {
			t.Errorf("%s: not %t", request, want)
		}
	}
	for name, want := range map[string]bool{"vllm": true, "ollama": true, "triton": false, "comfy": false} {
		if Of(name).OfText() != want {
			t.Errorf("%s is of text: not %t", name, want)
		}
	}
}
