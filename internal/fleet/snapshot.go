package fleet

import (
	"math"
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
	sorted   []*Head // all by id; see Registry.sorted
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
	Hashes    []uint64
	Weight    float64 // sum
	MinWeight float64
	MaxWeight float64
	Limited   bool // some head has a limit
}

// AssumedCapacity is the number of requests that a head is taken to handle at
// once when it names no max_in_flight: vLLM's default max_num_seqs.
const AssumedCapacity = 256

// Capacity is the number of requests at once that counts as a load of 1.
func (h *Head) Capacity() float64 {
	if h.MaxInFlight > 0 {
		return float64(h.MaxInFlight) * h.Weight
	}
	return AssumedCapacity * h.Weight
}

func newRanked(heads []*Head) Ranked {
	r := Ranked{
		Heads: heads, MinWeight: math.Inf(1), Lives: make([]*Live, len(heads)), Limits: make([]int64, len(heads)),
		PerLoad: make([]float64, len(heads)), Hashes: make([]uint64, len(heads)),
	}
	for i, h := range heads {
		r.Lives[i], r.Limits[i], r.PerLoad[i], r.Hashes[i] = h.Live, h.MaxInFlight, 1/h.Capacity(), h.Hash
		r.Weight += h.Weight
		r.MinWeight = min(r.MinWeight, h.Weight)
		r.MaxWeight = max(r.MaxWeight, h.Weight)
		r.Limited = r.Limited || h.MaxInFlight > 0
	}
	return r
}

// newGroup ranks heads, which must be ordered by id and are not copied.
func newGroup(modelType, region string, heads []*Head) *Group {
	var active, degraded []*Head
	n := 0
	for _, h := range heads {
		if h.Routable() && h.Status == StatusActive {
			n++
		}
	}
	if n == len(heads) {
		active = heads // the usual case shares one array
	} else {
		active = make([]*Head, 0, n)
		for _, h := range heads {
			switch {
			case !h.Routable():
			case h.Status == StatusActive:
				active = append(active, h)
			default:
				degraded = append(degraded, h)
			}
		}
	}
	return &Group{
		ModelType: modelType, Region: region, Heads: heads,
		Active: newRanked(active), Degraded: newRanked(degraded),
	}
}

// Filter returns the heads that keep accepts, in the same order.
func (r Ranked) Filter(keep func(*Head) bool) Ranked {
	var heads []*Head
	for _, h := range r.Heads {
		if keep(h) {
			heads = append(heads, h)
		}
	}
	return newRanked(heads)
}
