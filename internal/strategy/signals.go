package strategy

import (
	"math"
	"time"

	"headway/internal/fleet"
)

// Signal is one number that is known of a head and how old it was.
type Signal struct {
	Name  string // in_flight, reported_in_flight, pending_prompt_tokens, kv_cache_usage, …
	Value float64
	Age   time.Duration // 0 for what the router itself counts
	Used  bool          // the cost, or the filter that removed the head, comes of it
}

// Signals lists what is known of a head at now and how old it is, and which of
// that a comparison uses. A strategy that does not compare uses of the reports
// only what says that the head is full.
func Signals(h *fleet.Head, now time.Time, compared bool) []Signal {
	own := h.Live.OwnCounts()
	list := []Signal{{Name: "in_flight", Value: float64(h.Live.InFlight()), Used: compared && own}}
	if s := h.Live.SlowStart(now); s > 0 {
		list = append(list, Signal{Name: "slow_start", Value: s, Used: compared})
	}
	if until := h.Live.AwayUntil(now); !until.IsZero() {
		list = append(list, Signal{Name: "away_seconds", Value: until.Sub(now).Seconds(), Used: true})
	}
	report := h.Live.Report()
	if report == nil {
		return list
	}
	age := now.Sub(report.At)
	if !own {
		list = append(list, Signal{Name: "picked_since_report", Value: float64(h.Live.Picks() - report.Picks), Used: compared})
	}
	full, young := h.Live.Full(h.Live.InFlight(), h.MaxInFlight, now), age < reportWorth
	list[0].Used = list[0].Used || full && !h.Live.Beyond().Full()
	number := func(name string, v float64, used bool) {
		if !math.IsNaN(v) && v != float64(fleet.Unknown) {
			list = append(list, Signal{name, v, age, used})
		}
	}
	counts := compared && young || full && !(report.KVCacheUsage >= fleet.FullKVCache)
	number("reported_in_flight", float64(report.Load.InFlight), counts)
	number("reported_queued", float64(report.Queued), counts)
	number("pending_prompt_tokens", float64(report.PendingPromptTokens), compared && young)
	number("kv_cache_usage", report.KVCacheUsage, full && report.KVCacheUsage >= fleet.FullKVCache)
	number("utilization", report.Utilization, counts && report.Requests() == fleet.Unknown)
	number("tokens_per_second", report.TokensPerSecond, false)
	return list
}
