package main

import (
	"encoding/json"
	"regexp"
	"slices"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"

	"headway/tools/mixin"
)

type section struct {
	title  string
	panels []panel
}

// The panels of the monitoring guide, under its titles.
var (
	decisionsByStrategy = panel{
		kind: "timeseries", title: "Routing Decisions by Strategy", unit: "ops", stacked: true, apart: "none", none: "No traffic", runbook: "HighRoutingErrors",
		about:   "Decisions a second by the strategy that chose, stacked; none, which found no head, stands apart.",
		queries: []query{{"sum by (strategy) (" + rate(of("routing_decisions_total", byModel, byRegion)) + ") > 0", "{{strategy}}"}},
	}
	activeHeads = panel{
		kind: "timeseries", title: "Active Heads", unit: "short", min: ptr(0.0), runbook: "LowActiveHeads",
		about: "Heads that take new requests: those whose lease holds, and above them those that the mass-expiry guard holds though theirs ran out. Several instances each report the same fleet.",
		queries: []query{
			{"max by (job) (" + of("active_heads") + ")", "active heads"},
			{"max by (job) (" + of("headway_held_heads") + ")", "held by the guard"},
		},
	}
	httpRequests = panel{
		kind: "timeseries", title: "HTTP Requests", unit: "reqps", stacked: true, none: "No traffic",
		about:   "Requests a second by endpoint.",
		queries: []query{{"sum by (method, endpoint) (" + rate(of("http_requests_total")) + ") > 0", "{{method}} {{endpoint}}"}},
	}
	headOperations = panel{
		kind: "timeseries", title: "Head Operations", unit: "ops", none: "No traffic", runbook: "HeadFlapping",
		about: "Registrations and status reports of heads a second, and leases that ran out.",
		queries: []query{
			{"sum(" + rate(of("head_registrations_total")) + ")", "registrations"},
			{"sum(" + rate(of("head_status_updates_total")) + ")", "status updates"},
			{"sum(" + rate(of("headway_lease_expirations_total")) + ")", "leases that ran out"},
		},
	}
	cachePerformance = panel{
		kind: "timeseries", title: "Cache Performance", unit: "ops", none: "No traffic",
		about: "Look-ups of the routing cache a second. A miss costs microseconds; many say that heads or the policy change all the time.",
		queries: []query{
			{"sum(" + rate(of("cache_hits_total")) + ")", "hits"},
			{"sum(" + rate(of("cache_misses_total")) + ")", "misses"},
		},
	}
	httpLatency = panel{
		kind: "timeseries", title: "HTTP Request Latency", unit: "s", none: "No traffic", runbook: "HighHTTPLatency",
		about: "Time to answer; of streams to the header of the answer.",
		queries: []query{
			{quantile("0.5", of("http_request_duration_seconds_bucket")), "p50"},
			{quantile("0.95", of("http_request_duration_seconds_bucket")), "p95"},
			{quantile("0.99", of("http_request_duration_seconds_bucket")), "p99"},
		},
	}
	httpErrors = panel{
		kind: "timeseries", title: "HTTP Error Rates", unit: "percentunit", min: ptr(0.0), none: "No traffic", runbook: "HighHTTPErrors",
		about: "Share of answers that are errors: 5xx are ours, 4xx the callers'.",
		queries: []query{
			{"(sum(" + rate(of("http_requests_total", `status=~"5.."`)) + ") or vector(0)) / sum(" + rate(of("http_requests_total")) + ") >= 0", "5xx"},
			{"(sum(" + rate(of("http_requests_total", `status=~"4.."`)) + ") or vector(0)) / sum(" + rate(of("http_requests_total")) + ") >= 0", "4xx"},
		},
	}
	routingErrors = panel{
		kind: "timeseries", title: "Routing Errors", unit: "ops", min: ptr(0.0), runbook: "HighRoutingErrors",
		about: "Decisions a second that found no head: for the chosen model types and regions, and by reason for all of them.",
		queries: []query{
			{"sum(" + rate(of("routing_decisions_total", byModel, byRegion, `strategy="none"`)) + ")", "all chosen"},
			{"sum by (reason) (" + rate(of("headway_decision_failures_total")) + ") > 0", "{{reason}}, everywhere"},
		},
	}
	system = panel{
		kind: "timeseries", title: "System CPU and Memory Usage", unit: "percentunit", min: ptr(0.0), runbook: "HighCPUUsage",
		about: "Share of the CPUs that the process may use, and its resident memory as a share of 1 GB, the threshold of HighMemoryUsage.",
		queries: []query{
			{"rate(" + of("process_cpu_seconds_total") + "[$__rate_interval]) / " + of("go_sched_gomaxprocs_threads"), "CPU {{instance}}"},
			{of("process_resident_memory_bytes") + " / 1e9", "memory {{instance}}, of 1 GB"},
		},
	}
	connections = panel{
		kind: "timeseries", title: "Real-time Connections", unit: "short", min: ptr(0.0),
		about: "Open Server-Sent Events and WebSocket connections.",
		queries: []query{
			{"sum(" + of("sse_connections") + ")", "SSE"},
			{"sum(" + of("websocket_connections") + ")", "WebSocket"},
		},
	}
	queueActivity = panel{
		kind: "timeseries", title: "Message Queue Activity", unit: "mps", min: ptr(0.0), runbook: "QueueFailing",
		about: "Messages a second by queue and what became of them.",
		queries: []query{
			{"sum by (queue, status) (" + rate(of("message_queue_messages_total")) + ") > 0", "{{queue}} {{status}}"},
			{"sum(" + rate(of("message_queue_messages_total")) + ")", "all"},
		},
	}
	byModelAndRegion = panel{
		kind: "timeseries", title: "Routing Decisions by Model Type and Region", unit: "ops", stacked: true, none: "No traffic",
		about:   "Decisions a second by model type and the region of the chosen head.",
		queries: []query{{"sum by (model_type, region) (" + rate(of("routing_decisions_total", byModel, byRegion, `strategy!="none"`)) + ") > 0", "{{model_type}} in {{region}}"}},
	}
	externalServices = panel{
		kind: "timeseries", title: "External Service Errors and Success", unit: "cps", min: ptr(0.0), runbook: "ExternalCallsFailing",
		about:   "Calls a second of services outside of the process.",
		queries: []query{{"sum by (service, status) (" + rate(of("external_service_calls_total")) + ")", "{{service}} {{status}}"}},
	}
)

func sized(width, height uint32, panels ...panel) []panel {
	for i := range panels {
		panels[i].width, panels[i].height = width, height
	}
	return panels
}

// basic is the guide's basic dashboard with its five panels.
func basic() []section {
	return []section{{panels: slices.Concat(
		sized(12, 9, decisionsByStrategy, activeHeads, httpRequests, headOperations), sized(24, 9, cachePerformance),
	)}}
}

// well are the colours of a share of failures.
var well = []step{{color: "green"}, {"orange", 0.01}, {"red", 0.05}}

// enhanced is the guide's enhanced dashboard, with more for operators.
func enhanced() []section {
	return []section{
		{title: "Is it well?", panels: sized(4, 4,
			panel{
				kind: "stat", title: "Instances", unit: "short", none: "Unreachable", runbook: "RoutingServiceDown",
				about: "Instances that can be scraped.", steps: []step{{color: "red"}, {"green", 1}},
				queries: []query{{"count(" + of("active_heads") + ") or vector(0)", "instances"}},
			},
			panel{
				kind: "stat", title: "Heads that take requests", unit: "short", none: "Unreachable", runbook: "LowActiveHeads",
				about: "Heads that take new requests now, those that the mass-expiry guard holds among them.", steps: []step{{color: "red"}, {"orange", 2}, {"green", 3}},
				queries: []query{{"max(" + of("active_heads") + " + " + of("headway_held_heads") + ")", "heads"}},
			},
			panel{
				kind: "stat", title: "Decisions", unit: "ops", none: "No traffic",
				about: "Decisions a second.", steps: []step{{color: "blue"}},
				queries: []query{{"sum(" + rate(of("routing_decisions_total")) + ")", "decisions"}},
			},
			panel{
				kind: "stat", title: "Decisions that fail", unit: "percentunit", none: "No traffic", runbook: "HighRoutingErrorRatio",
				about: "Share of decisions that found no head.", steps: well,
				queries: []query{{"sum(" + rate(of("routing_decisions_total", `strategy="none"`)) + ") / sum(" + rate(of("routing_decisions_total")) + ") >= 0", "failed"}},
			},
			panel{
				kind: "stat", title: "Latency, p95", unit: "s", none: "No traffic", runbook: "HighHTTPLatency",
				about: "95th percentile of the time to answer.", steps: []step{{color: "green"}, {"orange", 0.1}, {"red", 1}},
				queries: []query{{quantile("0.95", of("http_request_duration_seconds_bucket")), "p95"}},
			},
			panel{
				kind: "stat", title: "Alerts that fire", unit: "short", none: "0",
				about: "Alerts of the routing service that fire now, the watchdog and what only keeps others back aside.", steps: []step{{color: "green"}, {"orange", 1}, {"red", 3}},
				queries: []query{{`count(ALERTS{alertstate="firing",severity!~"none|info",` + mixin.AppLabel + `="` + mixin.App + `"}) or vector(0)`, "alerts"}},
			},
		)},
		{title: "Decisions", panels: slices.Concat(
			sized(12, 9, decisionsByStrategy, byModelAndRegion, routingErrors),
			sized(12, 9, panel{
				kind: "timeseries", title: "How reservations end", unit: "ops", stacked: true, none: "No traffic",
				about:   "Outcomes that callers report a second. Many expired ones say that callers report none.",
				queries: []query{{"sum by (result) (" + rate(of("headway_decision_outcomes_total")) + ") > 0", "{{result}}"}},
			}),
			sized(12, 9, panel{
				kind: "timeseries", title: "Time to decide", unit: "s", none: "No traffic",
				about: "Time of a decision in process, without HTTP.",
				queries: []query{
					{quantile("0.5", of("headway_decision_duration_seconds_bucket")), "p50"},
					{quantile("0.99", of("headway_decision_duration_seconds_bucket")), "p99"},
				},
			}),
			sized(12, 9, panel{
				kind: "bargauge", title: "Share of each strategy", unit: "percentunit", min: ptr(0.0), max: ptr(1.0), none: "No traffic",
				about:   "Which strategies serve the traffic.",
				queries: []query{{"sum by (strategy) (" + rate(of("routing_decisions_total", byModel, byRegion)) + ") / ignoring (strategy) group_left sum(" + rate(of("routing_decisions_total", byModel, byRegion)) + ") > 0", "{{strategy}}"}},
			}),
		)},
		{title: "The fleet", panels: slices.Concat(
			sized(12, 9, activeHeads, headOperations),
			sized(12, 9, panel{
				kind: "table", title: "Heads by region and model", unit: "short", none: "No heads", runbook: "ModelWithoutHeads",
				about:   "Heads by region, model type and state; a head that serves two model types counts in both.",
				queries: []query{{"max by (region, model_type, status) (" + of("headway_heads", byModel, byRegion) + ") > 0", "heads"}},
				rename:  map[string]string{"model_type": "Model type", "region": "Region", "status": "State", "Value": "Heads"},
			}, panel{
				kind: "bargauge", title: "Requests in flight by head", unit: "short", min: ptr(0.0), none: "No heads",
				about:   "The busiest heads, by decisions that have not ended.",
				queries: []query{{"topk(10, max by (head) (" + of("headway_head_in_flight") + ") > 0) or topk(1, max by (head) (" + of("headway_head_in_flight") + "))", "{{head}}"}},
			}, panel{
				kind: "timeseries", title: "Age of load reports", unit: "s", min: ptr(0.0), none: "No reports", runbook: "SignalsOld",
				about: "How old the reports are that decisions rely on, and the report interval of leases.",
				queries: []query{
					{"max by (stat) (" + of("headway_signal_age_seconds") + ") >= 0", "{{stat}}"},
					{"max(" + of("headway_heartbeat_interval_seconds") + ")", "interval"},
				},
			}, panel{
				kind: "timeseries", title: "Reservations", unit: "short", min: ptr(0.0),
				about:   "Decisions that have neither an outcome nor expired.",
				queries: []query{{"sum(" + of("headway_reservations_open") + ")", "open"}},
			}),
		)},
		{title: "HTTP", panels: slices.Concat(
			sized(12, 9, httpRequests, httpLatency, httpErrors),
			sized(12, 9, panel{
				kind: "heatmap", title: "Latency of decisions", unit: "s", none: "No traffic",
				about:   "How many decisions took how long over HTTP.",
				queries: []query{{"sum by (le) (increase(" + of("headway_http_request_duration_seconds_bucket", `endpoint="/api/v1/decisions"`) + "[$__rate_interval]))", "{{le}}"}},
			}),
		)},
		{title: "The process", panels: slices.Concat(
			sized(12, 9, system, cachePerformance),
			sized(12, 9, panel{
				kind: "timeseries", title: "Saturation", unit: "short", min: ptr(0.0), runbook: "HighCPUUsage",
				about: "What runs out first: connections, goroutines and open files.",
				queries: []query{
					{of("headway_http_connections"), "connections {{instance}}"},
					{of("go_goroutines"), "goroutines {{instance}}"},
					{of("process_open_fds"), "open files {{instance}}"},
				},
			}, panel{
				kind: "timeseries", title: "The disk", unit: "s", min: ptr(0.0), none: "Nothing written", runbook: "StateStoreFailing",
				about: "Time that the state store and the audit trail took to make things durable, 99th percentile.",
				queries: []query{
					{quantile("0.99", of("headway_store_duration_seconds_bucket"), "operation"), "state, {{operation}}"},
					{quantile("0.99", of("headway_audit_sync_duration_seconds_bucket")), "audit trail"},
				},
			}),
		)},
		{title: "Real time, queue and outside", panels: sized(12, 9, connections, panel{
			kind: "timeseries", title: "How long streams last", unit: "s", min: ptr(0.0), none: "No stream ended",
			about: "Time that Server-Sent Events and WebSocket connections were open, of those that ended: median and 95th percentile.",
			queries: []query{
				{quantile("0.5", of("headway_stream_duration_seconds_bucket"), "transport"), "p50 {{transport}}"},
				{quantile("0.95", of("headway_stream_duration_seconds_bucket"), "transport"), "p95 {{transport}}"},
			},
		}, queueActivity, externalServices)},
		{title: "Audit and access", panels: sized(12, 8,
			panel{
				kind: "timeseries", title: "Audit records", unit: "cps", min: ptr(0.0), runbook: "AuditTrailFailing",
				about: "Records a second that are durable, and those that could not be written or were lost.",
				queries: []query{
					{"sum(" + rate(of("headway_audit_records_total")) + ")", "durable"},
					{"sum(" + rate(of("headway_audit_write_failures_total")) + ")", "failed"},
					{"sum(" + rate(of("headway_audit_dropped_total")) + ")", "lost"},
				},
			},
			panel{
				kind: "timeseries", title: "Audit records not on Redis yet", unit: "short", min: ptr(0.0), none: "Not published", runbook: "RedisBehind",
				about:   "Records that have not arrived on the Redis channel.",
				queries: []query{{"max by (sink) (" + of("headway_audit_ship_lag_records") + ")", "{{sink}}"}},
			},
			panel{
				kind: "timeseries", title: "Credentials refused", unit: "reqps", min: ptr(0.0), runbook: "CredentialsRefused",
				about: "Requests a second whose credential was missing or not good, by reason, and those beyond a limit.",
				queries: []query{
					{"sum(" + rate(of("headway_auth_failures_total")) + ")", "all"},
					{"sum by (reason) (" + rate(of("headway_auth_failures_total")) + ") > 0", "{{reason}}"},
					{"sum by (limit) (" + rate(of("headway_rate_limited_total")) + ") > 0", "limit of one {{limit}}"},
				},
			},
			panel{
				kind: "timeseries", title: "Revision of the policy", unit: "short", min: ptr(0.0), runbook: "PolicyLoadFailed",
				about:   "It grows with each change; 0 is the default in the binary.",
				queries: []query{{of("headway_policy_revision"), "{{instance}}"}},
			},
		)},
	}
}

// schemaVersion is that of Grafana 10.0, from which later versions migrate. The
// SDK's own is that of Grafana 12, which older servers refuse.
const schemaVersion = 38

func compose(uid, title, about string, sections []section) (dashboard.Dashboard, error) {
	b := dashboard.NewDashboardBuilder(title).Uid(uid).Description(about).Tags([]string{"headway", "routing-service"}).
		Refresh("15s").Time("now-1h", "now").Timezone("browser").Tooltip(dashboard.DashboardCursorSyncCrosshair).Readonly().
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Label("Data source").Type("prometheus").
			Current(dashboard.VariableOption{Selected: ptr(true), Text: shown("default"), Value: shown("default")})).
		WithVariable(labelVariable("job", "Job", ".+", "label_values(active_heads, job)")).
		WithVariable(labelVariable("instance", "Instance", ".+", `label_values(active_heads{job=~"$job"}, instance)`)).
		WithVariable(labelVariable("region", "Region", ".*", `label_values(routing_decisions_total{job=~"$job"}, region)`)).
		WithVariable(labelVariable("model", "Model type", ".*", `label_values(routing_decisions_total{job=~"$job"}, model_type)`)).
		Link(dashboard.NewDashboardLinkBuilder("Runbooks").Url(runbookURL("")).Type(dashboard.DashboardLinkTypeLink).TargetBlank(true))
	d, err := b.Build()
	if err != nil {
		return d, err
	}
	d.SchemaVersion = schemaVersion
	id, y := uint32(1), uint32(0)
	for _, s := range sections {
		if s.title != "" {
			row := dashboard.RowPanel{Type: "row", Title: &s.title, Id: id, Panels: []dashboard.Panel{}, GridPos: &dashboard.GridPos{H: 1, W: 24, Y: y}}
			id++
			y++
			d.Panels = append(d.Panels, dashboard.PanelOrRowPanel{RowPanel: &row})
		}
		x, tallest := uint32(0), uint32(0)
		for i := range s.panels {
			p := &s.panels[i]
			if x+p.width > 24 {
				x, y, tallest = 0, y+tallest, 0
			}
			built := p.build(id, dashboard.GridPos{X: x, Y: y, W: p.width, H: p.height})
			id++
			x, tallest = x+p.width, max(tallest, p.height)
			d.Panels = append(d.Panels, dashboard.PanelOrRowPanel{Panel: &built})
		}
		y += tallest
	}
	return d, nil
}

func shown(s string) dashboard.StringOrArrayOfString {
	return dashboard.StringOrArrayOfString{String: &s}
}

// labelVariable selects values of a label. all is ".*" where series may lack
// it, as failed decisions without a region do.
func labelVariable(name, label, all, definition string) *dashboard.QueryVariableBuilder {
	return dashboard.NewQueryVariableBuilder(name).Label(label).Datasource(datasource).
		Query(dashboard.StringOrMap{String: &definition}).Definition(definition).
		Refresh(dashboard.VariableRefreshOnTimeRangeChanged).Sort(dashboard.VariableSortAlphabeticalAsc).
		Multi(true).IncludeAll(true).AllValue(all).
		Current(dashboard.VariableOption{Selected: ptr(true), Text: shown("All"), Value: shown("$__all")})
}

type board struct {
	uid, title, about string
	sections          []section
}

func boards() []board {
	return []board{
		{"routing-service", "Routing Service", "The five panels of the monitoring guide.", basic()},
		{"routing-service-enhanced", "Routing Service, enhanced", "All metrics of the routing service.", enhanced()},
	}
}

// dashboards are the files by name.
func dashboards() (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, d := range boards() {
		made, err := compose(d.uid, d.title, d.about, d.sections)
		if err != nil {
			return nil, err
		}
		raw, err := json.MarshalIndent(made, "", "  ")
		if err != nil {
			return nil, err
		}
		files["grafana/dashboards/"+d.uid+".json"] = append(raw, '\n')
	}
	return files, nil
}

// metricName matches a name in an expression that is no function, keyword or
// label.
var (
	metricName = regexp.MustCompile(`\b([a-zA-Z_][a-zA-Z0-9_]*)\{`)
	bareName   = regexp.MustCompile(`\b(up|ALERTS)\b`)
)

func metricsOf(expr string) (names []string) {
	for _, m := range metricName.FindAllStringSubmatch(expr, -1) {
		if !slices.Contains(names, m[1]) {
			names = append(names, m[1])
		}
	}
	if len(names) == 0 {
		names = append(names, bareName.FindString(expr))
	}
	return names
}
