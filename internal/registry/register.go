package registry

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"time"

	"headway/internal/audit"
	"headway/internal/fleet"
	"headway/internal/strict"
)

// Registration is the answer to Register.
type Registration struct {
	View    fleet.View
	Lease   fleet.Lease
	Created bool // the id was not known
}

// Register adds a head, or gives a known one a new epoch. first, if not nil,
// is its first status report; its epoch is ignored. The errors are
// *strict.InvalidError, *ContestedError, ErrFleetFull, ErrOverloaded, the store's and
// ctx's; after each nothing has changed.
func (r *Registry) Register(ctx context.Context, spec fleet.Spec, first *fleet.StatusReport) (Registration, error) {
	return r.register(ctx, spec, first, false)
}

// TakeOver is Register for a head that moved to another endpoint while its lease
// holds at the old one: it never fails with *ContestedError.
func (r *Registry) TakeOver(ctx context.Context, spec fleet.Spec, first *fleet.StatusReport) (Registration, error) {
	return r.register(ctx, spec, first, true)
}

func (r *Registry) register(ctx context.Context, spec fleet.Spec, first *fleet.StatusReport, takeOver bool) (Registration, error) {
	if err := fleet.ValidateSpec(&spec, r.o.AllowLinkLocal); err != nil {
		return Registration{}, err
	}
	if r.o.Itself != nil && r.o.Itself(ctx, spec.Endpoint) {
		return Registration{}, strict.Invalid([]strict.Fault{{Pointer: "/endpoint", Reason: "is this service itself, so that requests would go round in a loop; want the address of the model server"}})
	}
	var done Registration
	c := &commit{id: spec.ID, registers: true, endpoint: spec.Endpoint, takeOver: takeOver}
	c.edit = func(cur *fleet.Record, _ *entry) (*fleet.Record, error) {
		now := r.o.Now().UTC().Truncate(time.Millisecond)
		if cur == nil {
			return &fleet.Record{Spec: spec, RegisteredAt: now, UpdatedAt: now}, nil
		}
		next := *cur
		if !reflect.DeepEqual(cur.Spec, spec) {
			next.Spec, next.UpdatedAt = spec, now
		}
		return &next, nil
	}
	c.apply = func(e *entry, now time.Time) {
		r.newEpoch(e, c.epoch, now)
		if e.record.Leaving {
			r.mark(e)
		}
		if first != nil {
			r.take(e, first, now)
		}
		r.metrics.registrations.Inc()
	}
	record, skipped := false, 0 // in the audit trail: a known head with a new epoch changes nothing that lasts
	c.seen = func(e *entry) {
		if c.writes {
			record, skipped = r.registered(e, c.created, audit.From(ctx).Actor)
		}
		done = Registration{View: r.view(e, r.o.Now()), Lease: e.lease(), Created: c.created}
	}
	if err := r.do(ctx, c); err != nil {
		return Registration{}, err
	}
	if record {
		r.recordStart(ctx, &spec, skipped)
	}
	return done, nil
}

// Patch is the operator's change to a head; nil fields stay as they are.
type Patch struct {
	State  *fleet.AdminState
	Weight *float64           // 0 gives the head's own weight back
	Labels *map[string]string // checked by CheckLabels, laid over the head's own; empty takes them away
}

// Patch changes the operator's side of a head. The errors are
// ErrHeadNotFound, ErrOverloaded, the audit trail's, the store's and ctx's; the
// change is recorded there before it is made, and how it ended after.
func (r *Registry) Patch(ctx context.Context, id string, p Patch) (fleet.View, error) {
	before, err := r.Head(id)
	if err != nil {
		return fleet.View{}, err
	}
	after := p.on(before.Record.Admin)
	var view fleet.View
	change := &commit{
		id: id,
		edit: func(cur *fleet.Record, _ *entry) (*fleet.Record, error) {
			if cur == nil {
				return nil, fleet.ErrHeadNotFound
			}
			next := *cur
			next.Admin = p.on(cur.Admin)
			if !reflect.DeepEqual(next.Admin, cur.Admin) {
				next.UpdatedAt = r.o.Now().UTC().Truncate(time.Millisecond)
			}
			return &next, nil
		},
		apply: func(*entry, time.Time) {},
		seen: func(e *entry) {
			e.auditLimit.changed()
			view = r.view(e, r.o.Now())
		},
	}
	err = r.audited(ctx, "head.patch", &before.Record.Spec, adminFields(&before.Record.Admin), adminFields(&after),
		func() error { return r.do(ctx, change) })
	return view, err
}

// on returns a with the change.
func (p *Patch) on(a fleet.Admin) fleet.Admin {
	if p.State != nil {
		a.State = *p.State
	}
	if p.Weight != nil {
		a.Weight = *p.Weight
	}
	if p.Labels != nil {
		a.Labels = maps.Clone(*p.Labels)
	}
	return a
}

// Deregister removes a head. The errors are ErrHeadNotFound, ErrOverloaded, the
// audit trail's, the store's and ctx's. It is recorded before and after, unless
// an actor removes what its own registration made just now, which was left out
// for there being too many.
func (r *Registry) Deregister(ctx context.Context, id string) error {
	if err := r.removeUnrecorded(ctx, id); !errors.Is(err, errToRecord) {
		return err
	}
	before, err := r.Head(id)
	if err != nil {
		return err
	}
	change := &commit{
		id: id, onPurpose: true,
		edit: func(cur *fleet.Record, _ *entry) (*fleet.Record, error) {
			if cur == nil {
				return nil, fleet.ErrHeadNotFound
			}
			return nil, nil
		},
	}
	return r.audited(ctx, "head.deregister", &before.Record.Spec, adminFields(&before.Record.Admin), nil,
		func() error { return r.do(ctx, change) })
}

// Check validates a registration that has the given faults already and returns
// all of them. The error is a *strict.InvalidError, nil only if nothing is wrong.
func (r *Registry) Check(spec fleet.Spec, already []strict.Fault) error {
	return strict.Invalid(strict.Merge(already, strict.FaultsOf(fleet.ValidateSpec(&spec, r.o.AllowLinkLocal))))
}
