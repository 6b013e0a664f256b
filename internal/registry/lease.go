package registry

import (
	"errors"
	"time"

	"headway/internal/event"
	"headway/internal/fleet"
)

// LeaseOptions are the rules of leases. A zero value is the default.
type LeaseOptions struct {
	BaseInterval        time.Duration // between reports of a head in a small fleet; 2 s
	MaxReportsPerSecond int           // of the whole fleet; the interval grows with it; 2,000
	RemoveAfter         time.Duration // of silence after which a stale head is removed; 1 h
	SlowStart           time.Duration // how long a new head counts as loaded; 30 s
	GuardShare          float64       // of a pool overdue at once that trips the mass-expiry guard; 0.5
	GuardMinHeads       int           // the smallest pool that the guard watches; 4
	GuardHold           time.Duration // how long it keeps heads that would be stale; 60 s
}

// A head is fresh up to freshIntervals after its last report, suspect up to
// fleet.LeaseIntervals, then stale.
const freshIntervals = 2

func (o *LeaseOptions) complete() error {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.BaseInterval, 2*time.Second)
	def(&o.RemoveAfter, time.Hour)
	def(&o.SlowStart, 30*time.Second)
	def(&o.GuardHold, time.Minute)
	if o.MaxReportsPerSecond == 0 {
		o.MaxReportsPerSecond = 2000
	}
	if o.GuardShare == 0 {
		o.GuardShare = 0.5
	}
	if o.GuardMinHeads == 0 {
		o.GuardMinHeads = 4
	}
	switch {
	case o.BaseInterval < 0 || o.RemoveAfter < 0 || o.SlowStart < 0 || o.GuardHold < 0:
		return errors.New("fleet: durations of leases must not be negative")
	case o.MaxReportsPerSecond < 1 || o.GuardMinHeads < 1 || o.GuardShare < 0 || o.GuardShare > 1:
		return errors.New("fleet: MaxReportsPerSecond and GuardMinHeads must be at least 1, GuardShare 0 to 1")
	}
	return nil
}

// interval is how often each of n heads reports, before jitter.
func (r *Registry) interval(n int) time.Duration {
	spread := time.Duration(float64(n) / float64(r.lease.MaxReportsPerSecond) * float64(time.Second))
	return max(r.lease.BaseInterval, spread)
}

// grant renews e's lease at now and tells the head when to report again.
func (r *Registry) grant(e *entry, now time.Time) fleet.Lease {
	e.seen = now
	e.interval = time.Duration(float64(r.interval(len(r.heads))) * r.jitter())
	r.watch(e)
	return e.lease()
}

func (e *entry) lease() fleet.Lease {
	ttl := fleet.LeaseIntervals * e.interval
	return fleet.Lease{Epoch: e.epoch, TTL: ttl, HeartbeatInterval: e.interval, ExpiresAt: e.seen.Add(ttl)}
}

// Report takes a head's status report and renews its lease. The errors are
// *strict.InvalidError, ErrHeadNotFound and ErrStaleEpoch. It does no I/O.
func (r *Registry) Report(id string, report fleet.StatusReport) (fleet.Lease, error) {
	lease, staged, err := r.report(id, &report)
	if staged {
		r.flush()
	}
	return lease, err
}

// report is Report up to the next snapshot; staged says that it has to be
// published.
func (r *Registry) report(id string, report *fleet.StatusReport) (lease fleet.Lease, staged bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.heads[id]
	if e == nil {
		r.metrics.dropped[dropUnknownHead].Inc()
		return fleet.Lease{}, false, fleet.ErrHeadNotFound
	}
	now := r.now()
	if report.Epoch != e.epoch {
		if !r.grantedBefore(e, report.Epoch) {
			r.metrics.dropped[dropStaleEpoch].Inc()
			return fleet.Lease{}, false, fleet.ErrStaleEpoch
		}
		e.epoch = report.Epoch
		staged = r.stage(r.replace(e))
	}
	r.metrics.updates.Inc()
	lease = r.grant(e, now)
	if report.Sequence != 0 && report.Sequence <= e.sequence {
		r.metrics.dropped[dropOutOfOrder].Inc()
		return lease, staged, nil
	}
	e.sequence = report.Sequence
	return lease, r.accept(e, report, now) || staged, nil
}

// grantedBefore reports whether epoch may be one that an earlier process
// granted the head: the registration changed nothing, so it was not written.
func (r *Registry) grantedBefore(e *entry, epoch uint64) bool {
	return e.epoch < r.firstEpoch && epoch > e.epoch && epoch < r.firstEpoch
}

// accept notes the report's load and stages what it changes of the head.
func (r *Registry) accept(e *entry, report *fleet.StatusReport, now time.Time) (staged bool) {
	e.live.TakeReport(&report.Load, now, e.record.Spec.MaxInFlight, e.interval, report.Sequence)
	status, health := e.status, e.health
	e.say(report.Status)
	healthy := report.Status == fleet.StatusActive || report.Status == fleet.StatusDegraded
	if e.health != fleet.HealthPending || healthy {
		e.health, e.loading = fleet.HealthFresh, time.Time{}
	}
	e.stale = time.Time{}
	e.outcomes.held.Store(false)
	r.remember(e)
	if e.status == status && e.health == health {
		return false
	}
	r.watch(e)
	staged = r.stage(r.replace(e))
	switch {
	case health == fleet.HealthStale || health == fleet.HealthHeld:
		r.tell(event.HeadRecovered, e, now)
	default:
		r.tell(event.HeadChanged, e, now)
	}
	return staged
}

// say notes what the head says of itself.
func (e *entry) say(status fleet.Status) {
	e.leaving = status == fleet.StatusDraining || status == fleet.StatusOffline && e.leaving
	e.status = status
}

func (r *Registry) tell(eventType string, e *entry, now time.Time) {
	r.events.Publish(event.Event{
		Type: eventType, Time: now, Head: e.head.ID, Region: e.head.Region, ModelTypes: e.head.ModelTypes,
		Data: fleet.HeadState{
			Status: e.status.String(), AdminState: e.head.Admin.String(), Health: e.head.Health.String(),
			Routable: e.head.Routable(), Epoch: e.epoch,
		},
	})
}
