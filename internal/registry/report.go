package registry

import (
	"time"

	"headway/internal/event"
	"headway/internal/fleet"
)

// interval is how often each of n heads reports, before jitter.
func (r *Registry) interval(n int) time.Duration {
	spread := float64(n) / float64(r.o.Lease.MaxReportsPerSecond) * float64(time.Second)
	return max(r.o.Lease.BaseInterval, time.Duration(spread))
}

// grant renews e's lease at now. Its interval is spread by a tenth, so that heads
// do not report all at once.
func (r *Registry) grant(e *entry, now time.Time) fleet.Lease {
	e.seen = now
	e.interval = time.Duration(float64(r.interval(len(r.heads))) * (0.9 + 0.2*r.o.Random()))
	r.schedule(e)
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
	now := r.o.Now()
	if report.Epoch != e.epoch {
		if !r.grantedBefore(e, report.Epoch) {
			r.metrics.dropped[dropStaleEpoch].Inc()
			return fleet.Lease{}, false, fleet.ErrStaleEpoch
		}
		e.epoch = report.Epoch
		staged = r.stage(e)
	}
	r.metrics.updates.Inc()
	lease = r.grant(e, now)
	if report.Sequence != 0 && report.Sequence <= e.sequence {
		r.metrics.dropped[dropOutOfOrder].Inc()
		return lease, staged, nil
	}
	return lease, r.accept(e, report, now) || staged, nil
}

// grantedBefore reports whether epoch may be one that an earlier process
// granted the head: the registration changed nothing, so it was not written.
func (r *Registry) grantedBefore(e *entry, epoch uint64) bool {
	return e.epoch < r.firstEpoch && epoch > e.epoch && epoch < r.firstEpoch
}

// accept takes a report in order and stages what it changes of the head.
func (r *Registry) accept(e *entry, report *fleet.StatusReport, now time.Time) (staged bool) {
	status, health := e.status, e.health
	r.take(e, report, now)
	e.stale = time.Time{}
	e.outcomes.held.Store(false)
	if e.status == status && e.health == health {
		return false
	}
	staged = r.stage(e)
	kind := event.HeadChanged
	if health == fleet.HealthStale || health == fleet.HealthHeld {
		kind = event.HeadRecovered
	}
	r.emitState(kind, e, now)
	return staged
}

// take notes what a report says; the caller stages it.
func (r *Registry) take(e *entry, report *fleet.StatusReport, now time.Time) {
	e.live.TakeReport(&report.Load, now, e.record.Spec.MaxInFlight, e.interval, report.Sequence)
	e.setStatus(report.Status)
	e.sequence = report.Sequence
	if e.health != fleet.HealthPending || e.status.Serves() {
		e.loading = time.Time{}
		if e.health != fleet.HealthFresh {
			e.health = fleet.HealthFresh
			r.schedule(e)
		}
	}
	if e.healthy() != e.record.Confirmed || e.leaving != e.record.Leaving { // the store knows something else
		r.mark(e)
	}
}

func (e *entry) setStatus(status fleet.Status) {
	e.leaving = status == fleet.StatusDraining || status == fleet.StatusOffline && e.leaving
	e.status = status
}
