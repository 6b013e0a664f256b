package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/audit"
	"headway/internal/event"
	"headway/internal/fleet"
)

// Options are what a Registry is made of.
type Options struct {
	Store          fleet.Store           // required
	Events         *event.Stream         // required
	Metrics        prometheus.Registerer // required
	Log            *slog.Logger          // required
	Now            func() time.Time      // nil: time.Now
	Random         func() float64        // in [0, 1), called by one goroutine at a time; nil: the runtime's
	Lease          LeaseOptions          // zero values: defaults
	Eject          EjectOptions          // zero values: defaults, but that nothing is ejected unless Enabled
	Begin          audit.BeginFunc       // records what operators do; nil: audit.Unrecorded
	Note           func(audit.Entry)     // records that a head registered; it returns soon, whatever becomes of the trail; nil: nowhere
	MaxHeads       int                   // 0: DefaultMaxHeads
	MaxModelTypes  int                   // distinct ones over the fleet; 0: DefaultMaxModelTypes
	AllowLinkLocal bool                  // endpoints on link-local and cloud metadata addresses
}

// Defaults of Options.
const (
	DefaultMaxHeads      = 200_000
	DefaultMaxModelTypes = 1000
)

// Registry is the one writer of the fleet. All methods are safe for concurrent
// use; Snapshot takes no lock.
type Registry struct {
	store          fleet.Store
	events         *event.Stream
	log            *slog.Logger
	begin          audit.BeginFunc
	note           func(audit.Entry)
	now            func() time.Time
	random         func() float64
	lease          LeaseOptions
	eject          EjectOptions
	began          time.Time // windows of outcomes count from here
	maxHeads       int
	maxModelTypes  int
	allowLinkLocal bool
	metrics        *metrics
	snapshot       atomic.Pointer[fleet.Snapshot]
	commits        chan *commit
	running        atomic.Bool   // Run commits
	committing     turn          // full from when a batch is decided on until it is applied; taken before mu
	revision       atomic.Uint64 // of the store, up to which it was followed
	storeDown      atomic.Bool

	mu         sync.Mutex
	heads      map[string]*entry
	removed    map[string]uint64 // heads that were removed here, by the last revision, until a watch brings that
	staged     []fleet.Step      // not in the snapshot yet
	rests      time.Time         // when the next snapshot may be made by flush, by the runtime's clock
	marks      []*entry          // whose health the store is to learn; each once
	wheel      wheel
	guards     map[poolKey]time.Time // when each active guard tripped
	ejected    map[*entry]bool       // those with an ejection
	failing    map[*entry]bool       // those with a fault
	lastSweep  time.Time
	loaded     bool
	instances  uint64
	nextEpoch  uint64
	epochsLeft uint64
	firstEpoch uint64                 // of this process
	recordings map[string]*recordings // of heads that were removed of late
	lacking    []*recordings          // of heads of which something is not recorded; each once
	shared     shared
}

// entry is all that is known of one head. Registry.mu guards it; record is
// replaced by the committer only.
type entry struct {
	record     fleet.Record
	epoch      uint64
	status     fleet.Status
	leaving    bool      // it drains by its own word, or went offline after that
	loading    time.Time // since when it may load what it serves now; zero: it served that
	health     fleet.Health
	head       *fleet.Head // as in the snapshot
	live       *fleet.Live
	interval   time.Duration // that the head was told last
	seen       time.Time     // of the last report, or of what stands in for it
	sequence   uint64
	stale      time.Time // since when
	expired    expiries
	lookAt     int64     // tick at which the wheel looks at it, 0: none
	slot       int       // of headway_head_in_flight, -1: none
	marked     bool      // it is in Registry.marks, or on its way to the store
	outcomes   *outcomes // of this epoch, or since it was ejected or reinstated
	ejection   *ejection // nil: it is not ejected
	fault      string    // why it would be ejected, were there others; "": it would not
	relapse    relapse
	quarrel    quarrel
	recordings *recordings // nil: there are none
}

// New makes a registry without heads. Load fills it, Run keeps it.
func New(o Options) (*Registry, error) {
	if o.Store == nil || o.Events == nil || o.Metrics == nil || o.Log == nil {
		return nil, errors.New("fleet: Store, Events, Metrics and Log are required")
	}
	if err := errors.Join(o.Lease.complete(), o.Eject.complete()); err != nil {
		return nil, err
	}
	r := &Registry{
		store: o.Store, events: o.Events, log: o.Log, begin: o.Begin, note: o.Note, now: o.Now, random: o.Random, lease: o.Lease, eject: o.Eject,
		maxHeads: o.MaxHeads, maxModelTypes: o.MaxModelTypes, allowLinkLocal: o.AllowLinkLocal,
		commits: make(chan *commit, commitQueue), committing: make(turn, 1),
		heads: map[string]*entry{}, removed: map[string]uint64{}, guards: map[poolKey]time.Time{}, ejected: map[*entry]bool{}, failing: map[*entry]bool{}, recordings: map[string]*recordings{},
	}
	if r.now == nil {
		r.now = time.Now
	}
	if r.random == nil {
		r.random = rand.Float64
	}
	if r.begin == nil {
		r.begin = audit.Unrecorded
	}
	if r.note == nil {
		r.note = func(audit.Entry) {}
	}
	if r.maxHeads == 0 {
		r.maxHeads = DefaultMaxHeads
	}
	if r.maxModelTypes == 0 {
		r.maxModelTypes = DefaultMaxModelTypes
	}
	r.lastSweep = r.now()
	r.wheel.reset(r.lastSweep)
	r.began = r.lastSweep
	r.snapshot.Store(&fleet.Snapshot{Pools: map[string]*fleet.Pool{}, Regions: map[string]int{}})
	var err error
	if r.metrics, err = newMetrics(o.Metrics, r); err != nil {
		return nil, fmt.Errorf("fleet: metrics: %w", err)
	}
	return r, nil
}

// Snapshot is the fleet now.
func (r *Registry) Snapshot() *fleet.Snapshot { return r.snapshot.Load() }

// Load replays the store. Heads that were known to be healthy come back as
// assumed, with a lease extended by a full term: our restart is no fault of
// theirs.
func (r *Registry) Load(ctx context.Context) error {
	records, revision, err := r.store.Heads(ctx)
	if err != nil {
		return fmt.Errorf("load the heads: %w", err)
	}
	if err := r.grantEpochs(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.firstEpoch = r.nextEpoch
	now := r.now()
	batch := make([]fleet.Step, 0, len(records))
	for i := range records {
		e := &entry{record: records[i], live: new(fleet.Live), outcomes: &outcomes{registry: r}, seen: now, loading: records[i].RegisteredAt, leaving: records[i].Leaving, slot: r.metrics.inFlight.take(records[i].Spec.ID)}
		r.shared.share(&e.record.Spec)
		e.epoch = e.record.Epoch
		if e.record.Confirmed {
			e.assume()
		}
		e.interval = r.interval(len(records))
		r.heads[e.record.Spec.ID] = e
		r.watch(e)
		batch = append(batch, r.replace(e))
	}
	r.publish(batch)
	r.revision.Store(revision)
	r.loaded = true
	return nil
}
