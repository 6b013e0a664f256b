package effectiveness

import (
	"cmp"
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// sum is a metric that is counted in cells.
type sum struct {
	desc *prometheus.Desc
	kind kind
	unit float64  // in which it is counted
	more []string // values of further labels
}

const (
	microsecond = 1e-6
	thousandth  = 1e-3
)

// metrics are what a Watch shows a scrape.
type metrics struct {
	sums      []sum
	shadows   []sum
	imbalance *prometheus.Desc
	trusted   *prometheus.Desc
	blocks    *prometheus.Desc
	evictions *prometheus.Desc
}

// imbalanceOver is the time that the gauge of imbalance is the mean of, in minutes.
const imbalanceOver = 5

func newMetrics() *metrics {
	m := new(metrics)
	of := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("headway_"+name, help, labels, nil)
	}
	add := func(k kind, unit float64, name, help string) {
		m.sums = append(m.sums, sum{of("strategy_"+name, help, "strategy", "model_type"), k, unit, nil})
	}
	add(predictions, 1, "predictions_total", "Decisions with an expected time to the first token and an observed one, by strategy and model type; a model type beyond the first 200 pairs is \"other\".")
	add(predictedTime, microsecond, "predicted_seconds_total", "Expected times to the first token of headway_strategy_predictions_total.")
	add(comparedTime, microsecond, "observed_seconds_total", "Observed times to the first token of headway_strategy_predictions_total.")
	add(errorTime, microsecond, "prediction_error_seconds_total", "By how much the expected times to the first token were off, too long or too short; as a part of headway_strategy_observed_seconds_total it is the calibration error.")
	add(compared, thousandth, "regret_decisions_total", "Decisions that headway_strategy_regret_seconds_total is of, as estimated of the samples.")
	add(regretTime, microsecond, "regret_seconds_total", "Time to the first token that was expected at the chosen head, less the least that was expected at any head there was.")
	add(promisedTokens, 1, "prefix_promised_tokens_total", "Tokens of prompts that the chosen heads were expected to have cached, of requests for which they said what they had.")
	add(deliveredTokens, 1, "prefix_delivered_tokens_total", "Tokens of those prompts that they had cached, promised or not.")
	add(keptTokens, 1, "prefix_kept_tokens_total", "Tokens of headway_strategy_prefix_promised_tokens_total that they had cached.")
	add(refused, 1, "refused_total", "Requests that the strategy refused, since no head was likely to begin to answer in time. They are no decisions of it.")
	objective := of("strategy_objective_total", "Decisions by whether their first token came within the objective (effectiveness.objective); those whose head failed missed it.", "strategy", "model_type", "result")
	m.sums = append(m.sums, sum{objective, met, 1, []string{"met"}}, sum{objective, missed, 1, []string{"missed"}})
	shadow := func(k kind, unit float64, name, help string) {
		m.shadows = append(m.shadows, sum{of("shadow_"+name, help, "strategy", "model_type", "shadow"), k, unit, nil})
	}
	shadow(decisions, 1, "decisions_total", "Decisions for which a strategy of the policy's shadow was asked what it would have chosen, by the strategy that decided, the model type and the shadow.")
	shadow(agreed, 1, "agreed_decisions_total", "Decisions of headway_shadow_decisions_total for which the shadow would have chosen the same head.")
	shadow(compared, thousandth, "regret_decisions_total", "Decisions of headway_shadow_decisions_total that the regret of both is known of.")
	shadow(regretTime, microsecond, "strategy_regret_seconds_total", "Regret of the strategy that decided, of headway_shadow_regret_decisions_total.")
	shadow(shadowRegretTime, microsecond, "regret_seconds_total", "Regret that the shadow would have had, of headway_shadow_regret_decisions_total.")
	m.imbalance = of("strategy_imbalance", "The part of the requests in flight that would have to be elsewhere for the heads to be even by their weights, as decisions saw it in the last five minutes.", "strategy", "model_type")
	m.trusted = of("prefix_trusted", "1 while heads of the model type have the tokens cached that they are expected to have; 0: they are chosen by load alone.", "model_type")
	m.blocks = of("prefix_blocks", "Blocks of prompts that the index of caches has room for.")
	m.evictions = of("prefix_evictions_total", "Blocks of prompts that the index of caches forgot for others while a head still had them cached.")
	return m
}

// Describe implements prometheus.Collector.
func (w *Watch) Describe(ch chan<- *prometheus.Desc) {
	for _, s := range w.metrics.sums {
		if s.kind != missed { // it has the name of another
			ch <- s.desc
		}
	}
	for _, s := range w.metrics.shadows {
		ch <- s.desc
	}
	ch <- w.metrics.imbalance
	ch <- w.metrics.trusted
	ch <- w.metrics.blocks
	ch <- w.metrics.evictions
}

// Collect implements prometheus.Collector.
func (w *Watch) Collect(ch chan<- prometheus.Metric) {
	m, now := w.metrics, w.o.Now()
	cells := *w.cells.Load()
	for _, k := range slices.SortedFunc(maps.Keys(cells), key.compare) {
		c := cells[k]
		if k.shadow != "" {
			for _, s := range m.shadows {
				ch <- counted(s.desc, float64(c.total[s.kind].Load())*s.unit, k.strategy, k.model, k.shadow)
			}
			continue
		}
		for _, s := range m.sums {
			ch <- counted(s.desc, float64(c.total[s.kind].Load())*s.unit, append([]string{k.strategy, k.model}, s.more...)...)
		}
		var recent sums
		c.last(&recent, now, imbalanceOver)
		if e := recent.effect(); recent[requestsSeen] > 0 {
			ch <- prometheus.MustNewConstMetric(m.imbalance, prometheus.GaugeValue, e.Imbalance, k.strategy, k.model)
		}
	}
	w.collectPrefix(ch)
}

func counted(desc *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(desc, prometheus.CounterValue, v, labels...)
}

// collectPrefix is what is known of the caches of heads.
func (w *Watch) collectPrefix(ch chan<- prometheus.Metric) {
	m, paces := w.metrics, w.o.Known.Paces()
	for i, model := range slices.Sorted(maps.Keys(paces)) {
		if i == maxCells {
			break
		}
		v := 0.
		if paces[model].Trusted() {
			v = 1
		}
		ch <- prometheus.MustNewConstMetric(m.trusted, prometheus.GaugeValue, v, model)
	}
	index := w.o.Known.Prompts
	ch <- prometheus.MustNewConstMetric(m.blocks, prometheus.GaugeValue, float64(index.Len()))
	ch <- counted(m.evictions, float64(index.Evictions()))
}

func (k key) compare(o key) int {
	return cmp.Or(cmp.Compare(k.model, o.model), cmp.Compare(k.strategy, o.strategy), cmp.Compare(k.shadow, o.shadow))
}
