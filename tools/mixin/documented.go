package mixin

import "time"

const minute = time.Minute

// heldHeads is a sentence about held heads, if there are any.
const heldHeads = `{{ with printf "max by (job) (headway_held_heads{job=%q}) > 0" $labels.job | query }} Besides, heads take requests that the mass-expiry guard holds, since their leases ran out: {{ . | first | value }}.{{ end }}`

// documented are the alerts of the monitoring guide, with its names and
// thresholds.
func documented() []Group {
	return []Group{{
		Name:  "routing-service-alerts",
		Intro: "The alerts that every installation starts with.",
		Alerts: []Alert{
			{
				Name:     "HighRoutingErrors",
				Expr:     `sum(rate(routing_decisions_total{strategy="none"}[5m])) > 0.1`,
				For:      5 * minute,
				Severity: Warning,
				Summary:  "High routing errors",
				Description: "Routing service is making too many failed routing decisions: " +
					"{{ $value | humanize }} a second.",
				Meaning: "More than one decision in ten seconds found no head, over all instances together. The callers got 404 or 503.",
				Causes: []string{
					"heads of a model type or region are gone, drained, or silent",
					"all heads are at max_in_flight",
					"callers ask for a model type that no head serves",
					"a policy requires a region that has no heads",
				},
				Do: []string{
					"`sum by (reason) (rate(headway_decision_failures_total[5m]))` says why",
					"`headway heads list` shows who takes requests; `headway decide --model-type NAME --explain` shows which filter removes each head",
					"start heads, `headway heads undrain` those that were drained, or `headway policy restore` the policy of before",
				},
				Fires: Case{
					Series: []Series{
						{`routing_decisions_total{strategy="none",model_type="m",region="eu",instance="a"}`, "0+4x15"},
						{`routing_decisions_total{strategy="none",model_type="m",region="eu",instance="b"}`, "0+4x15"},
					},
					At: 10 * minute, Says: "Routing service is making too many failed routing decisions: 133.3m a second.",
				},
				Also: []Case{{
					Name:   "as early as the plain expression",
					Series: []Series{{`routing_decisions_total{strategy="none",model_type="m",region="eu",instance="a"}`, "0+3.5x21 73.5x20"}},
					Every:  30 * time.Second, At: 10*minute + 30*time.Second,
					Says: "Routing service is making too many failed routing decisions: 116.7m a second.",
				}},
				Quiet: Case{
					Series: []Series{
						{`routing_decisions_total{strategy="none",model_type="m",region="eu"}`, "0+5x15"},
						{`routing_decisions_total{strategy="random",model_type="m",region="eu"}`, "0+500x15"},
					},
					At: 10 * minute,
				},
			},
			{
				Name:        "LowActiveHeads",
				Expr:        `min by (job) (last_over_time(active_heads[2m])) < 2`,
				For:         5 * minute,
				Severity:    Critical,
				Summary:     "Low active heads",
				Description: "Number of active heads is below minimum threshold: {{ $value }}." + heldHeads,
				Meaning:     "For five minutes fewer than two heads had a lease that holds. Those that the mass-expiry guard holds take requests without one and do not count; the description says how many there are. With one head, the next failure is an outage. Several instances each report the same fleet, so the least of them counts; a scrape that fails does not restart the five minutes.",
				Causes:      []string{"heads crashed or lost their network", "a rollout drained too many at once", "the heads cannot reach this service, so that their leases ran out"},
				Do: []string{
					"`headway heads list -o wide` shows what each head reported last and how its lease is",
					"`rate(headway_lease_expirations_total[5m])` and `headway_heads` by status tell silent heads from drained ones",
					"start heads; a head that reports again takes requests at once",
				},
				Fires: Case{
					Series: []Series{{`active_heads{job="routing-service",instance="a"}`, "8 8 1x20"}},
					At:     12 * minute, Labels: map[string]string{"job": "routing-service"}, Says: "Number of active heads is below minimum threshold: 1.",
				},
				Also: []Case{{
					Name:   "as early as the plain expression",
					Series: []Series{{`active_heads{job="routing-service",instance="a"}`, "8x9 1x12 8x10"}},
					Every:  30 * time.Second, At: 10*minute + 30*time.Second,
					Labels: map[string]string{"job": "routing-service"}, Says: "Number of active heads is below minimum threshold: 1.",
				}, {
					Name: "while the guard holds the others",
					Series: []Series{
						{`active_heads{job="routing-service",instance="a"}`, "8 8 0x20"},
						{`headway_held_heads{job="routing-service",instance="a"}`, "0 0 8x20"},
						{`headway_held_heads{job="other",instance="a"}`, "9x20"},
					},
					At: 12 * minute, Labels: map[string]string{"job": "routing-service"},
					Says: "Number of active heads is below minimum threshold: 0. Besides, heads take requests that the mass-expiry guard holds, since their leases ran out: 8.",
				}, {
					Name:   "though a scrape fails",
					Series: []Series{{`active_heads{job="routing-service",instance="a"}`, "8x4 1 1 1 stale 1x10"}},
					At:     10 * minute,
					Labels: map[string]string{"job": "routing-service"}, Says: "Number of active heads is below minimum threshold: 1.",
				}},
				Quiet: Case{Series: []Series{{`active_heads{job="routing-service",instance="a"}`, "2x4 0 2x20"}}, At: 12 * minute},
			},
			{
				Name:        "HighHTTPErrors",
				Expr:        `sum(rate(http_requests_total{status=~"5.."}[5m])) / sum(rate(http_requests_total[5m])) > 0.05`,
				For:         5 * minute,
				Severity:    Warning,
				Summary:     "High HTTP error rate",
				Description: "{{ $value | humanizePercentage }} of HTTP requests are answered with a server error.",
				Meaning:     "More than 5 % of the answers were 5xx. 4xx are the callers' mistakes and do not count.",
				Causes:      []string{"no head for decisions (503), see HighRoutingErrors", "the state cannot be written (503)", "a bug (500)"},
				Do: []string{
					"`sum by (endpoint, status) (rate(http_requests_total{status=~\"5..\"}[5m]))` says which calls",
					"the log has the reason of each 500, with its request id",
					"`curl -s localhost:8080/readyz` names what is not well",
				},
				Fires: Case{
					Series: []Series{
						{`http_requests_total{status="503",method="POST",endpoint="/api/v1/decisions"}`, "0+10x15"},
						{`http_requests_total{status="200",method="POST",endpoint="/api/v1/decisions"}`, "0+90x15"},
					},
					At: 10 * minute, Says: "10% of HTTP requests are answered with a server error.",
				},
				Quiet: Case{
					Series: []Series{
						{`http_requests_total{status="503",method="POST",endpoint="/api/v1/decisions"}`, "0+4x15"},
						{`http_requests_total{status="404",method="POST",endpoint="/api/v1/decisions"}`, "0+40x15"},
						{`http_requests_total{status="200",method="POST",endpoint="/api/v1/decisions"}`, "0+90x15"},
					},
					At: 10 * minute,
				},
			},
			{
				Name: "DecisionsExplainHTTPErrors", For: 5 * minute, Severity: Info,
				Expr: `sum(rate(` + owed + `[5m])) > 0.1` +
					` and (sum(rate(http_requests_total{status=~"5.."}[5m])) -` + // the smaller of 503 and failures
					` (((sum(rate(http_requests_total{status="503",endpoint="/api/v1/decisions"}[5m])) or vector(0)) < sum(rate(` + owed + `[5m]))) or sum(rate(` + owed + `[5m]))))` +
					` / sum(rate(http_requests_total[5m])) <= 0.05`,
				Summary:     "The HTTP errors are decisions without a head",
				Description: "Decisions a second that find no head or no place at one: {{ $value | humanize }}. Without their 503 the answers are well.",
				Meaning:     "For Alertmanager: while it fires, HighRoutingErrors says all that HighHTTPErrors would, which is kept back. When other 5xx pass 5 % it ends, those of decisions that are refused for another reason (overload, an issuer that is away) among them: as many 503 of decisions are left out as there are failed decisions. It ends also when the failed decisions are callers' mistakes, which are answered with 404 and are no server errors.",
				Causes:      []string{"as of HighRoutingErrors"},
				Do:          []string{"nothing: HighRoutingErrors has what to do"},
				Fires: Case{
					Series: []Series{
						{`headway_decision_failures_total{reason="unroutable"}`, "0+10x15"},
						{`http_requests_total{status="503",method="POST",endpoint="/api/v1/decisions"}`, "0+10x15"},
						{`http_requests_total{status="500",method="GET",endpoint="/api/v1/heads"}`, "0+4x15"},
						{`http_requests_total{status="200",method="POST",endpoint="/api/v1/decisions"}`, "0+86x15"},
					},
					At: 10 * minute, Says: "Decisions a second that find no head or no place at one: 166.7m. Without their 503 the answers are well.",
				},
				Also: []Case{{
					Name: "for failed decisions of all kinds that the service owes",
					Series: []Series{
						{`headway_decision_failures_total{reason="region"}`, "0+20x15"},
						{`headway_decision_failures_total{reason="no_heads"}`, "0+20x15"},
						{`headway_decision_failures_total{reason="unknown_region"}`, "0+60x15"},
						{`http_requests_total{status="503",method="POST",endpoint="/api/v1/decisions"}`, "0+42x15"},
						{`http_requests_total{status="200",method="POST",endpoint="/api/v1/decisions"}`, "0+60x15"},
					},
					At: 10 * minute, Says: "Decisions a second that find no head or no place at one: 666.7m. Without their 503 the answers are well.",
				}},
				Quiet: Case{
					Name: "while callers ask for what no head has",
					Series: []Series{
						{`headway_decision_failures_total{reason="unknown_model_type"}`, "0+50x15"},
						{`headway_decision_failures_total{reason="unroutable"}`, "0+5x15"},
						{`http_requests_total{status="500",method="GET",endpoint="/api/v1/heads"}`, "0+4x15"},
						{`http_requests_total{status="200",method="POST",endpoint="/api/v1/decisions"}`, "0+96x15"},
					},
					At: 10 * minute,
				},
				Still: []Case{{
					Name: "while other answers fail beside them",
					Series: []Series{
						{`headway_decision_failures_total{reason="at_capacity"}`, "0+10x15"},
						{`http_requests_total{status="503",method="POST",endpoint="/api/v1/decisions"}`, "0+10x15"},
						{`http_requests_total{status="500",method="GET",endpoint="/api/v1/heads"}`, "0+6x15"},
						{`http_requests_total{status="200",method="POST",endpoint="/api/v1/decisions"}`, "0+84x15"},
					},
					At: 10 * minute,
				}, {
					Name: "while decisions are refused before they are made",
					Series: []Series{
						{`headway_decision_failures_total{reason="unroutable"}`, "0+12x30"},
						{`http_requests_total{status="503",method="POST",endpoint="/api/v1/decisions"}`, "0+612x30"},
						{`http_requests_total{status="200",method="POST",endpoint="/api/v1/decisions"}`, "0+600x30"},
					},
					At: 20 * minute,
				}, {
					Name: "while failed decisions are not answered over HTTP, and other answers fail",
					Series: []Series{
						{`headway_decision_failures_total{reason="no_heads"}`, "0+60x30"},
						{`http_requests_total{status="500",method="GET",endpoint="/api/v1/heads"}`, "0+60x30"},
						{`http_requests_total{status="200",method="GET",endpoint="/api/v1/heads"}`, "0+600x30"},
					},
					At: 20 * minute,
				}},
			},
			{
				Name: "HighLatency",
				Expr: `histogram_quantile(0.95, sum by (endpoint, le) (rate(headway_http_request_duration_seconds_bucket[5m]))) > 1` +
					` and on (endpoint) sum by (endpoint) (rate(headway_http_request_duration_seconds_count[5m])) > 0.1`,
				For:         5 * minute,
				Severity:    Warning,
				Summary:     "High latency of {{ $labels.endpoint }}",
				Description: "95th percentile latency of {{ $labels.endpoint }} is {{ $value | humanizeDuration }}.",
				Meaning:     "One endpoint with traffic answers slowly: 5 % of its requests take longer than a second. While HighHTTPLatency fires, which says the same of the whole service, this one is inhibited.",
				Causes:      []string{"the disk is slow: registrations and changes wait for it", "the machine is out of CPU, see HighCPUUsage"},
				Do: []string{
					"`histogram_quantile(0.99, sum by (operation, le) (rate(headway_store_duration_seconds_bucket[5m])))` shows the disk",
					"`go_sched_latencies_seconds` grows when goroutines wait for a processor",
				},
				Fires: Case{
					Series: []Series{
						{`headway_http_request_duration_seconds_bucket{endpoint="/api/v1/heads",le="1"}`, "0+0x15"},
						{`headway_http_request_duration_seconds_bucket{endpoint="/api/v1/heads",le="2.5"}`, "0+60x15"},
						{`headway_http_request_duration_seconds_bucket{endpoint="/api/v1/heads",le="+Inf"}`, "0+60x15"},
						{`headway_http_request_duration_seconds_count{endpoint="/api/v1/heads"}`, "0+60x15"},
					},
					At: 10 * minute, Labels: map[string]string{"endpoint": "/api/v1/heads"}, Says: "95th percentile latency of /api/v1/heads is 2.425s.",
				},
				Quiet: Case{
					Series: []Series{
						{`headway_http_request_duration_seconds_bucket{endpoint="/api/v1/heads",le="1"}`, "0+0x15"},
						{`headway_http_request_duration_seconds_bucket{endpoint="/api/v1/heads",le="2.5"}`, "0+2x15"},
						{`headway_http_request_duration_seconds_bucket{endpoint="/api/v1/heads",le="+Inf"}`, "0+2x15"},
						{`headway_http_request_duration_seconds_count{endpoint="/api/v1/heads"}`, "0+2x15"},
					},
					At: 10 * minute,
				},
			},
			{
				Name:        "HighHTTPLatency",
				Expr:        `histogram_quantile(0.95, sum(rate(http_request_duration_seconds_bucket[5m])) by (le)) > 1`,
				For:         5 * minute,
				Severity:    Warning,
				Summary:     "High HTTP latency",
				Description: "95th percentile HTTP request latency is above 1 second: {{ $value | humanizeDuration }}.",
				Meaning:     "5 % of all requests take longer than a second. Decisions take microseconds, so something is badly wrong.",
				Causes:      []string{"the machine is out of CPU, see HighCPUUsage", "the disk is slow: registrations and changes wait for it"},
				Do: []string{
					"HighLatency, or `headway_http_request_duration_seconds` by endpoint, says which calls are slow",
					"`histogram_quantile(0.99, sum by (operation, le) (rate(headway_store_duration_seconds_bucket[5m])))` shows the disk",
				},
				Fires: Case{
					Series: []Series{
						{`http_request_duration_seconds_bucket{le="1"}`, "0+50x15"},
						{`http_request_duration_seconds_bucket{le="2.5"}`, "0+100x15"},
						{`http_request_duration_seconds_bucket{le="+Inf"}`, "0+100x15"},
					},
					At: 10 * minute, Says: "95th percentile HTTP request latency is above 1 second: 2.35s.",
				},
				Quiet: Case{
					Series: []Series{
						{`http_request_duration_seconds_bucket{le="1"}`, "0+99x15"},
						{`http_request_duration_seconds_bucket{le="2.5"}`, "0+100x15"},
						{`http_request_duration_seconds_bucket{le="+Inf"}`, "0+100x15"},
					},
					At: 10 * minute,
				},
			},
			{
				Name:        "HighMemoryUsage",
				Expr:        `process_resident_memory_bytes > 1e9`,
				For:         5 * minute,
				Severity:    Warning,
				Summary:     "High memory usage",
				Description: "Memory usage exceeds 1GB: {{ $value | humanize1024 }}B at {{ $labels.instance }}.",
				Meaning:     "The process takes more than 1 GB. 100,000 heads take less.",
				Causes:      []string{"very many heads, or very many recent decisions by `decisions.recent`", "very many connections", "a leak"},
				Do: []string{
					"compare `active_heads`, `headway_http_connections` and `go_goroutines` with the memory over time",
					"if nothing explains it, report it with the output of `curl -s localhost:8080/metrics`",
				},
				Fires: Case{
					Series: []Series{{`process_resident_memory_bytes{job="routing-service",instance="a"}`, "2e9x15"}},
					At:     10 * minute, Labels: map[string]string{"job": "routing-service", "instance": "a"}, Says: "Memory usage exceeds 1GB: 1.863GiB at a.",
				},
				Quiet: Case{Series: []Series{{`process_resident_memory_bytes{job="routing-service",instance="a"}`, "9e8x15"}}, At: 10 * minute},
			},
			{
				Name:        "HighCPUUsage",
				Expr:        `rate(process_cpu_seconds_total[5m]) / on (job, instance) go_sched_gomaxprocs_threads > 0.8`,
				For:         5 * minute,
				Severity:    Warning,
				Summary:     "High CPU usage",
				Description: "{{ $value | humanizePercentage }} of the CPUs that {{ $labels.instance }} may use are busy.",
				Meaning:     "The process takes more than 80 % of the CPUs that it may use. Beyond that latency grows fast.",
				Causes:      []string{"more traffic than one machine can take", "callers that repeat failed requests without pause", "a noisy neighbour"},
				Do: []string{
					"`sum by (endpoint) (rate(http_requests_total[5m]))` says what the traffic is",
					"`access.requests_per_key` bounds a caller that does too much",
					"give it more CPUs",
				},
				Fires: Case{
					Series: []Series{
						{`process_cpu_seconds_total{job="routing-service",instance="a"}`, "0+108x15"},
						{`go_sched_gomaxprocs_threads{job="routing-service",instance="a"}`, "2x15"},
					},
					At: 11 * minute, Labels: map[string]string{"job": "routing-service", "instance": "a"}, Says: "90% of the CPUs that a may use are busy.",
				},
				Quiet: Case{
					Series: []Series{
						{`process_cpu_seconds_total{job="routing-service",instance="a"}`, "0+108x15"},
						{`go_sched_gomaxprocs_threads{job="routing-service",instance="a"}`, "4x15"},
					},
					At: 11 * minute,
				},
			},
		},
	}}
}
