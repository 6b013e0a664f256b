package routing

import (
	"cmp"
	"hash/maphash"
	"iter"
	"maps"
	"math"
	"slices"
	"strings"
	"sync/atomic"

	"headway/internal/fleet"
	"headway/internal/policy"
	"headway/internal/strategy"
)

// Bounds of the sets of candidates that are kept: slots in buckets of ways, so
// that a new set replaces at worst another of its bucket. maxCopied bounds the
// places of all sets beside those of the snapshot, 48 bytes each: callers choose
// labels, and each choice may leave most of a large fleet.
const (
	candidateSlots = 1 << 11
	candidateWays  = 4
	maxCopied      = 1 << 20
)

// criteria decide which heads may serve a request, apart from what changes with
// every request. Their strings are those of the policy or the snapshot, so that a
// set keeps no request's memory.
type criteria struct {
	model  string
	region string
	mode   strategy.RegionMode
	labels string // as encodeLabels writes them
}

// candidates is the answer to criteria under one policy and one state of a pool.
// It holds no load.
type candidates struct {
	criteria
	pool   *fleet.Pool
	policy *policy.Policy
	tiers  []strategy.Tier
	last   []strategy.Tier // of ejected heads
	trials []*fleet.Head   // ejected heads of the nearest regions that one request may try
	copied int64           // places of tiers that are not the snapshot's own

	tallies [heldTallies]atomic.Pointer[tally] // where this set's decisions are counted
}

// heldTallies is how many tallies a set holds: the regions of one model under one
// or two strategies.
const heldTallies = 32

// candidateCache keeps candidates. An entry is valid as long as the pool and the
// policy that it was made from are the current ones, by their pointers. Lookups
// take no lock: of two goroutines that miss at the same time both build the set,
// and the last one stays.
type candidateCache struct {
	seed      maphash.Seed
	random    func() uint64
	slots     []atomic.Pointer[candidates]
	entries   atomic.Int64
	evictions atomic.Uint64
	copied    atomic.Int64
	hand      atomic.Uint64 // the slot that was emptied last to make room
}

func newCandidateCache(random func() uint64) *candidateCache {
	return &candidateCache{
		seed:   maphash.MakeSeed(),
		random: random,
		slots:  make([]atomic.Pointer[candidates], candidateSlots),
	}
}

// get returns the candidates for c, whose labels are these, and whether they were
// kept.
func (t *candidateCache) get(c criteria, labels map[string]string, pool *fleet.Pool, policy *policy.Policy) (*candidates, bool) {
	hash := maphash.String(t.seed, c.model)*31 + maphash.String(t.seed, c.region) + uint64(c.mode)
	if c.labels != "" {
		hash = strategy.Mix(hash, maphash.String(t.seed, c.labels))
	}
	base := int(hash>>32) & (candidateSlots - 1) &^ (candidateWays - 1)
	bucket := t.slots[base : base+candidateWays]
	var old *candidates
	at := -1
	for i := range bucket {
		e := bucket[i].Load()
		if e == nil {
			if at < 0 {
				at = i
			}
			continue
		}
		if e.criteria == c {
			if e.pool == pool && e.policy == policy {
				return e, true
			}
			old, at = e, i
			break
		}
	}
	fresh := newCandidates(c, labels, pool, policy, old, t.random)
	switch {
	case at < 0: // the bucket is full of other criteria
		at = int(hash) & (candidateWays - 1)
		t.evictions.Add(1)
	case old == nil:
		t.entries.Add(1)
	}
	t.copied.Add(fresh.copied)
	if was := bucket[at].Swap(fresh); was != nil {
		t.copied.Add(-was.copied)
	}
	t.makeRoom(fresh)
	return fresh, false
}

// makeRoom empties sets in turn until all are within maxCopied, but never fresh.
func (t *candidateCache) makeRoom(fresh *candidates) {
	for range t.slots {
		if t.copied.Load() <= maxCopied {
			return
		}
		slot := &t.slots[t.hand.Add(1)%uint64(len(t.slots))]
		if e := slot.Load(); e != nil && e != fresh && e.copied > 0 && t.empty(slot, e) {
			t.evictions.Add(1)
		}
	}
}

// forget empties the sets of pools and policies that are no longer current, which
// would keep an old snapshot in memory.
func (t *candidateCache) forget(s *fleet.Snapshot, policy *policy.Policy) {
	for i := range t.slots {
		if e := t.slots[i].Load(); e != nil && e.pool != nil && (e.policy != policy || e.pool != s.Pools[e.model]) {
			t.empty(&t.slots[i], e)
		}
	}
}

// empty leaves of a set its criteria and its turns, so that a rotation continues.
func (t *candidateCache) empty(slot *atomic.Pointer[candidates], e *candidates) bool {
	rest := &candidates{criteria: e.criteria}
	for tier := range e.allTiers() {
		rest.add(strategy.Tier{Region: tier.Region, Degraded: tier.Degraded, Ejected: tier.Ejected, State: tier.State})
	}
	if !slot.CompareAndSwap(e, rest) {
		return false
	}
	t.copied.Add(-e.copied)
	return true
}

// newCandidates orders the pool's heads into tiers. It takes over the turns of old,
// a set of the same criteria, so that a rotation continues.
func newCandidates(c criteria, labels map[string]string, pool *fleet.Pool, policy *policy.Policy, old *candidates, random func() uint64) *candidates {
	set := &candidates{criteria: c, pool: pool, policy: policy}
	labelled := func(h *fleet.Head) bool { return hasLabels(h, labels) }
	if len(labels) == 0 {
		labelled = nil
	}
	switch {
	case c.mode == strategy.RegionRequire: // also without a region: it fails closed
		if g := pool.Regions[c.region]; g != nil {
			set.addGroup(g, 0, labelled)
		}
	case c.region == fleet.AnyRegion:
		set.addGroup(pool.All, 0, labelled)
	default:
		set.addByDistance(labelled)
	}
	set.takeTurns(old, random)
	return set
}

// addByDistance adds the group of each region, from near to far. Regions of unknown
// distance come last and together: an order would send all that spills to one.
func (s *candidates) addByDistance(keep func(*fleet.Head) bool) {
	type near struct {
		group    *fleet.Group
		distance float64
	}
	var known []near
	unknown := map[string]bool{}
	for region, g := range s.pool.Regions {
		if d := s.policy.Distance(s.region, region); math.IsNaN(d) {
			unknown[region] = true
		} else {
			known = append(known, near{g, d})
		}
	}
	slices.SortFunc(known, func(a, b near) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), strings.Compare(a.group.Region, b.group.Region))
	})
	for _, n := range known {
		s.addGroup(n.group, n.distance, keep)
	}
	if len(unknown) > 0 {
		s.addGroup(s.pool.All, math.NaN(), func(h *fleet.Head) bool { return unknown[h.Region] && (keep == nil || keep(h)) })
	}
}

// addGroup adds the tiers of those heads of a group that keep accepts; nil accepts
// all. It takes the trials of each group up to the first that has another head.
func (s *candidates) addGroup(g *fleet.Group, distance float64, keep func(*fleet.Head) bool) {
	if len(s.tiers) == 0 {
		for _, h := range g.Trials {
			if keep == nil || keep(h) {
				s.trials = append(s.trials, h)
			}
		}
	}
	for i, r := range [...]fleet.Ranked{g.Active, g.Degraded, g.Ejected} {
		if keep != nil {
			r = r.Filter(keep)
			s.copied += int64(len(r.Heads))
		}
		if len(r.Heads) > 0 {
			s.add(strategy.Tier{Ranked: r, Region: g.Region, Distance: distance, Degraded: i == 1, Ejected: i == 2})
		}
	}
}

func (s *candidates) add(t strategy.Tier) {
	if t.Ejected {
		s.last = append(s.last, t)
	} else {
		s.tiers = append(s.tiers, t)
	}
}

func (s *candidates) allTiers() iter.Seq[*strategy.Tier] {
	return func(yield func(*strategy.Tier) bool) {
		for _, tiers := range [...][]strategy.Tier{s.tiers, s.last} {
			for i := range tiers {
				if !yield(&tiers[i]) {
					return
				}
			}
		}
	}
}

func (s *candidates) takeTurns(old *candidates, random func() uint64) {
	for t := range s.allTiers() {
		if old != nil {
			for o := range old.allTiers() {
				if o.Region == t.Region && o.Degraded == t.Degraded && o.Ejected == t.Ejected {
					t.State = o.State
				}
			}
		}
		if t.State == nil {
			// A random first turn keeps routers that start together apart.
			t.State = strategy.NewState(random() >> 32) // far from the end of the numbers
		}
	}
}

func hasLabels(h *fleet.Head, want map[string]string) bool {
	for k, v := range want {
		if have, ok := h.Labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// encodeLabels writes labels in one canonical form; no label has a NUL.
func encodeLabels(labels map[string]string) string {
	if len(labels) == 0 {
		return ""
	}
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		b.WriteString(k)
		b.WriteByte(0)
		b.WriteString(labels[k])
		b.WriteByte(0)
	}
	return b.String()
}
