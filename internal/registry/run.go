package registry

import (
	"context"
	"sync"
	"time"

	"headway/internal/feed"
)

// Run writes changes, ends leases and follows the store until ctx ends and every
// queued change has been answered. Each has a goroutine of its own: a disk or a
// trail that hangs must not keep heads routable that fell silent.
func (r *Registry) Run(ctx context.Context) error {
	r.running.Store(true)
	var beside sync.WaitGroup
	defer beside.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop() // on a panic too, which must not end in waiting
	beside.Go(func() { every(ctx, r.tick(), func() { r.sweep(r.o.Now()) }) })
	beside.Go(func() { every(ctx, recordLeftOutEvery, func() { r.recordLeftOut(r.o.Now(), false) }) })
	beside.Go(func() { feed.Follow(ctx, r.revision.Load(), r.o.Store.Watch, r.watched, r.watchFailed) })
	probe := time.NewTicker(probeInterval)
	defer probe.Stop()
	for {
		select {
		case <-ctx.Done():
			r.running.Store(false) // callers that come now commit their changes themselves
			r.commitWaiting(context.WithoutCancel(ctx))
			r.recordLeftOut(r.o.Now(), true)
			return nil
		case c := <-r.commits:
			r.committing.lock()
			r.commit(context.WithoutCancel(ctx), r.drain(c))
			r.committing.unlock()
		case <-probe.C:
			if r.storeDown.Load() {
				r.probe(ctx)
			}
		}
	}
}

// Step does once, at now, what Run does all the time: it takes over what others
// wrote, moves leases on, and writes what waits. A simulation with a clock of its
// own calls it instead of Run; its changes are written by the calls that make them,
// so that it needs no second goroutine.
func (r *Registry) Step(ctx context.Context, now time.Time) {
	if c, err := r.o.Store.Watch(feed.AtOnce(ctx), r.revision.Load()); err == nil {
		r.watched(c)
	}
	r.sweep(now)
	r.recordLeftOut(now, false)
	r.commitWaiting(ctx)
}

// turn is a mutex for which a test's fake time passes while one waits.
type turn chan struct{}

func (t turn) lock()   { t <- struct{}{} }
func (t turn) unlock() { <-t }

// every calls f at each tick until ctx ends.
func every(ctx context.Context, d time.Duration, f func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f()
		}
	}
}

// commitWaiting commits what waits.
func (r *Registry) commitWaiting(ctx context.Context) {
	r.committing.lock()
	defer r.committing.unlock()
	for {
		select {
		case c := <-r.commits:
			r.commit(ctx, r.drain(c))
		default:
			return
		}
	}
}
