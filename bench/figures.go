package main

import (
	"slices"

	"headway/internal/strategy"
)

// sections lists every promised figure with its base.
func sections() []section {
	decide := section{
		name: "Router.Decide in process, reservation and counters included; base: the minimum of as many counters",
		pkg:  "./internal/routing", bench: "^(BenchmarkDecide|BenchmarkArgmin)$",
	}
	limits := map[string]map[string]float64{
		"heads=100":   {"": 1.5},
		"heads=1000":  {"": 12},
		"heads=10000": {"power_of_two": 2, "round_robin": 2},
	}
	for _, heads := range []string{"heads=10", "heads=100", "heads=1000", "heads=10000"} {
		for _, spec := range strategy.Specs() {
			limit := limits[heads][""]
			if l, ok := limits[heads][spec.Name]; ok {
				limit = l
			}
			decide.figures = append(decide.figures, figure{
				what: spec.Name + ", " + heads, bench: "Decide/" + spec.Name + "/" + heads,
				base: "Argmin/" + heads, unit: "ns/op", scale: 1e-3, shown: "µs", limit: limit, allocs: allocs(limit),
			})
		}
	}
	return append([]section{decide, {
		name: "POST /api/v1/decisions over loopback keep-alive, 64 connections; base: a handler in the same net/http server that reads the body and writes as many bytes",
		pkg:  "./internal/httpapi", bench: "^BenchmarkDecisionHTTP$",
		figures: []figure{
			{what: "bare net/http", bench: "DecisionHTTP", unit: "bare/s", scale: 1, shown: "requests/s"},
			{what: "decisions", bench: "DecisionHTTP", unit: "decisions/s", scale: 1, shown: "requests/s"},
			{what: "decisions, the median of all rounds", bench: "DecisionHTTP", unit: "decisions/bare", scale: 1, shown: "× base", limit: 0.85, least: true},
			{what: "with an API key, the median of all rounds", bench: "DecisionHTTP", unit: "guarded/open", scale: 1, shown: "× without", limit: 0.9, least: true},
		},
	}, {
		name: "Status reports in process, 100,000 heads, one processor",
		pkg:  "./internal/registry", bench: "^(BenchmarkReport|BenchmarkReportStatus)$",
		figures: []figure{
			{what: "heartbeats with load", bench: "Report", unit: "reports/s", scale: 1, shown: "reports/s", limit: 20_000, least: true},
			{what: "a change of status, 1,000 heads", bench: "ReportStatus/heads=1000", base: "Report", unit: "ns/op", scale: 1e-3, shown: "µs"},
			{what: "a change of status, 10,000 heads", bench: "ReportStatus/heads=10000", base: "Report", unit: "ns/op", scale: 1e-3, shown: "µs"},
			{what: "a change of status, 100,000 heads", bench: "ReportStatus/heads=100000", base: "Report", unit: "ns/op", scale: 1e-3, shown: "µs"},
		},
	}, {
		name: "Audit trail: durable records of 32 writers; base: a bare line and fdatasync, one after the other",
		pkg:  "./internal/audit", bench: "^BenchmarkGroupCommit$",
		figures: []figure{
			{what: "bare fdatasync", bench: "GroupCommit/bare_fdatasync", unit: "syncs/s", scale: 1, shown: "/s"},
			{what: "32 writers", bench: "GroupCommit/32_writers", unit: "records/s", scale: 1, shown: "records/s", limit: 2000, least: true},
		},
	}, {
		name: "Audit trail: verification on one processor",
		pkg:  "./internal/trail", bench: "^BenchmarkVerify$",
		figures: []figure{{what: "verify", bench: "Verify", unit: "MB/s", scale: 1, shown: "MB/s", limit: 200, least: true}},
	}}, slices.Concat(prompts(), monitoring(), realtime(), dataPlane(full))...)
}

// prompts are what decisions take that know the prompt, and what is asked beside them.
func prompts() []section {
	const small, large = "/heads=64", "/heads=10000"
	shadow := section{
		name: "Shadow: a strategy that is asked beside a decision, for one for which it is; base: a decision by adaptive for the same prompt of 2,000 tokens",
		pkg:  "./internal/routing", bench: "^BenchmarkShadow$",
	}
	for _, heads := range []string{"/heads=8", "/heads=100"} {
		for _, name := range []string{"round_robin", "least_loaded", "session_affinity", "adaptive"} {
			f := figure{what: name + ", " + heads[1:], bench: "Shadow/" + name + heads, base: "Shadow/decision" + heads, unit: "ns/op", scale: 1e-3, shown: "µs"}
			if heads == "/heads=8" {
				f.limit = 1
			}
			shadow.figures = append(shadow.figures, f)
		}
	}
	return []section{{
		name: "Prompts: Router.Decide by adaptive in process, with the hashes of a prompt's blocks; base: by least_loaded",
		pkg:  "./internal/routing", bench: "^(BenchmarkDecidePrompt|BenchmarkDecideLongPrompt|BenchmarkDecideMillionPrompts|BenchmarkDecideSharedPrompts)$",
		figures: []figure{
			{what: "8,000 tokens, 64 heads", bench: "DecidePrompt/adaptive" + small, base: "DecidePrompt/least_loaded" + small, unit: "ns/op", scale: 1e-3, shown: "µs", limit: 20, allocs: 1},
			{what: "8,000 tokens, 10,000 heads", bench: "DecidePrompt/adaptive" + large, base: "DecidePrompt/least_loaded" + large, unit: "ns/op", scale: 1e-3, shown: "µs"},
			{what: "100,000 tokens, 64 heads, the text hashed", bench: "DecideLongPrompt", unit: "ns/op", scale: 1e-3, shown: "µs", limit: 150, allocs: 1},
			{what: "after 1,000,000 prompts without a common block: the 99th percentile", bench: "DecideMillionPrompts", unit: "×p99", scale: 1, shown: "× the first", limit: 2},
			{what: "after 1,000,000 prompts without a common block: memory", bench: "DecideMillionPrompts", unit: "MiB", scale: 1, shown: "MiB more", limit: 1},
			{what: "after 100,000 prompts that share all but the last block", bench: "DecideSharedPrompts", unit: "×first", scale: 1, shown: "× the first", limit: 1.5},
			{what: "the same, over prompts without a common block", bench: "DecideSharedPrompts", unit: "×distinct", scale: 1, shown: "× distinct", limit: 1.5},
		},
	}, shadow, {
		name: "Simulation: 100,000 requests at 8 heads, time of a processor",
		pkg:  "./internal/sim", bench: "^BenchmarkStudy$",
		figures: []figure{
			{what: "bursts, adaptive", bench: "Study/adaptive/gamma", unit: "s/100k", scale: 1, shown: "s", limit: 10},
			{what: "bursts, round_robin", bench: "Study/round_robin/gamma", unit: "s/100k", scale: 1, shown: "s", limit: 10},
			{what: "agents, adaptive", bench: "Study/adaptive/agents", unit: "s/100k", scale: 1, shown: "s", limit: 10},
			{what: "agents, round_robin", bench: "Study/round_robin/agents", unit: "s/100k", scale: 1, shown: "s", limit: 10},
		},
	}}
}

// allocs is the limit on allocations of a decision.
func allocs(limit float64) float64 {
	if limit > 0 {
		return 1
	}
	return 0
}

func monitoring() []section {
	return []section{{
		name: "Metrics: all that a decision counts; base: one atomic addition",
		pkg:  "./internal/routing", bench: "^BenchmarkCount$",
		figures: []figure{
			{what: "an atomic addition", bench: "Count/addition", unit: "ns/op", scale: 1, shown: "ns"},
			{what: "counting a decision", bench: "Count/decision", base: "Count/addition", unit: "ns/op", scale: 1, shown: "ns", limit: 25},
			{what: "counting its end", bench: "Count/end", base: "Count/addition", unit: "ns/op", scale: 1, shown: "ns"},
		},
	}, {
		name: "Metrics: a scrape of the whole service, 1,000 heads of as many pairs of 50 model types and 20 regions, decisions by each strategy",
		pkg:  "./cmd/headway", bench: "^BenchmarkScrape$",
		figures: []figure{
			{what: "until it has arrived", bench: "Scrape", unit: "ns/op", scale: 1e-6, shown: "ms", limit: 15},
			{what: "the service's processor time", bench: "Scrape", unit: "cpu-ns/scrape", scale: 1e-6, shown: "ms"},
			{what: "size, not compressed", bench: "Scrape", unit: "bytes", scale: 1e-6, shown: "MB", limit: 2},
		},
	}, {
		name: "Embedded monitor: 24 h of 2,000 series every 15 s",
		pkg:  "./internal/monitor", bench: "^BenchmarkDay$",
		figures: []figure{
			{what: "memory", bench: "Day/step", unit: "MiB/day", scale: 1, shown: "MiB", limit: 50},
			{what: "a scrape and the shipped rules, of each 15 s", bench: "Day/step", unit: "cpu-ns/step", scale: 1e-6 / 150, shown: "% of a core", limit: 1},
			{what: "a query over an hour of 510 series", bench: "Day/range", unit: "ns/op", scale: 1e-6, shown: "ms"},
		},
	}, {
		name: "Embedded monitor: an hour of the enhanced dashboard, all its queries",
		pkg:  "./cmd/headway", bench: "^BenchmarkDashboard$",
		figures: []figure{{what: "time", bench: "Dashboard", unit: "ns/op", scale: 1e-6, shown: "ms", limit: 100}},
	}, {
		name: "Embedded monitor: 300 decisions a second beside six clients that ask for 10,800 points of 300 series; base: no queries",
		pkg:  "./cmd/headway", bench: "^BenchmarkDecisionsBesideQueries$",
		figures: []figure{
			{what: "the median decision", bench: besideQueries + "6", base: besideQueries + "0", unit: "p50-ms", scale: 1, shown: "ms"},
			{what: "the 99th percentile", bench: besideQueries + "6", base: besideQueries + "0", unit: "p99-ms", scale: 1, shown: "ms", limit: 20},
		},
	}, {
		name: "Embedded monitor: what it adds to the stripped binary",
		pkg:  "./internal/monitor", bench: "^BenchmarkBinary$",
		figures: []figure{
			{what: "all of it", bench: "Binary", unit: "MB/monitor", scale: 1, shown: "MB", limit: 2.5},
			{what: "PromQL's engine and the chunks alone", bench: "Binary", unit: "MB/promql", scale: 1, shown: "MB"},
		},
	}}
}

const besideQueries = "DecisionsBesideQueries/clients="

func realtime() []section {
	listeners := func(each string, all, limit float64) []figure {
		name := "Subscribers/each=" + each
		return []figure{
			{what: each + " + " + each + ": listeners; fewer if the machine allows fewer files", bench: name, unit: "listeners", scale: 1, shown: "connections", limit: all, least: true},
			{what: each + " + " + each + ": memory of one over SSE", bench: name, unit: "KiB/sse", scale: 1, shown: "KiB", limit: 60},
			{what: each + " + " + each + ": memory of one over WebSocket", bench: name, unit: "KiB/websocket", scale: 1, shown: "KiB", limit: 60},
			{what: each + " + " + each + ": an event reaches the last", bench: name, unit: "ms/last", scale: 1, shown: "ms", limit: limit},
			{what: each + " + " + each + ": the service's processors", bench: name, unit: "cores", scale: 1, shown: "cores"},
			{what: each + " + " + each + ": events", bench: name, unit: "events/s", scale: 1, shown: "/s"},
		}
	}
	return []section{{
		name: "Real time: listeners over SSE + as many over WebSocket, 100 events a second, all on this machine",
		pkg:  "./cmd/headway", bench: "^BenchmarkSubscribers$",
		figures: slices.Concat(listeners("1000", 2000, 1000), listeners("4000", 8000, 1000), listeners("10000", 20_000, 1000)),
	}, {
		name: "Real time: a decision beside 5,000 listeners over SSE + 5,000 over WebSocket and 100 events a second, over one without listeners, in slices of one run",
		pkg:  "./internal/live", bench: "^BenchmarkDecideBesideSubscribers$",
		figures: []figure{
			{what: "Router.Decide at 10,000 a second, the median", bench: "DecideBesideSubscribers", unit: "×median", scale: 1, shown: "× alone", limit: 1.1},
			{what: "the same, the 99th percentile", bench: "DecideBesideSubscribers", unit: "×p99", scale: 1, shown: "× alone"},
		},
	}, {
		name: "Real time: what 1,000 connections leave that come and go in random order, half of them abruptly",
		pkg:  "./internal/live", bench: "^BenchmarkConnectionsLeft$",
		figures: []figure{
			{what: "goroutines", bench: "ConnectionsLeft", unit: "goroutines", scale: 1, shown: "left", limit: 2},
			{what: "memory", bench: "ConnectionsLeft", unit: "KiB", scale: 1, shown: "KiB left", limit: 256},
		},
	}, {
		name: "Real time: decisions for each second of the service's processor; base: a request of HTTP for each",
		pkg:  "./cmd/headway", bench: "^(BenchmarkDecisionsByHTTP|BenchmarkDecisionsPipelined|BenchmarkDecisionsByNATS)$",
		figures: []figure{
			{what: "HTTP, over the time of one over WebSocket", bench: "DecisionsByHTTP", base: "DecisionsPipelined", unit: "cpu-ns/decision", scale: 1, shown: "× base", limit: 2.5, least: true},
			{what: "HTTP, over the time of one over NATS", bench: "DecisionsByHTTP", base: "DecisionsByNATS", unit: "cpu-ns/decision", scale: 1, shown: "× base"},
			{what: "NATS request and reply, 8 callers", bench: "DecisionsByNATS", unit: "decisions/s", scale: 1, shown: "/s"},
		},
	}, {
		name: "Message queue: 20,000 status reports a second for a minute",
		pkg:  "./cmd/headway", bench: "^BenchmarkStatusByNATS",
		figures: []figure{
			{what: "the service's processors", bench: "StatusByNATS", unit: "cores", scale: 1, shown: "cores", limit: 0.6},
			{what: "sent", bench: "StatusByNATS", unit: "messages/s", scale: 1, shown: "/s"},
			{what: "lost", bench: "StatusByNATS", unit: "lost", scale: 1, shown: "messages"},
			{what: "of 300 heads with a key and a connection each: processors", bench: "StatusByNATSOfManyKeys", unit: "cores", scale: 1, shown: "cores", limit: 0.6},
			{what: "of 300 heads with a key and a connection each: lost", bench: "StatusByNATSOfManyKeys", unit: "lost", scale: 1, shown: "messages"},
		},
	}}
}
