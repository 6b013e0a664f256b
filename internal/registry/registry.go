package registry

import (
	"cmp"
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
	Store         fleet.Store           // required
	Events        *event.Stream         // required
	Metrics       prometheus.Registerer // required
	Log           *slog.Logger          // required
	Now           func() time.Time      // nil: time.Now
	Random        func() float64        // in [0, 1), called by one goroutine at a time; nil: the runtime's
	Lease         LeaseOptions          // zero values: defaults
	Eject         fleet.EjectOptions    // zero values: defaults; nothing is ejected unless Enabled
	Audit         audit.Recorder        // nil: audit.Unrecorded
	MaxHeads      int                   // 0: 200,000
	MaxModelTypes int                   // distinct ones over the fleet; 0: 1,000
	// Itself reports whether an endpoint is this service itself, which then is no
	// head. It may take a second. nil: none is.
	Itself         func(ctx context.Context, endpoint string) bool
	AllowLinkLocal bool // endpoints on link-local and cloud metadata addresses
}

func (o *Options) complete() error {
	if o.Store == nil || o.Events == nil || o.Metrics == nil || o.Log == nil {
		return errors.New("registry: Store, Events, Metrics and Log are required")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	if o.Audit == nil {
		o.Audit = audit.Unrecorded{}
	}
	o.MaxHeads = cmp.Or(o.MaxHeads, 200_000)
	o.MaxModelTypes = cmp.Or(o.MaxModelTypes, 1000)
	return errors.Join(o.Lease.complete(), o.Eject.Complete())
}

// Registry is the one writer of the fleet. All methods are safe for concurrent
// use; Snapshot takes no lock.
type Registry struct {
	o          Options
	metrics    *metrics
	began      time.Time // windows of outcomes count from here
	snapshot   atomic.Pointer[fleet.Snapshot]
	commits    chan *commit
	running    atomic.Bool   // Run commits
	committing turn          // full from when a batch is decided on until it is applied; taken before mu
	revision   atomic.Uint64 // of the store, up to which it was followed
	storeDown  atomic.Bool

	mu          sync.Mutex
	heads       map[string]*entry
	removed     map[string]uint64 // heads that were removed here, by the last revision, until a watch brings that
	staged      []fleet.Step      // not in the snapshot yet
	rests       time.Time         // when the next snapshot may be made by flush, by the runtime's clock
	marks       []*entry          // whose health the store is to learn; each once
	wheel       wheel
	guards      map[poolKey]time.Time // when each active guard tripped
	ejected     map[*entry]bool       // those with an ejection
	failing     map[*entry]bool       // those with a fault
	lastSweep   time.Time
	keepsLeases bool // none ends by silence
	loaded      bool
	instances   uint64
	numbers     numbers
	nextEpoch   uint64
	epochsLeft  uint64
	firstEpoch  uint64                 // of this process
	auditLimits map[string]*auditLimit // of heads that were removed lately
	unrecorded  []*auditLimit          // of heads of which something is not recorded; each once
	interned    interned
}

// entry is all that is known of one head. Registry.mu guards it; record is
// replaced by the committer only.
type entry struct {
	record     fleet.Record
	epoch      uint64
	status     fleet.Status
	leaving    bool      // it reported that it drains, or went offline after that
	loading    time.Time // since when it may load what it serves now; zero: it served that
	health     fleet.Health
	head       *fleet.Head // as in the snapshot
	live       *fleet.Live
	interval   time.Duration // of its last lease
	seen       time.Time     // of the last report, or of what stands in for it
	sequence   uint64
	stale      time.Time // since when
	expired    expirations
	number     int       // fleet.Head.Number
	lookAt     int64     // tick at which the wheel looks at it, 0: none
	slot       int       // of headway_head_in_flight, -1: none
	marked     bool      // it is in Registry.marks, or on its way to the store
	outcomes   *outcomes // of this epoch, or since it was ejected or reinstated
	ejection   *ejection // nil: it is not ejected
	unwell     string    // what the checks of its health found; "": nothing, or it is not checked
	fault      string    // why it would be ejected, were there others; "": it would not
	history    fleet.Ejections
	contests   contests
	auditLimit *auditLimit // nil: there is none
}

// New makes a registry without heads. Load fills it, Run keeps it.
func New(o Options) (*Registry, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	now := o.Now()
	r := &Registry{
		o: o, began: now, lastSweep: now, wheel: wheel{base: now},
		commits: make(chan *commit, commitQueue), committing: make(turn, 1),
		heads: map[string]*entry{}, removed: map[string]uint64{}, guards: map[poolKey]time.Time{},
		ejected: map[*entry]bool{}, failing: map[*entry]bool{}, auditLimits: map[string]*auditLimit{},
	}
	r.snapshot.Store(new(fleet.Snapshot))
	r.metrics = newMetrics(o.Metrics, r)
	return r, nil
}

// Snapshot is the fleet now.
func (r *Registry) Snapshot() *fleet.Snapshot { return r.snapshot.Load() }

// Load replays the store. Heads that were known to be healthy come back as
// assumed, with a lease extended by a full term: our restart is no fault of
// theirs.
func (r *Registry) Load(ctx context.Context) error {
	records, revision, err := r.o.Store.Heads(ctx)
	if err != nil {
		return fmt.Errorf("load the heads: %w", err)
	}
	if err := r.grantEpochs(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.firstEpoch = r.nextEpoch
	now := r.o.Now()
	batch := make([]fleet.Step, 0, len(records))
	for _, record := range records {
		id := record.Spec.ID
		e := &entry{
			record: record, epoch: record.Epoch, live: new(fleet.Live), outcomes: &outcomes{registry: r}, number: r.numbers.take(), slot: r.metrics.inFlight.take(id),
			seen: now, interval: r.interval(len(records)), loading: record.RegisteredAt, leaving: record.Leaving,
		}
		r.interned.intern(&e.record.Spec)
		if record.Confirmed {
			e.assume()
		}
		r.heads[id] = e
		r.schedule(e)
		batch = append(batch, r.replace(e))
	}
	r.publish(batch)
	r.revision.Store(revision)
	r.loaded = true
	return nil
}
