package mockhead

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics serves a head's numbers under vLLM's names and its one label,
// model_name.
type metrics struct {
	head  *Head
	descs map[string]*prometheus.Desc
	ttft  prometheus.Observer
}

const (
	metricRunning       = "vllm:num_requests_running"
	metricWaiting       = "vllm:num_requests_waiting"
	metricKVUsage       = "vllm:kv_cache_usage_perc"
	metricPrefixQueries = "vllm:prefix_cache_queries_total"
	metricPrefixHits    = "vllm:prefix_cache_hits_total"
	metricPrefilled     = "vllm:prompt_tokens_total"
	metricGenerated     = "vllm:generation_tokens_total"
	metricPreemptions   = "vllm:num_preemptions_total"
	metricTTFT          = "vllm:time_to_first_token_seconds"
)

var metricHelp = map[string]string{
	metricRunning:       "Number of requests in model execution batches.",
	metricWaiting:       "Number of requests waiting to be processed.",
	metricKVUsage:       "KV-cache usage. 1 means 100 percent usage.",
	metricPrefixQueries: "Prefix cache queries, in terms of number of queried tokens.",
	metricPrefixHits:    "Prefix cache hits, in terms of number of cached tokens.",
	metricPrefilled:     "Number of prefill tokens processed.",
	metricGenerated:     "Number of generation tokens processed.",
	metricPreemptions:   "Cumulative number of preemptions from the engine.",
}

// newMetrics registers the head's metrics with reg and returns their handler.
func newMetrics(h *Head, reg *prometheus.Registry) (*metrics, http.Handler) {
	label := prometheus.Labels{"model_name": h.options.Models[0]}
	m := &metrics{head: h, descs: make(map[string]*prometheus.Desc, len(metricHelp))}
	for name, help := range metricHelp {
		m.descs[name] = prometheus.NewDesc(name, help, nil, label)
	}
	ttft := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: metricTTFT, Help: "Histogram of time to first token in seconds.", ConstLabels: label,
		// vLLM's buckets
		Buckets: []float64{
			0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1,
			2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
		},
	})
	m.ttft = ttft
	reg.MustRegister(m, ttft)
	return m, promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// Describe implements [prometheus.Collector].
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range m.descs {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	l, c := m.head.runner.load()
	gauge := func(name string, v float64) {
		ch <- prometheus.MustNewConstMetric(m.descs[name], prometheus.GaugeValue, v)
	}
	counter := func(name string, v uint64) {
		ch <- prometheus.MustNewConstMetric(m.descs[name], prometheus.CounterValue, float64(v))
	}
	gauge(metricRunning, float64(l.Running))
	gauge(metricWaiting, float64(l.Waiting))
	gauge(metricKVUsage, l.KVUsage)
	counter(metricPrefixQueries, c.PrefixQueries)
	counter(metricPrefixHits, c.PrefixHits)
	counter(metricPrefilled, c.PromptTokens)
	counter(metricGenerated, c.OutputTokens)
	counter(metricPreemptions, c.Preemptions)
}
