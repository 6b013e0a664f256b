package mockhead

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics serves a head's figures under vLLM's names, labeled model_name.
type metrics struct {
	runner *runner
	label  prometheus.Labels
	ttft   prometheus.Histogram
}

func newMetrics(h *Head, reg *prometheus.Registry) (*metrics, http.Handler) {
	label := prometheus.Labels{"model_name": h.options.Models[0]}
	m := &metrics{runner: h.runner, label: label, ttft: prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "vllm:time_to_first_token_seconds", Help: "Histogram of time to first token in seconds.", ConstLabels: label,
		// vLLM's buckets
		Buckets: []float64{
			0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1,
			2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
		},
	})}
	reg.MustRegister(m, m.ttft)
	return m, promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// Describe implements [prometheus.Collector].
func (m *metrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements [prometheus.Collector].
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	send := func(kind prometheus.ValueType, v float64, name, help string) {
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc("vllm:"+name, help, nil, m.label), kind, v)
	}
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	l, c := m.runner.load()
	send(gauge, float64(l.Running), "num_requests_running", "Number of requests in model execution batches.")
	send(gauge, float64(l.Waiting), "num_requests_waiting", "Number of requests waiting to be processed.")
	send(gauge, l.KVUsage, "kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.")
	send(counter, float64(c.PrefixQueries), "prefix_cache_queries_total", "Prefix cache queries, in terms of number of queried tokens.")
	send(counter, float64(c.PrefixHits), "prefix_cache_hits_total", "Prefix cache hits, in terms of number of cached tokens.")
	send(counter, float64(c.PromptTokens), "prompt_tokens_total", "Number of prefill tokens processed.")
	send(counter, float64(c.OutputTokens), "generation_tokens_total", "Number of generation tokens processed.")
	send(counter, float64(c.Preemptions), "num_preemptions_total", "Cumulative number of preemptions from the engine.")
}
