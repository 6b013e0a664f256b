package registry

import (
	"time"

	"headway/internal/event"
	"headway/internal/fleet"
)

// interval is how often each of n heads reports, before jitter.
func (r *Registry) interval(n int) time.Duration {
	spread := time.Duration(float64(n) / float64(r.lease.MaxReportsPerSecond) * float64(time.Second))
	return max(r.lease.BaseInterval, spread)
}

// jitter spreads the heads' reports: 0.9 to 1.1.
func (r *Registry) jitter() float64 { return 0.9 + 0.2*r.random() }

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
