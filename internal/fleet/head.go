package fleet

import (
	"hash/fnv"
	"maps"
	"slices"
	"time"
)

// Status is what a head says of itself in its last report.
type Status uint8

// The statuses a head can report. Only StatusActive and StatusDegraded take
// new requests; a degraded head takes them only when no active one
// of its region can.
const (
	StatusUnknown Status = iota // no report since the registration
	StatusActive
	StatusDegraded
	StatusDraining
	StatusOffline
)

var statusNames = [...]string{"unknown", "active", "degraded", "draining", "offline"}

// Statuses lists every status, in the order of their values.
func Statuses() []string { return slices.Clone(statusNames[:]) }

func (s Status) String() string { return statusNames[s] }

// Serves reports whether a head that reports this status takes requests.
func (s Status) Serves() bool { return s == StatusActive || s == StatusDegraded }

// ParseStatus reads a status that a head may report: active, degraded,
// draining or offline.
func ParseStatus(s string) (Status, bool) {
	i := slices.Index(statusNames[1:], s)
	return Status(i + 1), i >= 0
}

// AdminState is what an operator set for a head. It is kept apart from what the
// head reports, and outlives its registrations.
type AdminState uint8

// The states an operator can set. Only AdminEnabled takes new requests:
// draining lets work in flight finish before planned work on the head,
// maintenance says that the work is under way.
const (
	AdminEnabled AdminState = iota
	AdminDraining
	AdminMaintenance
)

var adminNames = [...]string{"enabled", "draining", "maintenance"}

func (a AdminState) String() string { return adminNames[a] }

// ParseAdminState reads enabled, draining or maintenance.
func ParseAdminState(s string) (AdminState, bool) {
	i := slices.Index(adminNames[:], s)
	return AdminState(max(i, 0)), i >= 0
}

// Health is what the router itself holds of a head's lease.
type Health uint8

// The healths of a lease, by the age of the head's last report in heartbeat
// intervals.
const (
	HealthPending Health = iota // registered, no healthy report yet: not routable
	HealthFresh                 // reported within 2 intervals
	HealthSuspect               // 2 to 3 intervals: still routable
	HealthStale                 // over 3 intervals: not routable
	HealthHeld                  // would be stale, but the mass-expiry guard keeps it routable
	HealthAssumed               // known healthy before our own restart, lease extended
	HealthEjected               // its lease holds, but requests there failed: only where no other head has room
	HealthFailing               // as ejected, but too few others are left: it takes requests
)

var healthNames = [...]string{"pending", "fresh", "suspect", "stale", "held", "assumed", "ejected", "failing"}

func (h Health) String() string { return healthNames[h] }

// Routable reports whether a lease of this health may take requests.
func (h Health) Routable() bool {
	return h == HealthFresh || h == HealthSuspect || h == HealthHeld || h == HealthAssumed || h == HealthFailing
}

// Spec is what a head says of itself when it registers. It is durable and
// never changed in place.
type Spec struct {
	ID          string            `json:"id"`
	Endpoint    string            `json:"endpoint"`
	ModelTypes  []string          `json:"model_types"`
	Region      string            `json:"region"`
	Zone        string            `json:"zone,omitempty"`
	Version     string            `json:"version,omitempty"`
	Engine      string            `json:"engine,omitempty"`
	Weight      float64           `json:"weight"`                  // share of traffic relative to others, 0.001 to 1000
	MaxInFlight int64             `json:"max_in_flight,omitempty"` // requests at once, 0: no limit known
	Labels      map[string]string `json:"labels,omitempty"`
}

// Admin is the operator's side of a head: it wins over the Spec and survives
// registrations.
type Admin struct {
	State  AdminState        `json:"state"`
	Weight float64           `json:"weight,omitempty"` // 0: the head's own
	Labels map[string]string `json:"labels,omitempty"` // laid over the head's own
}

// Record is what a Store keeps of one head.
type Record struct {
	Spec         Spec      `json:"spec"`
	Admin        Admin     `json:"admin"`
	Epoch        uint64    `json:"epoch"`             // of the last registration that was written
	Confirmed    bool      `json:"confirmed"`         // has reported healthy at least once
	Leaving      bool      `json:"leaving,omitempty"` // its last word was that it drains, or that it is offline after that
	RegisteredAt time.Time `json:"registered_at"`
	UpdatedAt    time.Time `json:"updated_at"`
	Revision     uint64    `json:"-"` // the store's, for compare-and-swap; 0: never stored
}

// Clone copies the record, what it points to included.
func (r *Record) Clone() *Record {
	c := *r
	c.Spec.ModelTypes, c.Spec.Labels, c.Admin.Labels = slices.Clone(c.Spec.ModelTypes), maps.Clone(c.Spec.Labels), maps.Clone(c.Admin.Labels)
	return &c
}

// Head is one head in a Snapshot: what routing has to know, with the
// operator's overrides applied. It is immutable; Live points to the numbers
// that change.
type Head struct {
	Spec
	Epoch    uint64
	Status   Status
	Admin    AdminState
	Health   Health // in a Snapshot as of the last change that decisions see; fresh, suspect and assumed are one to them
	Hash     uint64 // of the id, for consistent hashing
	Instance uint64 // unique in this process, one for each epoch of each head
	Number   int    // from 0, small, of no other head of the snapshot: for tables by head
	Live     *Live
	Trial    bool      // ejected, and may be tried with one request; see Outcomes
	Outcomes Outcomes  // nil: nothing is concluded from how requests end
	Leaving  bool      // it reported that it drains, or went offline after that
	Loading  time.Time // since when it may load what it serves now; zero: it served that
	Since    time.Time // of its first registration
}

// Refusal names the first reason why a head takes no new requests.
type Refusal string

// The reasons in the order in which they are checked; Eligible is none.
const (
	Eligible         Refusal = ""
	RefusedAdmin     Refusal = "admin_state"
	RefusedUnhealthy Refusal = "health"
	RefusedStatus    Refusal = "status"
)

// Refusal says why the head takes no new requests, or Eligible.
func (h *Head) Refusal() Refusal {
	switch {
	case h.Admin != AdminEnabled:
		return RefusedAdmin
	case !h.Health.Routable():
		return RefusedUnhealthy
	case !h.Status.Serves():
		return RefusedStatus
	}
	return Eligible
}

// Withdrawn reports whether the head is out on purpose: an operator took it out,
// or it reported that it drains. offline alone may be an engine that failed.
func (h *Head) Withdrawn() bool { return h.Admin != AdminEnabled || h.Leaving }

// Routable reports whether the head takes new requests.
func (h *Head) Routable() bool { return h.Refusal() == Eligible }

// HashID is FNV-1a with the finalizer of MurmurHash3, since ids often differ in
// their last digits alone; equal on every instance of the router.
func HashID(id string) uint64 {
	f := fnv.New64a()
	_, _ = f.Write([]byte(id))
	x := f.Sum64()
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
