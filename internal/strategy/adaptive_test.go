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

// Two heads of which the one that has the prompt cached has more ahead. The longer both
// are behind, the more ahead it may have, since what is not computed is not waited for.
func TestTheCacheCountsMoreTheLongerAllWait(t *testing.T) {
	for _, c := range []struct {
		waits float64 // s, of the head without the prompt
		more  float64 // of the other
		warm  bool
	}{
		{1, 0.5, true},
		{1, 4, false},
		{10, 4, true},
		{10, 10, false},
		{30, 10, true},
		{30, 30, false},
		{600, 60, false}, // no more than by wait_limit
	} {
		tiers, known := large(2), NewKnown(KnownOptions{})
		warm, cold := tiers[0].Heads[0], tiers[0].Heads[1]
		for h, wait := range map[*fleet.Head]float64{cold: c.waits, warm: c.waits + c.more} {
			h.Live.TryAcquire(0, fleet.Work{Pending: int32(wait / usualToken)})
		}
		in := new(Input)
		in.Begin(&Request{PrefixHashes: []uint64{1, 2, 3, 4}, BlockTokens: 2500, InputTokens: 10_000}, "m", noon, 1, known, 0)
		in.Tiers = tiers
		in.RecallPrompt()
		known.Placed(in, warm, fleet.Work{Tokens: 10_000, New: 10_000})
		in.Begin(in.Request, "m", noon, 2, known, 0)
		var picks [1]Pick
		chooser(t, "adaptive").Choose(in, picks[:])
		if (picks[0].Head == warm) != c.warm {
			t.Errorf("waits of %v s and of %v s more at the head that has the prompt: it is chosen: %t", c.waits, c.more, !c.warm)
		}
	}
}
