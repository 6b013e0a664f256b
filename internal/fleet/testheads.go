package fleet

import "time"

// NewTestHead makes a routable head for simulations, which keep time and
// reports themselves, and the function that reports its requests. tracked says
// whether places there end with outcomes.
func NewTestHead(id string, instance uint64, tracked bool, limit int64) (head *Head, report func(now time.Time, requests int64)) {
	live := new(Live)
	live.ends.Store(endsOne)
	if tracked {
		live.ends.Store(-endsOne)
	}
	live.settle()
	head = &Head{
		Spec:   Spec{ID: id, Endpoint: "http://127.0.0.1:1", ModelTypes: []string{"m"}, Region: "r", Weight: 1, MaxInFlight: limit},
		Status: StatusActive, Health: HealthFresh, Hash: idHash(id), Instance: instance, Live: live,
	}
	return head, func(now time.Time, requests int64) {
		load := UnknownLoad()
		load.InFlight = requests
		live.take(&load, now, limit, time.Second, 0)
	}
}

// NewTestSnapshot makes the snapshot of one pool in one region; heads are
// ordered by id.
func NewTestSnapshot(modelType string, heads []*Head) *Snapshot {
	g := newGroup(modelType, AnyRegion, heads)
	region := newGroup(modelType, heads[0].Region, heads)
	return &Snapshot{
		Revision: 1, Heads: len(heads), Active: len(heads), Regions: map[string]int{region.Region: len(heads)},
		Pools: map[string]*Pool{modelType: {ModelType: modelType, All: g, Regions: map[string]*Group{region.Region: region}}},
	}
}

// newGroup makes a group of heads, which must be ordered by id.
func newGroup(modelType, region string, heads []*Head) *Group {
	changes := make([]change, len(heads))
	for i, h := range heads {
		changes[i].next = h
	}
	return (&Group{ModelType: modelType, Region: region}).change(changes, func(*Head) bool { return true })
}
