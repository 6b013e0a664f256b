package mixin

import (
	"fmt"
	"time"
)

// availability are the alerts for missing metrics.
func availability() []Group {
	return []Group{{
		Name:  "routing-service-availability",
		Intro: "Whether there is a service to look at.",
		Alerts: []Alert{
			{
				Name: "RoutingServiceDown", Expr: `up{job="routing-service"} == 0`, For: minute, Severity: Critical,
				Summary:     "The routing service at {{ $labels.instance }} is down",
				Description: "Prometheus cannot scrape {{ $labels.instance }}.",
				Meaning:     "Prometheus cannot scrape the service: it is down, or the network between them is.",
				Causes:      []string{"the process ended", "the port or address changed", "a full machine"},
				Do:          []string{"`curl -s localhost:8080/livez` on its machine; `headway doctor`", "its log says why it ended; `systemctl status headway` where it is a unit"},
				Fires: Case{
					Series: []Series{{`up{job="routing-service",instance="a"}`, "1 0x5"}}, At: 3 * minute,
					Labels: map[string]string{"job": "routing-service", "instance": "a"}, Says: "Prometheus cannot scrape a.",
				},
				Quiet: Case{Series: []Series{{`up{job="routing-service",instance="a"}`, "1x5"}}, At: 3 * minute},
			},
			{
				Name: "RoutingServiceMetricsAbsent", Expr: `absent(active_heads)`, For: minute, Severity: Critical,
				Summary:     "There are no metrics of the routing service",
				Description: "No instance of the routing service has been scraped for a minute.",
				Meaning:     "No target delivers `active_heads`. All alerts about the service are silent for that reason, so this one is not; while RoutingServiceDown fires, which names the instance, this one is inhibited.",
				Causes:      []string{"the target is not in prometheus.yml any more", "service discovery finds nothing", "all instances are down"},
				Do:          []string{"look at Status, Targets in Prometheus", "compare with prometheus/prometheus.yml"},
				Fires:       Case{Series: []Series{{`other`, "1x15"}}, At: 10 * minute, Says: "No instance of the routing service has been scraped for a minute."},
				Quiet:       Case{Series: []Series{{`active_heads{job="routing-service"}`, "0x15"}}, At: 10 * minute},
			},
			{
				Name: "Watchdog", Expr: `vector(1)`, Severity: None,
				Summary:     "Alerting works",
				Description: "This alert always fires. Where it goes to tells when it stops.",
				Meaning:     "It always fires, so that a receiver outside (a dead man's switch) notices when alerting itself fails.",
				Causes:      []string{"it is meant to fire"},
				Do:          []string{"nothing while it fires; when it stops: look at Prometheus and Alertmanager"},
				Fires:       Case{Series: []Series{{`other`, "1x5"}}, At: minute, Says: "This alert always fires. Where it goes to tells when it stops."},
				// There is no case in which it is quiet.
			},
		},
	}}
}

func fleetRules() []Group {
	return []Group{{
		Name:  "routing-service-fleet",
		Intro: "The heads.",
		Alerts: []Alert{
			{
				Name: "HeadFlapping", For: 5 * minute, Severity: Warning,
				Expr: `sum by (job, instance) (increase(headway_lease_expirations_total[15m])) > 1` +
					` and (max by (job, instance) (headway_flapping_heads) > 0 or sum by (job, instance) (increase(headway_lease_expirations_total[15m]))` +
					` > clamp_min(0.2 * sum by (job, instance) (headway_region_registered_heads), 2))`,
				Summary:     "Heads lose their leases again and again",
				Description: "Leases that ran out in 15 minutes, of the same head more than twice or of a fifth of the fleet: {{ $value | humanize }}.",
				Meaning:     "Heads fall silent and come back: the same one more than twice in 15 minutes, or more than two and more than a fifth of the fleet. Each time their traffic moves and their caches are cold. Single leases that run out are restarts and do not count, nor do heads that were drained or said that they drain or are offline.",
				Causes:      []string{"heads that are restarted again and again", "reports that come late: an overloaded head or network", "a clock that jumps on the head's side does not matter"},
				Do:          []string{"the log (`head.expired`) names the heads; `headway_flapping_heads` is how many do it again and again", "look at the log of the heads", "let heads deregister before they are stopped: a lease that was given back does not run out"},
				Fires: Case{
					Name: "one head again and again in a large fleet",
					Series: []Series{
						{`headway_lease_expirations_total{job="j",instance="a"}`, "0x10 1x3 2x3 3x30"},
						{`headway_flapping_heads{job="j",instance="a"}`, "0x17 1x30"},
						{`headway_region_registered_heads{job="j",instance="a",region="eu"}`, "500x60"},
					},
					At:     24 * minute,
					Labels: map[string]string{"job": "j", "instance": "a"}, Says: "Leases that ran out in 15 minutes, of the same head more than twice or of a fifth of the fleet: 3.",
				},
				Also: []Case{{
					Name: "a third of the fleet",
					Series: []Series{
						{`headway_lease_expirations_total{job="j",instance="a"}`, "0+1x40"},
						{`headway_flapping_heads{job="j",instance="a"}`, "0x40"},
						{`headway_region_registered_heads{job="j",instance="a",region="eu"}`, "20x40"},
						{`headway_region_registered_heads{job="j",instance="a",region="us"}`, "25x40"},
					},
					At:     30 * minute,
					Labels: map[string]string{"job": "j", "instance": "a"}, Says: "Leases that ran out in 15 minutes, of the same head more than twice or of a fifth of the fleet: 15.",
				}},
				Quiet: Case{
					Name: "six single leases in a fleet of 50",
					Series: []Series{
						{`headway_lease_expirations_total{job="j",instance="a"}`, "0x19 1 2 3 4 5 6x30"},
						{`headway_flapping_heads{job="j",instance="a"}`, "0x60"},
						{`headway_region_registered_heads{job="j",instance="a",region="eu"}`, "50x60"},
					},
					At: 30 * minute,
				},
				Still: []Case{{
					Name: "two of a fleet of four",
					Series: []Series{
						{`headway_lease_expirations_total{job="j",instance="a"}`, "0x19 1x5 2x30"},
						{`headway_flapping_heads{job="j",instance="a"}`, "0x60"},
						{`headway_region_registered_heads{job="j",instance="a",region="eu"}`, "4x60"},
					},
					At: 32 * minute,
				}},
			},
			withoutHeads("model", Alert{
				Name: "ModelWithoutHeads", Severity: Critical,
				Summary:     "No head takes requests for {{ $labels.model_type }}",
				Description: "Heads that should serve {{ $labels.model_type }} are missing, and none takes requests now.",
				Meaning:     "Requests for this model type fail, or go to heads that are ejected where there are some, and not as planned: at least one of its heads should take requests and is silent, offline, ejected or has not reported since it registered, or was removed within the hour after a long silence. A model type whose heads are all drained, in maintenance, or reporting draining does not count, nor does one whose last head was deregistered or registered again with other model types. Heads that registered for the first time, or with another model type or region, have 15 minutes to load it.",
				Causes:      []string{"all its heads crashed or are silent", "some were drained while the others are dead", "a new model type whose heads do not come up"},
				Do:          []string{"`headway heads list --model-type NAME -o wide` says why none is routable"},
			}, "model_type", "Heads that should serve lost are missing, and none takes requests now."),
			withoutHeads("region", Alert{
				Name: "RegionWithoutHeads", Severity: Warning,
				Summary:     "No head takes requests in {{ $labels.region }}",
				Description: "Heads that should serve in {{ $labels.region }} are missing, and none takes requests now.",
				Meaning:     "Requests of this region go elsewhere, or fail where the policy requires the region. As with ModelWithoutHeads, a region whose heads are all drained, in maintenance, or reporting draining does not count, nor does one whose last head was deregistered or registered again elsewhere, and new heads have 15 minutes to come up.",
				Causes:      []string{"the region lost its network", "all its heads crashed, or some did and the others were drained"},
				Do:          []string{"`headway heads list --region NAME -o wide` says why none is routable"},
			}, "region", "Heads that should serve in lost are missing, and none takes requests now."),
			{
				Name: "MassExpiryGuardActive", Expr: `max by (job, instance) (headway_fleet_guard_active) > 0`, Severity: Critical,
				Summary:     "Many heads fell silent at once",
				Description: "Pools that are held, since more than half of their heads would lose their leases at once: {{ $value }}.",
				Meaning:     "So many heads fell silent together that the cause is more likely here or in the network. They stay routable for `lease.guard_hold` (60 s).",
				Causes:      []string{"a network between heads and service", "this service stalled", "a whole region is down"},
				Do:          []string{"look at the network and at the machine of the service first", "if the heads are really gone, wait: the hold ends by itself"},
				Fires: Case{
					Series: []Series{{`headway_fleet_guard_active{job="j",instance="a"}`, "0 2x5"}}, At: 3 * minute,
					Labels: map[string]string{"job": "j", "instance": "a"}, Says: "Pools that are held, since more than half of their heads would lose their leases at once: 2.",
				},
				Quiet: Case{Series: []Series{{`headway_fleet_guard_active{job="j",instance="a"}`, "0x5"}}, At: 3 * minute},
			},
			{
				Name: "HeadContested", Expr: `sum by (job, instance) (increase(headway_heads_contested_total[10m])) > 3`, Severity: Warning,
				Summary:     "Several endpoints register under one id",
				Description: "Registrations in 10 minutes from another endpoint than the one that holds the head's lease: {{ $value | humanize }}.",
				Meaning:     "Most often two machines have one id. Only the one that holds the lease gets requests; with take_over they take it from each other, and each loses its requests' counts and its session affinity each time.",
				Causes:      []string{"a machine or container that was cloned with its configuration", "a head that restarted on another port and did not report offline before: it waits for the end of its old lease", "an agent that registers with take_over in a loop"},
				Do:          []string{"the log (`head.contested`) and `headway heads watch` name the head; `headway heads get ID` has the endpoint that holds it", "give each machine an id of its own", "let a head that moves report `offline` before it goes"},
				Fires: Case{
					Series: []Series{{`headway_heads_contested_total{outcome="refused",job="j",instance="a"}`, "0+1x20"}}, At: 15 * minute,
					Labels: map[string]string{"job": "j", "instance": "a"}, Says: "Registrations in 10 minutes from another endpoint than the one that holds the head's lease: 10.",
				},
				Quiet: Case{Series: []Series{{`headway_heads_contested_total{outcome="refused",job="j",instance="a"}`, "0x10 2x10"}}, At: 15 * minute},
			},
			{
				Name: "HeadEjected", Expr: `max by (job, instance) (headway_ejected_heads) > 0`, For: 5 * minute, Severity: Warning,
				Summary:     "Heads are out of rotation because requests there fail",
				Description: "Heads that are ejected, since requests there fail and their trial requests too: {{ $value }}.",
				Meaning:     "A head that fails is out for a time that doubles with each failed trial. That it lasts says that the head does not recover by itself.",
				Causes:      []string{"an engine that hung, lost its accelerator or ran out of memory while its agent still reports", "a model that is not loaded or under another name", "callers that cannot reach the head, or report errors falsely"},
				Do:          []string{"`headway heads list -o wide` names the heads, `headway heads get ID` says why and until when", "send it a request by hand, from where the callers are", "restart it, or `headway heads drain ID`; once it works `headway heads reinstate ID` does not wait for its time"},
				Fires: Case{
					Series: []Series{{`headway_ejected_heads{job="j",instance="a"}`, "0 2x15"}}, At: 10 * minute,
					Labels: map[string]string{"job": "j", "instance": "a"}, Says: "Heads that are ejected, since requests there fail and their trial requests too: 2.",
				},
				Quiet: Case{Series: []Series{{`headway_ejected_heads{job="j",instance="a"}`, "0 2 2 2 0x15"}}, At: 10 * minute},
			},
			{
				Name: "PoolFailing", Expr: `sum by (job, instance) (increase(headway_ejections_refused_total[5m])) > 0`, For: 2 * minute, Severity: Critical,
				Summary:     "The heads of a model type fail as a whole",
				Description: "Heads whose requests fail stay in rotation, since as many of their model types are out as may be.",
				Meaning:     "More of the heads of a model type fail, over all its regions, than may be ejected (`eject.max_share`), or the only one does. Requests go on to heads that fail.",
				Causes:      []string{"a wrong configuration or version of the model on all of them", "the network between the callers and the heads", "one caller that reports errors for all"},
				Do:          []string{"the log of the service names the heads (\"a head is not ejected\")", "what changed last on the heads? go back to it", "look at who reports errors: `headway_decision_outcomes_total` by result, and the callers' logs"},
				Fires: Case{
					Series: []Series{{`headway_ejections_refused_total{job="j",instance="a"}`, "0x2 1+1x15"}}, At: 10 * minute,
					Labels: map[string]string{"job": "j", "instance": "a"}, Says: "Heads whose requests fail stay in rotation, since as many of their model types are out as may be.",
				},
				Quiet: Case{Series: []Series{{`headway_ejections_refused_total{job="j",instance="a"}`, "4x15"}}, At: 10 * minute},
			},
			{
				Name: "SignalsOld", Expr: `max by (job, instance) (headway_signal_age_seconds{stat="mean"}) > 3 * max by (job, instance) (headway_heartbeat_interval_seconds)`, For: 5 * minute, Severity: Warning,
				Summary:     "Decisions rely on old reports",
				Description: "The reports of heads are {{ $value | humanizeDuration }} old on average.",
				Meaning:     "Reports come late, so that strategies trust them less and spread by chance.",
				Causes:      []string{"heads that report less often than the lease asks", "an overloaded network"},
				Do:          []string{"`headway heads list` shows when each head reported", "let heads report at the interval that their lease names"},
				Fires: Case{
					Series: []Series{{`headway_signal_age_seconds{stat="mean",job="j",instance="a"}`, "9x15"}, {`headway_heartbeat_interval_seconds{job="j",instance="a"}`, "2x15"}},
					At:     10 * minute, Labels: map[string]string{"job": "j", "instance": "a"}, Says: "The reports of heads are 9s old on average.",
				},
				Quiet: Case{
					Series: []Series{{`headway_signal_age_seconds{stat="mean",job="j",instance="a"}`, "5x15"}, {`headway_heartbeat_interval_seconds{job="j",instance="a"}`, "2x15"}},
					At:     10 * minute,
				},
			},
		},
	}}
}

// withoutHeads is an alert about a model type or region without a routable
// head. Heads that are out on purpose do not count as missing; lost ones do for
// an hour.
func withoutHeads(of string, a Alert, label, says string) Alert {
	missing, routable := "headway_"+of+"_missing_heads", "headway_"+of+"_routable_heads"
	a.For = 2 * minute
	a.Expr = fmt.Sprintf("max by (job, %[1]s) (%[2]s) > 0 unless max by (job, %[1]s) (%[3]s) > 0", label, missing, routable)
	series := func(metric, name, instance, values string) Series {
		return Series{fmt.Sprintf("%s{%s=%q,job=\"j\",instance=%q}", metric, label, name, instance), values}
	}
	a.Fires = Case{
		Series: []Series{
			series(missing, "lost", "a", "0x5 2x20"), series(routable, "lost", "a", "2x5 0x20"),
			series(missing, "kept", "a", "1x30"), series(routable, "kept", "a", "1x30"),
			{fmt.Sprintf(`%s{%s="lost",job="k",instance="b"}`, routable, label), "2x30"}, // another service's fleet does not count
		},
		At: 12 * minute, Labels: map[string]string{"job": "j", label: "lost"}, Says: says,
	}
	mixed := a.Fires
	mixed.Name = "when one drains and the other is dead"
	mixed.Series = []Series{series(missing, "lost", "a", "0x5 1x20"), series(routable, "lost", "a", "2x4 1 0x20")}
	late := a.Fires
	late.Name = "when its first heads are not ready in time"
	late.Series = []Series{series(missing, "lost", "a", "0x15 2x20"), series(routable, "lost", "a", "0x35")}
	late.At = 20 * minute
	a.Also = []Case{mixed, late}
	a.Quiet = Case{
		Series: []Series{
			series(missing, "kept", "a", "0x5 stale"), series(routable, "kept", "a", "2x5 stale"),
			series(missing, "kept", "b", "0x5 1x20"), series(routable, "kept", "b", "2x5 1x20"),
			{fmt.Sprintf(`%s{%s="kept",job="gone",instance="c"}`, missing, label), "1x5 stale"},
			{fmt.Sprintf(`%s{%s="kept",job="gone",instance="c"}`, routable, label), "0x5 stale"},
		},
		At: 12 * minute,
	}
	a.Still = []Case{{
		Name:   "when its last head was deregistered",
		Series: []Series{series(missing, "retired", "a", "0x4 stale"), series(routable, "retired", "a", "2 1x4 stale"), series(routable, "kept", "a", "2x30")},
		At:     12 * minute,
	}, {
		Name: "when its head registered with another, which that loads",
		Series: []Series{
			series(missing, "old", "a", "0x4 stale"), series(routable, "old", "a", "1x4 stale"),
			series(missing, "new", "a", "_x4 0x30"), series(routable, "new", "a", "_x4 0x10 1x20"),
		},
		At: 12 * minute,
	}, {
		Name:   "while all its heads drain",
		Series: []Series{series(missing, "draining", "a", "0x30"), series(routable, "draining", "a", "2x4 1 0x20")},
		At:     12 * minute,
	}}
	return a
}

// simple is an alert on one metric of one instance.
func simple(a Alert, metric, fires, quiet string, at time.Duration, extra map[string]string, says string) Alert {
	labels := map[string]string{"job": "j", "instance": "a"}
	for k, v := range extra {
		labels[k] = v
	}
	a.Fires = Case{Series: []Series{{metric, fires}}, At: at, Labels: labels, Says: says}
	a.Quiet = Case{Series: []Series{{metric, quiet}}, At: at}
	return a
}

// operations are about dependencies, and the audit trail.
func operations() []Group {
	return []Group{{
		Name:  "routing-service-operations",
		Intro: "What the service depends on, and its own record.",
		Alerts: []Alert{
			{
				Name: "HighRoutingErrorRatio", For: 5 * minute, Severity: Warning,
				Expr: `sum by (job) (rate(routing_decisions_total{strategy="none"}[5m])) / sum by (job) (rate(routing_decisions_total[5m])) > 0.05` +
					` and sum by (job) (rate(routing_decisions_total[5m])) > 0.01`,
				Summary:     "High share of routing errors",
				Description: "{{ $value | humanizePercentage }} of decisions find no head.",
				Meaning:     "More than 5 % of decisions failed. HighRoutingErrors counts them absolutely and is blind in a small service.",
				Causes:      []string{"as of HighRoutingErrors"},
				Do:          []string{"as of HighRoutingErrors"},
				Fires: Case{
					Series: []Series{{`routing_decisions_total{strategy="none",job="j"}`, "0+1x15"}, {`routing_decisions_total{strategy="random",job="j"}`, "0+3x15"}},
					At:     10 * minute, Labels: map[string]string{"job": "j"}, Says: "25% of decisions find no head.",
				},
				Quiet: Case{
					Series: []Series{{`routing_decisions_total{strategy="none",job="j"}`, "0+1x15"}, {`routing_decisions_total{strategy="random",job="j"}`, "0+99x15"}},
					At:     10 * minute,
				},
			},
			{
				Name: "HighMemoryLimitUsage", For: 5 * minute, Severity: Warning,
				Expr: `(go_memstats_sys_bytes - go_memstats_heap_released_bytes) / (go_gc_gomemlimit_bytes < 9.2e18) > 0.9` +
					` and on (job, instance) active_heads`,
				Summary:     "The memory limit is nearly reached",
				Description: "{{ $labels.instance }} uses {{ $value | humanizePercentage }} of its GOMEMLIMIT.",
				Meaning:     "GOMEMLIMIT is set, and Go's memory has come within 10 % of it. The nearer it comes, the more time goes into collecting garbage, until decisions wait. HighMemoryUsage compares with 1 GB instead, at any limit.",
				Causes:      []string{"as of HighMemoryUsage", "a limit that is too low for the fleet"},
				Do: []string{
					"`rate(go_gc_duration_seconds_count[5m])` shows how often garbage is collected",
					"give the process a higher GOMEMLIMIT, and its unit or container the memory for it",
				},
				Fires: Case{
					Series: []Series{
						{`go_memstats_sys_bytes{job="j",instance="a"}`, "6e8x15"},
						{`go_memstats_heap_released_bytes{job="j",instance="a"}`, "1.2e8x15"},
						{`go_gc_gomemlimit_bytes{job="j",instance="a"}`, "5e8x15"},
						{`active_heads{job="j",instance="a"}`, "3x15"},
						{`go_memstats_sys_bytes{job="other",instance="b"}`, "6e8x15"},
						{`go_memstats_heap_released_bytes{job="other",instance="b"}`, "0x15"},
						{`go_gc_gomemlimit_bytes{job="other",instance="b"}`, "5e8x15"},
					},
					At: 10 * minute, Labels: map[string]string{"job": "j", "instance": "a"}, Says: "a uses 96% of its GOMEMLIMIT.",
				},
				Quiet: Case{
					Series: []Series{
						{`go_memstats_sys_bytes{job="j",instance="a"}`, "6e8x15"},
						{`go_memstats_heap_released_bytes{job="j",instance="a"}`, "2e8x15"},
						{`go_gc_gomemlimit_bytes{job="j",instance="a"}`, "5e8x15"},
						{`active_heads{job="j",instance="a"}`, "3x15"},
						{`go_memstats_sys_bytes{job="j",instance="b"}`, "6e18x15"},
						{`go_memstats_heap_released_bytes{job="j",instance="b"}`, "0x15"},
						{`go_gc_gomemlimit_bytes{job="j",instance="b"}`, "9223372036854775807x15"},
						{`active_heads{job="j",instance="b"}`, "3x15"},
					},
					At: 10 * minute,
				},
			},
			simple(Alert{
				Name: "ConnectionsNotAccepted", Expr: `increase(headway_http_accept_errors_total[5m]) > 10`, Severity: Critical,
				Summary:     "Connections cannot be accepted",
				Description: "Connections that {{ $labels.instance }} could not accept within five minutes: {{ $value | humanize }}.",
				Meaning:     "The system gives the service no connection that waits, most often since its file descriptors are used up. Those that are open go on; new callers and heads wait, and soon leases run out.",
				Causes:      []string{"a limit of open files that is too low for the connections (`ulimit -n`, `LimitNOFILE` of the unit)", "callers that open connections and do not close them", "a machine without memory for sockets"},
				Do:          []string{"the log (\"no connection could be accepted\") has the system's reason", "compare `process_open_fds` with `process_max_fds`, and `headway_http_connections` with what is usual", "raise the limit of open files and restart; with `http.max_connections` a few hundred below it connections beyond that are closed at once, and files are left for all else"},
			}, `headway_http_accept_errors_total{job="j",instance="a"}`, "0 0 0 30x20", "0 0 0 4x20", 5*minute, nil, "Connections that a could not accept within five minutes: 30."),
			simple(Alert{
				Name: "AuditTrailFailing", Expr: `headway_audit_up == 0 or increase(headway_audit_write_failures_total[5m]) > 0`, Severity: Critical,
				Summary:     "The audit trail cannot be written",
				Description: "{{ $labels.instance }} cannot write its audit trail; administrative changes are refused.",
				Meaning:     "Records do not reach the disk. With `audit.strict` administrative changes are refused with 503; decisions go on.",
				Causes:      []string{"a full disk", "a file or directory that is not writable any more"},
				Do:          []string{"`headway doctor` names the disk; the log has the system's reason", "free space or correct the permissions; the trail goes on by itself"},
			}, `headway_audit_up{job="j",instance="a"}`, "1 0x5", "1x5", 3*minute, nil, "a cannot write its audit trail; administrative changes are refused."),
			simple(Alert{
				Name: "AuditRecordsLost", Expr: `increase(headway_audit_dropped_total[15m]) > 0`, Severity: Critical,
				Summary:     "Records of the audit trail were lost",
				Description: "Records that were lost at {{ $labels.instance }}: {{ $value | humanize }}.",
				Meaning:     "More records waited than fit in memory while the disk did not take them. The trail itself has a record that says how many.",
				Causes:      []string{"a disk that hung or was full for long"},
				Do:          []string{"`headway audit search --category audit` shows when", "repair the disk"},
			}, `headway_audit_dropped_total{job="j",instance="a"}`, "0 0 0 4x20", "4x25", 5*minute, nil, "Records that were lost at a: 4."),
			simple(Alert{
				Name: "RedisBehind", Expr: `headway_audit_ship_lag_seconds > 120`, For: 5 * minute, Severity: Warning,
				Summary:     "The audit trail on {{ $labels.sink }} is behind",
				Description: "The oldest record that has not arrived is {{ $value | humanizeDuration }} old.",
				Meaning:     "Records are in the file and not on the Redis channel. Nothing is lost while the files are kept.",
				Causes:      []string{"Redis is down, refuses the password, or hangs", "subscribers went away a moment ago"},
				Do:          []string{"`rate(headway_audit_ship_failures_total[5m])`, with an external Redis `rate(external_service_calls_total{service=\"redis\",status=\"error\"}[5m])`, and the log", "start Redis; what is missing follows by itself"},
			}, `headway_audit_ship_lag_seconds{job="j",instance="a",sink="redis"}`, "600x15", "60x15", 10*minute, map[string]string{"sink": "redis"}, "The oldest record that has not arrived is 10m 0s old."),
			{
				Name: "AuditUnheard", Severity: Warning,
				Expr:        `increase(headway_audit_unheard_total[15m]) > 0 and on (job, instance, sink) max_over_time(headway_audit_receivers[1d]) > 0`,
				Summary:     "No subscriber received records of the audit trail on {{ $labels.sink }}",
				Description: "Records that {{ $labels.instance }} published on {{ $labels.sink }} without a subscriber, though there was one within the day: {{ $value | humanize }}.",
				Meaning:     "Records went to the Redis channel when it had no subscriber, so that earlier subscribers have missed them. They are in the file. A channel without a subscriber for a day does not count.",
				Causes:      []string{"the subscriber ended or lost its connection for longer than the grace of a minute"},
				Do:          []string{"start the subscriber; `headway_audit_receivers` says how many there are", "`headway audit search --since TIME` has what it missed", "with `redis.stream` a consumer reads on where it was, and misses none"},
				Fires: Case{
					Series: []Series{
						{`headway_audit_unheard_total{job="j",instance="a",sink="redis"}`, "0x20 7x20"},
						{`headway_audit_receivers{job="j",instance="a",sink="redis"}`, "1x18 0x20"},
					},
					At: 25 * minute, Labels: map[string]string{"job": "j", "instance": "a", "sink": "redis"},
					Says: "Records that a published on redis without a subscriber, though there was one within the day: 7.",
				},
				Quiet: Case{
					Name: "while there never was a subscriber",
					Series: []Series{
						{`headway_audit_unheard_total{job="j",instance="a",sink="redis"}`, "0+7x40"},
						{`headway_audit_receivers{job="j",instance="a",sink="redis"}`, "0x40"},
					},
					At: 25 * minute,
				},
				Still: []Case{{
					Name: "while all are received",
					Series: []Series{
						{`headway_audit_unheard_total{job="j",instance="a",sink="redis"}`, "3x40"},
						{`headway_audit_receivers{job="j",instance="a",sink="redis"}`, "1x40"},
					},
					At: 25 * minute,
				}},
			},
			{
				Name: "QueueFailing", For: 5 * minute, Severity: Warning,
				Expr:        `sum by (job, queue) (rate(message_queue_messages_total{status=~"failed|publish_failed|dead_lettered|dropped"}[5m])) > 0.1`,
				Summary:     "Messages of {{ $labels.queue }} fail",
				Description: "Messages a second of {{ $labels.queue }} that fail: {{ $value | humanize }}.",
				Meaning:     "Messages of the queue cannot be processed or published.",
				Causes:      []string{"the NATS cluster is away", "a producer sends what cannot be processed"},
				Do:          []string{"`sum by (queue, status) (rate(message_queue_messages_total[5m]))` says which", "the dead letters have the reason with them"},
				Fires: Case{
					Series: []Series{{`message_queue_messages_total{job="j",queue="heads.status",status="failed"}`, "0+60x15"}},
					At:     10 * minute, Labels: map[string]string{"job": "j", "queue": "heads.status"}, Says: "Messages a second of heads.status that fail: 1.",
				},
				Quiet: Case{Series: []Series{{`message_queue_messages_total{job="j",queue="heads.status",status="processed"}`, "0+6000x15"}}, At: 10 * minute},
			},
			simple(Alert{
				Name: "QueueDown", Expr: `headway_queue_up == 0`, For: 2 * minute, Severity: Critical,
				Summary:     "The message queue cannot be used",
				Description: "{{ $labels.instance }} takes no commands from the message queue.",
				Meaning:     "The NATS server is away, its streams cannot be written, the disk is nearly full, or the stream of commands is. Decisions over HTTP do not depend on it; heads and callers that use the queue do.",
				Causes:      []string{"the NATS cluster is away, or refuses the credential", "a full disk (`state.min_free_bytes`)", "commands that nothing carries out, as while the state cannot be written"},
				Do:          []string{"the check `queue` of `GET /readyz` names the reason, and the log has more", "make room, or start the cluster: the queue goes on by itself", "`headway queue ls` shows what could not be carried out"},
			}, `headway_queue_up{job="j",instance="a"}`, "0x10", "1x10", 5*minute, nil, "a takes no commands from the message queue."),
			simple(Alert{
				Name: "QueueFilling", Expr: `headway_queue_fill_ratio > 0.8`, For: 5 * minute, Severity: Warning,
				Summary:     "The stream of {{ $labels.stream }} is nearly full",
				Description: "The stream of {{ $labels.stream }} at {{ $labels.instance }} is {{ $value | humanizePercentage }} full.",
				Meaning:     "Once the stream of commands is full more are refused. Once that of dead letters is, or one sender has as many as it may, the oldest are lost.",
				Causes:      []string{"one sender whose commands cannot be applied", "commands that are not carried out, as while the state cannot be written", "a small `queue.max_bytes`"},
				Do:          []string{"`headway queue ls` names the reasons; the end of each subject is the sender", "correct the sender; `headway queue retry` or `headway queue purge` the dead letters", "raise `queue.max_bytes` if that is the normal load"},
			}, `headway_queue_fill_ratio{job="j",instance="a",stream="dead_letters"}`, "0.9x15", "0.5x15", 10*minute, map[string]string{"stream": "dead_letters"}, "The stream of dead_letters at a is 90% full."),
			simple(Alert{
				Name: "QueueDeadLettersLost", Expr: `increase(headway_queue_discarded_total[15m]) > 0`, Severity: Warning,
				Summary:     "Dead letters were lost unseen",
				Description: "Dead letters that were lost at {{ $labels.instance }}: {{ $value | humanize }}.",
				Meaning:     "Commands that could not be applied were neither retried nor purged before they gave way to newer ones or became too old.",
				Causes:      []string{"QueueFilling was not attended to", "letters of 14 days ago"},
				Do:          []string{"`headway queue ls`", "correct what sends commands that cannot be applied"},
			}, `headway_queue_discarded_total{job="j",instance="a"}`, "0 0 0 4x20", "4x25", 5*minute, nil, "Dead letters that were lost at a: 4."),
			{
				Name: "ExternalCallsFailing", For: 5 * minute, Severity: Warning,
				Expr:        `sum by (job, service) (rate(external_service_calls_total{status="error"}[5m])) / sum by (job, service) (rate(external_service_calls_total[5m])) > 0.1`,
				Summary:     "Calls of {{ $labels.service }} fail",
				Description: "{{ $value | humanizePercentage }} of the calls of {{ $labels.service }} fail.",
				Meaning:     "A service that ours calls does not answer as it should.",
				Causes:      []string{"it is down, refuses the credential, or is slow"},
				Do:          []string{"the log has the reason", "for redis see RedisBehind"},
				Fires: Case{
					Series: []Series{{`external_service_calls_total{job="j",service="redis",status="error"}`, "0+1x15"}, {`external_service_calls_total{job="j",service="redis",status="success"}`, "0+4x15"}},
					At:     10 * minute, Labels: map[string]string{"job": "j", "service": "redis"}, Says: "20% of the calls of redis fail.",
				},
				Quiet: Case{
					Series: []Series{{`external_service_calls_total{job="j",service="redis",status="error"}`, "0+0x15"}, {`external_service_calls_total{job="j",service="redis",status="success"}`, "0+4x15"}},
					At:     10 * minute,
				},
			},
			simple(Alert{
				Name: "LabelOverflow", Expr: `headway_label_overflow > 0`, For: 15 * minute, Severity: Warning,
				Summary:     "{{ $labels.metric }} sums some of its series as other",
				Description: "Values of {{ $labels.metric }} that are summed as other: {{ $value }}.",
				Meaning:     "There are more model types, regions or pairs of both than the metric has series for: 1,000. A name that has a series keeps it; those that came later are one sum, so that ModelWithoutHeads and RegionWithoutHeads see them only together. `headway_head_in_flight` names 100 heads by design and does not count.",
				Causes:      []string{"a very large fleet", "model types or regions whose names change with each start of a head"},
				Do:          []string{"give model types and regions stable names; one that had no heads for an hour makes room", "`headway heads list` has all of them"},
			}, `headway_label_overflow{job="j",instance="a",metric="headway_heads"}`, "3x30", "0x30", 20*minute, map[string]string{"metric": "headway_heads"}, "Values of headway_heads that are summed as other: 3."),
			simple(Alert{
				Name: "PolicyLoadFailed", Expr: `headway_policy_last_load_successful == 0`, For: minute, Severity: Warning,
				Summary:     "The policy file is not in force",
				Description: "The policy file at {{ $labels.instance }} cannot be used; the policy of before stays in force.",
				Meaning:     "The file changed and has a fault, or could not be stored.",
				Causes:      []string{"a slip of the pen in the file"},
				Do:          []string{"`headway policy check FILE` lists every fault with its place", "correct it; it is read again within a second"},
			}, `headway_policy_last_load_successful{job="j",instance="a"}`, "1 0x10", "1x10", 5*minute, nil, "The policy file at a cannot be used; the policy of before stays in force."),
			simple(Alert{
				Name: "StateStoreFailing", Expr: `increase(headway_store_errors_total[5m]) > 0`, Severity: Critical,
				Summary:     "The state cannot be written",
				Description: "Calls {{ $labels.operation }} of the state store that failed at {{ $labels.instance }}: {{ $value | humanize }}.",
				Meaning:     "Registrations and operators' changes are refused with 503; heads that are there, and decisions, go on.",
				Causes:      []string{"a full disk (`state.min_free_bytes`)", "a disk that fails"},
				Do:          []string{"`headway doctor` names the disk", "make room; writing goes on by itself"},
			}, `headway_store_errors_total{job="j",instance="a",operation="save"}`, "0 0 0 4x20", "4x25", 5*minute, map[string]string{"operation": "save"}, "Calls save of the state store that failed at a: 4."),
			simple(Alert{
				Name: "CertificateEnding", Expr: `headway_tls_certificate_not_after_seconds - time() < 14 * 86400`, For: 5 * minute, Severity: Warning,
				Summary:     "The certificate ends soon",
				Description: "The certificate of {{ $labels.instance }} ends in {{ $value | humanizeDuration }}.",
				Meaning:     "In less than 14 days clients will refuse the service.",
				Causes:      []string{"its renewal fails"},
				Do:          []string{"put a new certificate and key in the place of the old ones; they are read within a second"},
			}, `headway_tls_certificate_not_after_seconds{job="j",instance="a"}`, "864600x15", "8640000x15", 10*minute, nil, "The certificate of a ends in 10d 0h 0m 0s."),
			simple(Alert{
				Name: "CredentialsRefused", Expr: `sum by (job, instance) (rate(headway_auth_failures_total{reason!="none"}[5m])) > 1`, For: 5 * minute, Severity: Warning,
				Summary:     "Many credentials are refused",
				Description: "Credentials a second that are refused: {{ $value | humanize }}.",
				Meaning:     "A client guesses, or many use an expired key.",
				Causes:      []string{"a key that expired or was revoked and is still in use", "guessing"},
				Do:          []string{"`headway audit search --outcome denied -o wide` names addresses and reasons", "`access.failures_per_address` bounds one address"},
			}, `headway_auth_failures_total{job="j",instance="a",reason="unknown"}`, "0+120x15", "0+6x15", 10*minute, nil, "Credentials a second that are refused: 2."),
		},
	}}
}
