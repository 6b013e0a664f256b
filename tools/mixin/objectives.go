package mixin

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// The objectives, over 30 days.
const (
	decisionObjective = 0.999 // of decisions that the service owes a head
	latencyObjective  = 0.99  // of decisions over HTTP within latencyLimit
	latencyLimit      = "0.1" // seconds, a bound of the histogram's buckets
)

// leastErrors is the least number of failed decisions in the long window: of a dozen
// requests at night one that fails is no alert.
const leastErrors = 10

// Owed are the reasons of failed decisions that count against the service: no
// head, or no place. Asked are those that come from the request, an unknown model
// type or region, labels without a head, excluded heads, and that which the policy
// asks for: the strategy slo refuses what would come too late.
var (
	Owed  = []string{"no_heads", "region", "unroutable", "at_capacity", "pool_full", "paused", "queue_full", "queue_timeout"}
	Asked = []string{"unknown_model_type", "unknown_region", "labels", "excluded", "objective_unreachable"}
)

// owed counts every reason that is not in Asked, so that a new one of a later
// service counts too.
var owed = fmt.Sprintf(`headway_decision_failures_total{reason!~%q}`, strings.Join(Asked, "|"))

// burn is one pair of windows: the long one shows that it matters, the short
// one that it continues. Factors and windows are from Google's SRE workbook,
// table 5-8, with the pair of factor 3 from sloth.
type burn struct {
	long     time.Duration
	short    string
	factor   float64
	severity string
	wait     time.Duration
	budget   string // of 30 days that is spent then
}

var burns = []burn{
	{time.Hour, "5m", 14.4, Critical, 2 * minute, "2 % in an hour"},
	{6 * time.Hour, "30m", 6, Critical, 15 * minute, "5 % in six hours"},
	{24 * time.Hour, "2h", 3, Warning, time.Hour, "10 % in a day"},
	{72 * time.Hour, "6h", 1, Warning, 3 * time.Hour, "10 % in three days"},
}

var burnWindows = []string{"5m", "30m", "1h", "2h", "6h", "1d", "3d"}

const minute = time.Minute

// slowly is the evaluation interval of windows from 6 hours on. They change by
// less than a percent meanwhile, and cost more than all other rules together.
const slowly = 2 * minute

// objectives are burn rate alerts: the error budget would be spent early.
func objectives() []Group {
	availability, latency := Group{
		Name:  "routing-service-objective-decisions",
		Intro: "99.9 % of decisions find a head, over 30 days. What a caller got wrong does not count: a model type or region that no head and no policy names, labels that no head has, all heads excluded. Nor do requests that the strategy `slo` refuses: the policy wants that. Each alert looks at two windows; the factor says how much too fast the budget of errors is spent.",
	}, Group{
		Name:  "routing-service-objective-latency",
		Intro: "99 % of decisions over HTTP are answered within 100 ms, over 30 days.",
	}
	long := Group{Name: "routing-service-objective-windows", Interval: slowly}
	for _, w := range burnWindows {
		ofDecisions, ofLatency := &availability.Records, &latency.Records
		if w == "6h" || w == "1d" || w == "3d" {
			ofDecisions, ofLatency = &long.Records, &long.Records
		}
		*ofDecisions = append(*ofDecisions, Record{
			Name: "routing:decision_errors:ratio_rate" + w,
			Expr: fmt.Sprintf(`sum by (job) (rate(%[2]s[%[1]s])) / (sum by (job) (rate(%[2]s[%[1]s])) + sum by (job) (rate(routing_decisions_total{strategy!="none"}[%[1]s])))`, w, owed),
		})
		if slices.ContainsFunc(burns, func(b burn) bool { return Duration(b.long) == w }) {
			*ofDecisions = append(*ofDecisions, Record{
				Name: "routing:decision_errors:increase" + w, Expr: fmt.Sprintf(`sum by (job) (increase(%s[%s]))`, owed, w),
			})
		}
		*ofLatency = append(*ofLatency, Record{
			Name: "routing:decision_slow:ratio_rate" + w,
			Expr: fmt.Sprintf(`1 - sum by (job) (rate(headway_http_request_duration_seconds_bucket{endpoint="/api/v1/decisions",le="%[2]s"}[%[1]s]))`+
				` / sum by (job) (rate(headway_http_request_duration_seconds_count{endpoint="/api/v1/decisions"}[%[1]s]))`, w, latencyLimit),
		})
	}
	for i, b := range burns {
		availability.Alerts = append(availability.Alerts, burnAlert(b, "DecisionErrorBudgetBurn", "routing:decision_errors:ratio_rate", 1-decisionObjective,
			"decisions find no head", "failed decisions",
			[2]string{
				`headway_decision_failures_total{reason="unroutable",job="routing-service"}`,
				`routing_decisions_total{strategy="random",job="routing-service"}`,
			}))
		burnt := availability.Alerts[i]
		typos := burnt.Fires
		typos.Name = "errors of callers do not count"
		typos.Series = nil
		for _, reason := range Asked {
			typos.Series = append(typos.Series, Series{fmt.Sprintf(`headway_decision_failures_total{reason=%q,job="routing-service"}`, reason), burnt.Fires.Series[0].Values})
		}
		refused := Case{Name: "requests that the strategy slo refuses do not count", Every: burnt.Fires.Every, At: burnt.Fires.At, Series: []Series{
			{`headway_decision_failures_total{reason="objective_unreachable",job="routing-service"}`, burnt.Fires.Series[0].Values}, burnt.Fires.Series[1],
		}}
		typos.Series = append(typos.Series, burnt.Fires.Series[1],
			Series{`headway_decision_failures_total{reason="unroutable",job="routing-service"}`, burnt.Quiet.Series[0].Values},
			Series{`routing_decisions_total{strategy="none",job="routing-service"}`, burnt.Fires.Series[0].Values})
		few := fmt.Sprintf("0+%gx%d", float64(leastErrors)/2/float64(b.long/(2*minute)), int(burnt.Quiet.At/(2*minute))+2)
		burnt.Expr += fmt.Sprintf(" and routing:decision_errors:increase%s >= %d", Duration(b.long), leastErrors)
		burnt.Meaning += fmt.Sprintf(" Fewer than %d of them over %s are too few for a share.", leastErrors, Duration(b.long))
		burnt.Still = []Case{typos, refused, {Name: "a few failures of a few decisions", Every: 2 * minute, At: burnt.Quiet.At, Series: []Series{
			{burnt.Fires.Series[0].Name, few}, {burnt.Fires.Series[1].Name, few},
		}}}
		latency.Alerts = append(latency.Alerts, burnAlert(b, "DecisionLatencyBudgetBurn", "routing:decision_slow:ratio_rate", 1-latencyObjective,
			"decisions take longer than 100 ms", "slow decisions",
			[2]string{
				`headway_http_request_duration_seconds_count{endpoint="/api/v1/decisions",job="routing-service"}`,
				`headway_http_request_duration_seconds_bucket{endpoint="/api/v1/decisions",le="0.1",job="routing-service"}`,
			}))
	}
	return []Group{long, availability, latency}
}

// burnAlert is one alert of an objective. Its name has its long window, since
// promtool distinguishes alerts by name.
func burnAlert(b burn, name, record string, budget float64, what, of string, series [2]string) *Alert {
	limit, long := b.factor*budget, Duration(b.long)
	threshold := fmt.Sprintf("%.6g", limit)
	a := &Alert{
		Name:     name + long,
		Expr:     record + long + " > " + threshold + " and " + record + b.short + " > " + threshold,
		For:      b.wait,
		Severity: b.severity,
		Labels:   map[string]string{"long_window": long, "short_window": b.short},
		Summary:  fmt.Sprintf("The budget of %s is spent %g times too fast", of, b.factor),
		Description: fmt.Sprintf("{{ $value | humanizePercentage }} of %s over %s, more than %g times what the objective allows. At this rate %s of the budget of 30 days is spent.",
			what, long, b.factor, b.budget),
		Meaning: fmt.Sprintf("Over %s and over %s more than %.4g %% of %s. The objective allows %.4g %% over 30 days.", long, b.short, 100*limit, what, 100*budget),
		Causes:  []string{"as of HighRoutingErrors and HighHTTPLatency, which look at five minutes only"},
		Do:      []string{"with severity critical: act as for an outage", "with severity warning: find the cause within the day; the panels \"Routing Errors\" and \"HTTP Request Latency\" show when it began"},
	}
	// The windows must be full for the test to be valid.
	at := b.long + b.wait + 30*minute
	steps := int(at/(2*minute)) + 2
	samples := func(share float64) []Series {
		const total = 100_000.0
		first := share * total
		if name == "DecisionLatencyBudgetBurn" {
			first = total
		}
		return []Series{
			{series[0], fmt.Sprintf("0+%.0fx%d", first, steps)},
			{series[1], fmt.Sprintf("0+%.0fx%d", (1-share)*total, steps)},
		}
	}
	shown := fmt.Sprintf("%.4g%%", 100*2*limit)
	a.Fires = Case{
		Series: samples(2 * limit), Every: 2 * minute, At: at, Labels: map[string]string{"job": "routing-service"},
		Says: fmt.Sprintf("%s of %s over %s, more than %g times what the objective allows. At this rate %s of the budget of 30 days is spent.", shown, what, long, b.factor, b.budget),
	}
	a.Quiet = Case{Series: samples(0.9 * limit), Every: 2 * minute, At: at}
	return a
}
