package engines

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"headway/internal/fleet"
)

// says are what engines say: their metrics, and the answers to their calls. The
// texts have the names, labels and neighbours of those of the engines.
var says = map[string]struct {
	metrics string
	answers map[string]string // method and path: body
	models  []string
	load    Load
}{
	"vllm": {
		metrics: `# HELP python_info Python platform information
# TYPE python_info gauge
python_info{implementation="CPython",major="3",minor="12"} 1.0
# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.76e+09
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="llama"} 3.0
vllm:num_requests_running{engine="1",model_name="llama"} 4.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="llama"} 0.0
vllm:num_requests_waiting{engine="1",model_name="llama"} 2.0
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="llama"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="llama"} 0.75
# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="0",num_gpu_blocks="1000"} 1.0
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="1",num_gpu_blocks="1000"} 1.0
# HELP vllm:time_to_first_token_seconds Histogram of time to first token in seconds.
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="llama"} 0.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="llama"} 5.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="llama"} 5.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="llama"} 0.5
`,
		answers: map[string]string{
			"GET /health":    "",
			"GET /v1/models": `{"object":"list","data":[{"id":"llama","root":"llama","parent":null},{"id":"sql-lora","root":"/lora/sql","parent":"llama"}]}`,
		},
		models: []string{"llama", "sql-lora"},
		load:   Load{Load: known(7, 2, 0.5, 32000), Started: 1.76e9},
	},
	"sglang": {
		metrics: `# HELP sglang:num_running_reqs The number of running requests.
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{dp_rank="0",engine_type="unified",pp_rank="0",priority="",tp_rank="0"} 4.0
sglang:num_running_reqs{dp_rank="0",engine_type="unified",pp_rank="0",priority="1",tp_rank="0"} 3.0
sglang:num_running_reqs{dp_rank="0",engine_type="unified",pp_rank="0",priority="",tp_rank="1"} 4.0
sglang:num_running_reqs{dp_rank="1",engine_type="unified",pp_rank="0",priority="",tp_rank="2"} 1.0
# TYPE sglang:num_queue_reqs gauge
sglang:num_queue_reqs{dp_rank="0",engine_type="unified",tp_rank="0"} 6.0
# TYPE sglang:token_usage gauge
sglang:token_usage{dp_rank="0",engine_type="unified",tp_rank="0"} 0.5
sglang:token_usage{dp_rank="1",engine_type="unified",tp_rank="2"} 0.25
# TYPE sglang:max_total_num_tokens gauge
sglang:max_total_num_tokens{dp_rank="0",engine_type="unified",tp_rank="0"} 471258.0
# TYPE sglang:cache_hit_rate gauge
sglang:cache_hit_rate{dp_rank="0",engine_type="unified",tp_rank="0"} 0.33
`,
		answers: map[string]string{"GET /health": "", "GET /v1/models": `{"object":"list","data":[{"id":"qwen/qwen2.5-7b","owned_by":"sglang"}]}`},
		models:  []string{"qwen/qwen2.5-7b"},
		load:    Load{Load: known(5, 6, 0.375, 471258)},
	},
	"tgi": {
		metrics: `# TYPE tgi_request_success counter
tgi_request_success 12
# TYPE tgi_batch_current_size gauge
tgi_batch_current_size 4
# TYPE tgi_queue_size gauge
tgi_queue_size 7
# TYPE tgi_request_generated_tokens histogram
tgi_request_generated_tokens_bucket{le="1"} 0
tgi_request_generated_tokens_bucket{le="+Inf"} 44
tgi_request_generated_tokens_sum 8123
tgi_request_generated_tokens_count 44
`,
		answers: map[string]string{
			"GET /health": "",
			"GET /info":   `{"model_id":"bigcode/starcoder2","model_sha":"a09a","max_concurrent_requests":128,"version":"3.3.6"}`,
		},
		models: []string{"bigcode/starcoder2"},
		load:   Load{Load: known(4, 7, math.NaN(), fleet.Unknown), MaxInFlight: 128},
	},
	"llamacpp": {
		metrics: `# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 900
# HELP llamacpp:requests_processing Number of requests processing.
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 2
# HELP llamacpp:requests_deferred Number of requests deferred.
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 1`,
		answers: map[string]string{
			"GET /health": `{"status":"ok"}`, "GET /v1/models": `{"models":[],"object":"list","data":[{"id":"tiny.gguf"}]}`,
			"GET /props": `{"total_slots":4,"model_path":"tiny.gguf"}`,
		},
		models: []string{"tiny.gguf"},
		load:   Load{Load: known(2, 1, math.NaN(), fleet.Unknown), MaxInFlight: 4},
	},
	"ollama": {
		answers: map[string]string{
			"GET /api/version": `{"version":"0.5.1"}`,
			"GET /api/tags":    `{"models":[{"name":"llama3.2:latest","model":"llama3.2:latest","size":2019393189},{"name":"qwen:7b"}]}`,
		},
		models: []string{"llama3.2", "llama3.2:latest", "qwen:7b"},
		load:   UnknownLoad(),
	},
	"triton": {
		metrics: `# HELP nv_inference_count Number of inferences performed
# TYPE nv_inference_count counter
nv_inference_count{model="tensorrt_llm",version="1"} 2500
# HELP nv_trt_llm_request_metrics TRT LLM request metrics
# TYPE nv_trt_llm_request_metrics gauge
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 3
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="context",version="1"} 1
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 4
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="max",version="1"} 512
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="active",version="1"} 7
# HELP nv_trt_llm_kv_cache_block_metrics TRT LLM KV cache block metrics
# TYPE nv_trt_llm_kv_cache_block_metrics gauge
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"} 0.6
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="tensorrt_llm",version="1"} 64
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="tensorrt_llm",version="1"} 2000
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="tensorrt_llm",version="1"} 8000
`,
		answers: map[string]string{
			"GET /v2/health/ready":      "",
			"POST /v2/repository/index": `[{"name":"ensemble","version":"1","state":"READY"},{"name":"old","state":"UNAVAILABLE","reason":"unloaded"}]`,
		},
		models: []string{"ensemble"},
		load:   Load{Load: known(4, 3, 0.6, 512000), MaxInFlight: 512},
	},
	"trtllm": {
		metrics: `# HELP trtllm_num_requests_running Number of active requests
# TYPE trtllm_num_requests_running gauge
trtllm_num_requests_running{engine_type="trtllm",model_name="llama"} 9.0
# TYPE trtllm_num_requests_waiting gauge
trtllm_num_requests_waiting{engine_type="trtllm",model_name="llama"} 1.0
# TYPE trtllm_max_num_active_requests gauge
trtllm_max_num_active_requests{engine_type="trtllm",model_name="llama"} 2048.0
# TYPE trtllm_kv_cache_utilization gauge
trtllm_kv_cache_utilization{engine_type="trtllm",model_name="llama"} 0.125
# TYPE trtllm_kv_cache_max_blocks gauge
trtllm_kv_cache_max_blocks{engine_type="trtllm",model_name="llama"} 19960.0
# TYPE trtllm_kv_cache_tokens_per_block gauge
trtllm_kv_cache_tokens_per_block{engine_type="trtllm",model_name="llama"} 32.0
`,
		answers: map[string]string{"GET /health": "", "GET /v1/models": `{"object":"list","data":[{"id":"llama"}]}`},
		models:  []string{"llama"},
		load:    Load{Load: known(9, 1, 0.125, 638720), MaxInFlight: 2048},
	},
	"openai": {
		answers: map[string]string{"GET /v1/models": `{"data":[{"id":"m1"},{"id":"m1"},{"id":"not a name"},{"id":"../m"}]}`},
		models:  []string{"m1"},
		load:    UnknownLoad(),
	},
}

func known(running, queued int64, usage float64, capacity int64) fleet.Load {
	l := fleet.UnknownLoad()
	l.InFlight, l.Queued, l.KVCacheUsage, l.KVCapacityTokens = running, queued, usage, capacity
	return l
}

func same(a, b Load) bool { return fmt.Sprint(a) == fmt.Sprint(b) } // NaN equals NaN

// serve is an engine that answers so. Another path is 404.
func serve(t *testing.T, name string, answers map[string]string) *Source {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := answers[r.Method+" "+r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(s.Close)
	return &Source{Engine: Find(name), HTTP: s.Client(), URL: s.URL, MetricsURL: s.URL}
}

// Each engine is understood as it answers.
func TestEachEngineIsUnderstood(t *testing.T) {
	for _, name := range Names() {
		want, ok := says[name]
		if !ok {
			t.Errorf("nothing is recorded of %s", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			answers := map[string]string{}
			for call, body := range want.answers {
				answers[call] = body
			}
			s := serve(t, name, answers)
			if want.metrics != "" {
				answers["GET "+s.metrics] = want.metrics
			}
			if err := s.Healthy(t.Context()); err != nil {
				t.Error(err)
			}
			models, _, err := s.Models(t.Context())
			if err != nil || !slices.Equal(models, want.models) {
				t.Errorf("models %q, %v, want %q", models, err, want.models)
			}
			got, err := s.Load(t.Context())
			if err != nil || !same(got, want.load) {
				t.Errorf("load %+v, %v, want %+v", got, err, want.load)
			}
		})
	}
}

// A missing metric is unknown and never 0, an older name is known, and a value
// that its meaning does not allow is unknown (S21).
func TestMetricsThatChange(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		what, engine, text string
		want               Load
	}{
		{"nothing", "vllm", "", UnknownLoad()},
		{"the older name", "vllm", "vllm:gpu_cache_usage_perc{model_name=\"m\"} 0.5\n", Load{Load: known(-1, -1, 0.5, -1)}},
		{"a percentage", "vllm", "vllm:kv_cache_usage_perc 42\nvllm:num_requests_running 1\n", Load{Load: known(1, -1, nan, -1)}},
		{"NaN", "vllm", "vllm:kv_cache_usage_perc NaN\nvllm:num_requests_running NaN\n", UnknownLoad()},
		{"below 0", "vllm", "vllm:num_requests_running -1\n", UnknownLoad()},
		{"infinite", "vllm", "vllm:num_requests_running +Inf\n", UnknownLoad()},
		{"too many", "vllm", "vllm:num_requests_running 1e10\n", UnknownLoad()},
		{"a cache not yet made", "vllm", `vllm:cache_config_info{block_size="16",num_gpu_blocks="None"} 1` + "\n", UnknownLoad()},
		{"a histogram of that name", "vllm", "# TYPE vllm:num_requests_running histogram\nvllm:num_requests_running_sum 3\nvllm:num_requests_running_count 3\n", UnknownLoad()},
		{"the other prefix", "sglang", "sglang_num_running_reqs 2\nsglang_num_queue_reqs 1\nsglang_token_usage 0.5\nsglang_max_total_num_tokens 100\n", Load{Load: known(2, 1, 0.5, 100)}},
		{"pages as labels", "sglang", `sglang:cache_config_info{num_pages="11147",page_size="64"} 1` + "\n", Load{Load: known(-1, -1, nan, 713408)}},
		{"no capacity yet", "sglang", "sglang:max_total_num_tokens 0\n", UnknownLoad()},
		{"blocks of several sizes", "triton", `nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="a"} 10
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="b"} 10
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="a"} 64
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="b"} 32
`, UnknownLoad()},
		{"the ratio of older versions", "llamacpp", "llamacpp:kv_cache_usage_ratio 0.25\n", Load{Load: known(-1, -1, 0.25, -1)}},
	} {
		s := serve(t, c.engine, map[string]string{"GET " + Find(c.engine).metrics: c.text})
		if got, err := s.Load(t.Context()); err != nil || !same(got, c.want) {
			t.Errorf("%s: %+v, %v, want %+v", c.what, got, err, c.want)
		}
	}
}

// An engine that answers with garbage, without end or with a failure is an
// error, and its load is unknown.
func TestAnswersThatAreNone(t *testing.T) {
	for what, text := range map[string]string{
		"garbage":     "<html>{",
		"cut":         "vllm:num_requests_running 1\nvllm:num_requ{",
		"without end": strings.Repeat("a 1\n", maxMetrics/4+1),
	} {
		s := serve(t, "vllm", map[string]string{"GET /metrics": text, "GET /v1/models": text})
		if l, err := s.Load(t.Context()); err == nil || !same(l, UnknownLoad()) {
			t.Errorf("%s: load %+v, %v", what, l, err)
		}
		if models, _, err := s.Models(t.Context()); err == nil {
			t.Errorf("%s: models %q", what, models)
		}
	}
	s := serve(t, "vllm", nil)
	if refused, ok := errors.AsType[*StatusError](s.Healthy(t.Context())); !ok || refused.Status != http.StatusNotFound {
		t.Errorf("health: %v", refused)
	}
	if l, err := s.Load(t.Context()); err != nil || !same(l, UnknownLoad()) {
		t.Errorf("an engine without metrics: %+v, %v", l, err)
	}
}

// How many requests an engine takes is known without its metrics, which llama.cpp has only
// with --metrics: it answers 501 without.
func TestSlotsAreKnownWithoutMetrics(t *testing.T) {
	for name, call := range map[string]string{"llamacpp": "GET /props", "tgi": "GET /info"} {
		s := serve(t, name, map[string]string{call: says[name].answers[call]})
		want := UnknownLoad()
		want.MaxInFlight = says[name].load.MaxInFlight
		if l, err := s.Load(t.Context()); err != nil || !same(l, want) {
			t.Errorf("%s: %+v, %v, want %+v", name, l, err, want)
		}
	}
}

// The engine's key is sent with each call and is in no error.
func TestTheKeyIsSent(t *testing.T) {
	var got []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer s.Close()
	source := &Source{Engine: Find("vllm"), HTTP: s.Client(), URL: s.URL, MetricsURL: s.URL, Key: func() (string, error) { return "s3cret", nil }}
	_, _, models := source.Models(t.Context())
	_, load := source.Load(t.Context())
	for _, err := range []error{source.Healthy(t.Context()), models, load} {
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("error %v", err)
		}
	}
	if len(got) != 3 || slices.ContainsFunc(got, func(h string) bool { return h != "Bearer s3cret" }) {
		t.Errorf("sent %q", got)
	}
}

// A head can register so many models, and no more: those that the engine lists first, such
// as the base model before its adapters, are kept, and the others are named.
func TestModelsAreBounded(t *testing.T) {
	list := []string{`{"id":"z-base"}`, `{"id":"a name"}`, `{"id":"z-base"}`, `{}`}
	for i := range 200 {
		list = append(list, fmt.Sprintf(`{"id":"m%03d"}`, 199-i))
	}
	s := serve(t, "openai", map[string]string{"GET /v1/models": `{"data":[` + strings.Join(list, ",") + `]}`})
	models, left, err := s.Models(t.Context())
	if err != nil || len(models) != fleet.MaxModelTypesOfHead || models[len(models)-1] != "z-base" || !slices.IsSorted(models) {
		t.Errorf("models %q, %v", models, err)
	}
	if len(left) != 201-len(models)+1 || left[0] != "a name" || left[len(left)-1] != "m000" {
		t.Errorf("%d are left out: %q", len(left), left)
	}
}

// A head may write its engine in any case, for checks as for requests.
func TestEnginesAreFoundInAnyCase(t *testing.T) {
	for name, e := range all {
		for _, written := range []string{name, strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:]} {
			if Of(written) != e {
				t.Errorf("%s is not the engine %s", written, name)
			}
		}
	}
}
