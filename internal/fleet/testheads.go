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
		Status: StatusActive, Health: HealthFresh, Hash: HashID(id), Instance: instance, Live: live,
	}
	return head, func(now time.Time, requests int64) {
		load := UnknownLoad()
		load.InFlight = requests
		live.TakeReport(&load, now, limit, time.Second, 0)
	}
}

// NewTestSnapshot makes the snapshot of one pool in one region; heads are
// ordered by id.
func NewTestSnapshot(modelType string, heads []*Head) *Snapshot {
	steps := make([]Step, len(heads))
	for i, h := range heads {
		steps[i].Next = h
	}
	s, _ := new(Snapshot).With(steps)
	return s
}
