package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"headway/api"
	"headway/internal/fleet"
	"headway/internal/registry"
)

// retryEvery is the time between calls of the registry that fail. Two agents of
// one head would otherwise take it from each other at full speed.
const retryEvery = time.Second

// WithinOptions are what leases within the service are made of.
type WithinOptions struct {
	Registry   *registry.Registry                             // required
	Registered func(id string, models []string, created bool) // required; called after each registration; created also for other models
	Log        *slog.Logger                                   // required
}

// within is a Lease in the registry of this process.
type within struct {
	WithinOptions
	load    func() fleet.Load
	log     *slog.Logger
	changed chan struct{} // holds one when there is something to report
	closed  context.Context
	close   context.CancelFunc
	running sync.Mutex // held by Run
	trouble string     // of Run's goroutine: as logged
	models  []string   // of Run's goroutine: as last registered

	mu      sync.Mutex
	spec    fleet.Spec
	status  fleet.Status
	epoch   uint64 // 0: to be registered
	changes uint64 // of spec
}

// Within opens leases in the registry of this process.
func Within(o WithinOptions) func(api.Registration, func() fleet.Load) (Lease, error) {
	return func(reg api.Registration, load func() fleet.Load) (Lease, error) {
		status, ok := fleet.ParseStatus(reg.Status)
		if !ok {
			return nil, fmt.Errorf("register %s: there is no status %q", reg.ID, reg.Status)
		}
		w := &within{
			WithinOptions: o, load: load, log: o.Log.With("head", reg.ID), changed: make(chan struct{}, 1), status: status,
			spec: fleet.Spec{
				ID: reg.ID, Endpoint: reg.Endpoint, ModelTypes: reg.ModelTypes, Region: reg.Region, Zone: reg.Zone,
				Version: reg.Version, Engine: reg.Engine, Labels: reg.Labels,
			},
		}
		if reg.Weight != nil {
			w.spec.Weight = *reg.Weight
		}
		if reg.Capacity != nil {
			w.spec.MaxInFlight = reg.Capacity.MaxInFlight
		}
		w.closed, w.close = context.WithCancel(context.Background())
		return w, nil
	}
}

// Run implements Lease.
func (w *within) Run(ctx context.Context) {
	w.running.Lock()
	defer w.running.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.closed, cancel)() //nolint:contextcheck // the lease's own
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-w.changed:
		}
		if ctx.Err() != nil {
			return
		}
		interval, err := w.step(ctx)
		w.note(ctx, err)
		if err != nil {
			interval = retryEvery
		}
		timer.Reset(interval)
	}
}

// step registers or reports, and returns the time until the next report.
func (w *within) step(ctx context.Context) (time.Duration, error) {
	w.mu.Lock()
	spec, epoch, changes := w.spec, w.epoch, w.changes
	report := fleet.StatusReport{Epoch: epoch, Status: w.status, Load: w.load()}
	w.mu.Unlock()
	if epoch != 0 {
		lease, err := w.Registry.Report(spec.ID, report)
		if errors.Is(err, fleet.ErrHeadNotFound) || errors.Is(err, fleet.ErrStaleEpoch) {
			w.mu.Lock()
			w.epoch = 0
			w.mu.Unlock()
		}
		return lease.HeartbeatInterval, err
	}
	done, err := w.Registry.Register(ctx, spec, &report)
	if err != nil {
		return 0, err
	}
	w.Registered(spec.ID, spec.ModelTypes, done.Created || !slices.Equal(w.models, spec.ModelTypes))
	w.models = spec.ModelTypes
	w.mu.Lock()
	defer w.mu.Unlock()
	if changes == w.changes { // else it registers again
		w.epoch = done.Lease.Epoch
	}
	return done.Lease.HeartbeatInterval, nil
}

// note logs what is wrong when that changes.
func (w *within) note(ctx context.Context, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == w.trouble || ctx.Err() != nil {
		return
	}
	if w.trouble = text; err != nil {
		w.log.Warn("the head is not registered, or not for long", "error", err)
	}
}

// SetStatus implements Lease.
func (w *within) SetStatus(status string) error {
	s, ok := fleet.ParseStatus(status)
	if !ok {
		return fmt.Errorf("there is no status %q", status)
	}
	w.mu.Lock()
	w.status = s
	w.mu.Unlock()
	w.wake()
	return nil
}

// Serve implements Lease.
func (w *within) Serve(models []string, limit *api.Capacity) {
	w.mu.Lock()
	w.spec.ModelTypes, w.spec.MaxInFlight = slices.Clone(models), 0
	if limit != nil {
		w.spec.MaxInFlight = limit.MaxInFlight
	}
	w.epoch = 0
	w.changes++
	w.mu.Unlock()
	w.wake()
}

func (w *within) wake() {
	select {
	case w.changed <- struct{}{}:
	default: // it is to be reported already
	}
}

// Close implements Lease.
func (w *within) Close(ctx context.Context) error {
	w.close()
	w.running.Lock() // Run gives it back
	defer w.running.Unlock()
	if err := w.Registry.Deregister(ctx, w.spec.ID); err != nil && !errors.Is(err, fleet.ErrHeadNotFound) {
		return err
	}
	return nil
}
