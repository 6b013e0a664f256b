package strategy

import (
	"testing"
	"time"

	"headway/internal/fleet"
)

// Of two heads whose caches report how full they are, a long prompt goes to that which
// has room for it, although it has more requests.
func TestAFullKVCacheKeepsPromptsAway(t *testing.T) {
	tiers := []Tier{tier("us", 0, []head{{weight: 1}, {weight: 1, inFlight: 4}})}
	for i, used := range []float64{0.9, 0.1} {
		load := fleet.UnknownLoad()
		load.KVCacheUsage, load.KVCapacityTokens = used, 100_000
		tiers[0].Heads[i].Live.TakeReport(&load, noon, 0, time.Second, 1)
	}
	for seed := range uint64(20) {
		var picks [1]Pick
		in := input(tiers, &Request{InputTokens: 20_000}, seed)
		if n := chooser(t, "adaptive").Choose(in, picks[:]); n != 1 || picks[0].Head.ID != "us-1" {
			t.Fatalf("a prompt of 20,000 tokens goes to %s, whose KV cache of 100,000 is full to 90 %%", picks[0].Head.ID)
		}
	}
}
