package fleet

import (
	"math"
	"slices"
	"strings"
	"sync"
)

// AnyRegion is the region key of the group that holds all of a pool's heads.
const AnyRegion = ""

// Snapshot is the whole fleet at one moment. It is immutable and shared;
// callers must not change anything they reach through it.
type Snapshot struct {
	Revision uint64           // grows with every change
	Pools    map[string]*Pool // by model type
	Regions  map[string]int   // number of heads in each region
	Heads    int              // registered
	Active   int              // routable, held ones not counted

	sortOnce sync.Once
	sorted   []*Head // all by id
}

// Of is the heads that serve a model type, nil if none does.
func (s *Snapshot) Of(modelType string) []*Head {
	if p := s.Pools[modelType]; p != nil {
		return p.All.Heads
	}
	return nil
}

// Pool is the heads that serve one model type. A pool whose heads did not
// change is the same pointer in the next snapshot, so a value derived from a
// pool is valid exactly as long as the pointer is.
type Pool struct {
	ModelType string
	All       *Group
	Regions   map[string]*Group
}

// Group is the heads of one pool in one region, ordered by id.
type Group struct {
	ModelType string
	Region    string
	Heads     []*Head // all of them
	Active    Ranked  // routable, reporting active
	Degraded  Ranked  // routable, reporting degraded
	Ejected   Ranked  // would be routable, had they not failed requests: the last resort
	Trials    []*Head // those of them that may be tried with one request
}

// Ranked is a list of routable heads of one rank, with the sums that picking
// by weight needs. What comparing all heads reads of each stands in slices of
// its own, in the order of Heads: a scan that follows one pointer for each head
// takes a quarter of the time of one that follows two.
type Ranked struct {
	Heads     []*Head
	Lives     []*Live
	Limits    []int64   // max_in_flight, 0: none
	PerLoad   []float64 // 1 / (capacity · weight): what a request adds to the load
	Numbers   []int32
	Hashes    []uint64
	Weights   []float64
	Weight    float64 // sum
	Capacity  float64 // sum of capacity · weight
	MinWeight float64
	MaxWeight float64
	MinLoad   float64 // the least of PerLoad: that of the largest head
	Limited   bool    // some head has a limit
	Places    []int32 // where the head of a number stands, -1: nowhere; nil unless there are LargeRank heads
}

// LargeRank is how many heads are too many to look at each of them for a request.
const LargeRank = 256

// AssumedCapacity is the number of requests that a head is taken to handle at
// once when it names no max_in_flight: vLLM's default max_num_seqs.
const AssumedCapacity = 256

// Capacity is the number of requests at once that counts as a load of 1.
func (h *Head) Capacity() float64 { return float64(capacity(h.MaxInFlight)) * h.Weight }

// cut replaces the heads from one place of a list to another by others.
type cut struct {
	from, to int
	heads    []*Head
}

// splice returns list with the cuts made, which are in order and do not
// overlap; of makes an element for a head that comes in. What stays is copied
// whole, so that one change in a large pool costs no look at each head.
func splice[T any](list []T, cuts []cut, of func(*Head) T) []T {
	size := len(list)
	for _, c := range cuts {
		size += len(c.heads) - (c.to - c.from)
	}
	spliced := make([]T, 0, size)
	at := 0
	for _, c := range cuts {
		spliced = append(spliced, list[at:c.from]...)
		for _, h := range c.heads {
			spliced = append(spliced, of(h))
		}
		at = c.to
	}
	return append(spliced, list[at:]...)
}

// with returns r with the cuts made.
func (r Ranked) with(cuts []cut) Ranked {
	if len(cuts) == 0 {
		return r
	}
	next := Ranked{
		Heads:     splice(r.Heads, cuts, func(h *Head) *Head { return h }),
		Lives:     splice(r.Lives, cuts, func(h *Head) *Live { return h.Live }),
		Limits:    splice(r.Limits, cuts, func(h *Head) int64 { return h.MaxInFlight }),
		PerLoad:   splice(r.PerLoad, cuts, func(h *Head) float64 { return 1 / h.Capacity() }),
		Numbers:   splice(r.Numbers, cuts, func(h *Head) int32 { return int32(h.Number) }),
		Hashes:    splice(r.Hashes, cuts, func(h *Head) uint64 { return h.Hash }),
		Weights:   splice(r.Weights, cuts, func(h *Head) float64 { return h.Weight }),
		MinWeight: math.Inf(1), MinLoad: math.Inf(1),
	}
	if len(next.Heads) == 0 {
		return Ranked{}
	}
	for i, w := range next.Weights {
		next.Capacity += 1 / next.PerLoad[i]
		next.MinLoad = min(next.MinLoad, next.PerLoad[i])
		next.Weight += w
		next.MinWeight = min(next.MinWeight, w)
		next.MaxWeight = max(next.MaxWeight, w)
		next.Limited = next.Limited || next.Limits[i] > 0
	}
	if len(next.Heads) >= LargeRank {
		next.Places = places(next.Heads)
	}
	return next
}

// places are where the heads stand, by their numbers.
func places(heads []*Head) []int32 {
	most := 0
	for _, h := range heads {
		most = max(most, h.Number)
	}
	list := make([]int32, most+1)
	for i := range list {
		list[i] = -1
	}
	for i, h := range heads {
		list[h.Number] = int32(i)
	}
	return list
}

// cuts lists where steps, which are ordered by id, change heads, of which
// those belong that belongs accepts.
func cuts(heads []*Head, steps []Step, belongs func(*Head) bool) []cut {
	var list []cut
	at := 0
	for _, c := range steps {
		i, found := slices.BinarySearchFunc(heads[at:], c.id(), func(h *Head, id string) int { return strings.Compare(h.ID, id) })
		at += i
		made := cut{from: at, to: at}
		if found {
			made.to++
		}
		if c.Next != nil && belongs(c.Next) {
			made.heads = []*Head{c.Next}
		}
		at = made.to
		switch n := len(list); {
		case made.from == made.to && made.heads == nil:
		case n > 0 && list[n-1].to == made.from: // one cut for what lies together
			list[n-1].to = made.to
			list[n-1].heads = append(list[n-1].heads, made.heads...)
		default:
			list = append(list, made)
		}
	}
	return list
}

// change returns g with the steps applied to the heads that belong.
func (g *Group) change(steps []Step, belongs func(*Head) bool) *Group {
	routable := func(s Status) func(*Head) bool {
		return func(h *Head) bool { return h.Status == s && h.Routable() && belongs(h) }
	}
	next := &Group{ModelType: g.ModelType, Region: g.Region}
	next.Active = g.Active.with(cuts(g.Active.Heads, steps, routable(StatusActive)))
	next.Degraded = g.Degraded.with(cuts(g.Degraded.Heads, steps, routable(StatusDegraded)))
	next.Ejected = g.Ejected.with(cuts(g.Ejected.Heads, steps, func(h *Head) bool { return h.Ejected() && belongs(h) }))
	next.Trials = g.Trials
	if made := cuts(g.Trials, steps, func(h *Head) bool { return h.Trial && belongs(h) }); len(made) > 0 {
		next.Trials = splice(g.Trials, made, func(h *Head) *Head { return h })
	}
	next.Heads = splice(g.Heads, cuts(g.Heads, steps, belongs), func(h *Head) *Head { return h })
	if len(next.Heads) == len(next.Active.Heads) {
		next.Heads = next.Active.Heads // the usual case shares one array
	}
	return next
}

// Routable is the number of heads that take requests.
func (g *Group) Routable() int { return len(g.Active.Heads) + len(g.Degraded.Heads) }

// Ejected reports whether nothing but its ejection keeps h from new requests. It
// gets those that no other head may serve.
func (h *Head) Ejected() bool {
	return h.Health == HealthEjected && h.Admin == AdminEnabled && h.Status.Serves()
}

// Filter returns the heads that keep accepts, in the same order.
func (r Ranked) Filter(keep func(*Head) bool) Ranked {
	var heads []*Head
	for _, h := range r.Heads {
		if keep(h) {
			heads = append(heads, h)
		}
	}
	return Ranked{}.with([]cut{{heads: heads}})
}

// Sorted lists all heads by id. It is made at most once.
func (s *Snapshot) Sorted() []*Head {
	s.sortOnce.Do(func() {
		s.sorted = make([]*Head, 0, s.Heads)
		for _, p := range s.Pools {
			for _, h := range p.All.Heads {
				if h.ModelTypes[0] == p.ModelType { // each head once
					s.sorted = append(s.sorted, h)
				}
			}
		}
		slices.SortFunc(s.sorted, func(a, b *Head) int { return strings.Compare(a.ID, b.ID) })
	})
	return s.sorted
}

// Frozen is a copy of the snapshot whose heads keep the load that they have now.
func (s *Snapshot) Frozen() *Snapshot {
	steps := make([]Step, 0, s.Heads)
	for _, h := range s.Sorted() {
		still := *h
		still.Live = h.Live.copy()
		steps = append(steps, Step{Next: &still})
	}
	frozen, _ := new(Snapshot).With(steps)
	frozen.Revision = s.Revision
	return frozen
}
