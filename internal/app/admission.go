package app

import (
	"context"
	"slices"

	"headway/internal/admission"
	"headway/internal/event"
	"headway/internal/fleet"
)

// openAdmission makes what requests of the data plane wait in.
func (a *App) openAdmission(context.Context) (err error) {
	c := a.config.Admission
	a.admission, err = admission.New(admission.Options{
		Metrics: a.metrics, MaxWaiting: c.MaxWaiting, MaxWait: c.MaxWait,
		Requests: int64(c.RequestsPerMinute), Tokens: int64(c.TokensPerMinute),
	})
	return err
}

// freed wakes requests that wait for a place at a head. Those for another model type
// may fall back to it.
func (a *App) freed(h *fleet.Head) {
	if len(a.router.Policy().Document.Fallbacks) > 0 {
		a.admission.Changed()
	} else {
		a.admission.Freed(h.ModelTypes...)
	}
}

// bringPlaces are the events after which there may be places that no request gave
// back.
var bringPlaces = []string{
	event.HeadRegistered, event.HeadChanged, event.HeadRecovered, event.HeadReinstated, event.HeadRoutable, event.PoolAvailable, event.PolicyChanged,
}

// wakeWaiting wakes requests that wait for a place when one of those happens.
func (a *App) wakeWaiting(ctx context.Context) error {
	events := a.events.Subscribe()
	for {
		e, lost, err := events.Next(ctx)
		if err != nil {
			return nil //nolint:nilerr // the end of the service
		}
		if lost > 0 || slices.Contains(bringPlaces, e.Type) {
			a.admission.Changed()
		}
	}
}

// wakeWaitingAlways wakes them once a second: places that heads report, and those of
// reservations that end by their time, come without an event.
func (a *App) wakeWaitingAlways(ctx context.Context) error {
	return everySecond(ctx, a.admission.Changed)
}
