// Package apiv1 is version 1 of the API, for every carrier: the JSON that comes
// over HTTP, WebSocket or the message queue is read strictly, carried out for its
// principal, and answered alike.
package apiv1

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"headway/api"
	"headway/internal/access"
	"headway/internal/fleet"
	"headway/internal/prefix"
	"headway/internal/registry"
	"headway/internal/routing"
	"headway/internal/strict"
)

// Verbs carries out requests. The carrier checks the permission that it declares;
// the heads and regions of a principal are checked here. All methods are safe for
// concurrent use. No method keeps the body. ProblemOf turns the errors into
// answers.
type Verbs struct {
	fleet  *registry.Registry
	router *routing.Router
}

// New makes the verbs.
func New(f *registry.Registry, r *routing.Router) (*Verbs, error) {
	if f == nil || r == nil {
		return nil, errors.New("apiv1: the fleet and the router are required")
	}
	return &Verbs{f, r}, nil
}

// Register reads an api.Registration and registers the head. Created says that
// its id was not known.
func (d *Verbs) Register(ctx context.Context, p *access.Principal, body []byte) (answer api.RegistrationAnswer, created bool, err error) {
	in := registration{report: report{load: fleet.UnknownLoad()}}
	faults, err := strict.ReadObject(body, MaxFaults, in.field)
	if err != nil {
		return answer, false, err
	}
	faults = append(faults, in.complete()...)
	if len(faults) > 0 {
		return answer, false, in.named(d.fleet.Check(in.spec, faults))
	}
	if err := p.RequireRegion(in.spec.Region); err != nil {
		return answer, false, err
	}
	if err := d.mayAct(p, in.spec.ID); err != nil {
		return answer, false, err
	}
	register := d.fleet.Register
	if in.takeOver {
		register = d.fleet.TakeOver
	}
	done, err := register(ctx, in.spec, in.first)
	if err != nil {
		return answer, false, in.named(err)
	}
	answer = api.RegistrationAnswer{Head: HeadOf(&done.View), Lease: toLease(done.Lease)}
	for _, f := range d.router.Registered(in.spec.ID, in.spec.ModelTypes, done.Created) {
		answer.Warnings = append(answer.Warnings, "The policy's "+f.Pointer+": "+f.Reason+".")
	}
	return answer, done.Created, nil
}

// Report reads an api.StatusReport of the head. With no id, as where there is
// no path to hold it, the body has it in a field of its own: id.
func (d *Verbs) Report(p *access.Principal, id string, body []byte) (api.StatusAnswer, error) {
	in := report{id: id, named: id == "", load: fleet.UnknownLoad()}
	if id != "" {
		if err := d.mayAct(p, id); err != nil {
			return api.StatusAnswer{}, err
		}
	}
	faults, err := strict.ReadObject(body, MaxFaults, in.field)
	if err != nil {
		return api.StatusAnswer{}, err
	}
	faults = require(faults, in.id == "", "/id", "the id of the head")
	faults = require(faults, in.epoch == 0, "/epoch", "the epoch of the head's lease")
	faults = require(faults, in.status == fleet.StatusUnknown, "/status", "one of active, degraded, draining, offline")
	if len(faults) > 0 {
		return api.StatusAnswer{}, strict.Invalid(faults)
	}
	if in.named {
		if err := d.mayAct(p, in.id); err != nil {
			return api.StatusAnswer{}, err
		}
	}
	lease, err := d.fleet.Report(in.id, fleet.StatusReport{
		Epoch: uint64(in.epoch), Status: in.status, Load: in.load, Sequence: uint64(in.sequence),
	})
	if err != nil {
		return api.StatusAnswer{}, err
	}
	return api.StatusAnswer{Lease: toLease(lease)}, nil
}

// Patch reads an api.HeadPatch, the operator's side of a head.
func (d *Verbs) Patch(ctx context.Context, id string, body []byte) (api.Head, error) {
	var in patch
	faults, err := strict.ReadObject(body, MaxFaults, in.field)
	if err != nil {
		return api.Head{}, err
	}
	if len(faults) == 0 && in.Patch == (registry.Patch{}) {
		faults = append(faults, strict.Fault{Reason: "changes nothing; want admin_state, weight or labels"})
	}
	if in.Labels != nil {
		faults = append(faults, fleet.CheckLabels("/labels", *in.Labels)...)
	}
	if len(faults) > 0 {
		return api.Head{}, strict.Invalid(faults)
	}
	view, err := d.fleet.Patch(ctx, id, in.Patch)
	if err != nil {
		return api.Head{}, err
	}
	return HeadOf(&view), nil
}

// Deregister removes the head.
func (d *Verbs) Deregister(ctx context.Context, p *access.Principal, id string) error {
	if err := d.mayAct(p, id); err != nil {
		return err
	}
	return d.fleet.Deregister(ctx, id)
}

var works = sync.Pool{New: func() any { return new(work) }}

// Decide reads an api.DecisionRequest, makes the decision, and appends the
// api.Decision to the answer, which may be the memory of the body: the hot call
// is read and written by hand. The decision is the caller's own, who can read it.
func (d *Verbs) Decide(p *access.Principal, body, answer []byte) ([]byte, error) {
	in, _ := works.Get().(*work)
	defer works.Put(in)
	var faults []strict.Fault
	if !in.scan(body) {
		var err error
		if faults, err = in.decode(body); err != nil {
			return answer, err
		}
	}
	if faults = strict.Merge(faults, checkDecision(&in.req)); len(faults) > 0 {
		return answer, strict.Invalid(faults)
	}
	if strings.TrimSpace(in.req.SessionKey) == "" {
		in.req.SessionKey = in.req.SessionID
	}
	kind, id := p.Identity()
	in.req.Caller, in.req.Scope, in.req.Reads = p.Mark(), prefix.Scope(kind, id, "", ""), in.req.Explain && p.May(access.Read)
	decision, err := d.router.Decide(&in.req)
	if err != nil {
		if no, ok := errors.AsType[*routing.NoHeadError](err); ok && no.Stray && p.May(access.Read) {
			no.Known = d.router.KnownRegions(no.Region)
		}
		return answer, err
	}
	return appendDecision(answer, decision, in.req.Explain), nil
}

// idStart is how an answer of Decide begins.
var idStart = []byte(`{"decision_id":"`)

// Withdraw ends the decision of an answer of Decide that its caller cannot get: the
// request will not come to the head. Other answers have none.
func (d *Verbs) Withdraw(answer []byte) {
	_, rest, _ := bytes.Cut(answer, idStart)
	id, _, found := bytes.Cut(rest, []byte{'"'})
	if found {
		_ = d.router.Finish(string(id), routing.Outcome{Result: routing.ResultCancelled})
	}
}

// Progress reads an api.Progress of the decision; see Outcome for its id.
func (d *Verbs) Progress(id string, body []byte) error {
	event, named := "", id == ""
	faults, err := strict.ReadObject(body, MaxFaults, func(r *strict.Reader, name string) bool {
		switch {
		case name == "event":
			r.Choice("first_token", func(text string) bool { event = text; return text == "first_token" })
		case name == "decision_id" && named:
			r.Text(&id)
		default:
			return false
		}
		return true
	})
	if err != nil {
		return err
	}
	faults = require(faults, event == "", "/event", "first_token")
	if faults = require(faults, id == "", "/decision_id", "the id of the decision"); len(faults) > 0 {
		return strict.Invalid(faults)
	}
	return d.router.FirstToken(strings.Clone(id))
}

// Outcome reads an api.Outcome of the decision. With no id the body has it in a
// field of its own: decision_id.
func (d *Verbs) Outcome(id string, body []byte) error {
	in := newOutcome(id)
	faults, err := strict.ReadObject(body, MaxFaults, in.field)
	if err != nil {
		return err
	}
	faults = require(faults, in.Result == routing.ResultNone, "/result", "ok, error or cancelled")
	faults = strict.Merge(faults, in.contradictions())
	if faults = require(faults, in.id == "", "/decision_id", "the id of the decision"); len(faults) > 0 {
		return strict.Invalid(faults)
	}
	return d.router.Finish(in.id, in.Outcome)
}

// require adds a fault for a field that is missing.
func require(faults []strict.Fault, missing bool, pointer, what string) []strict.Fault {
	if !missing {
		return faults
	}
	return strict.Merge(faults, []strict.Fault{{Pointer: pointer, Reason: "is required: " + what}})
}

// mayAct checks that the principal may act for the head, and in the region that
// it is registered in.
func (d *Verbs) mayAct(p *access.Principal, id string) error {
	if err := p.RequireHead(id); err != nil || len(p.Regions) == 0 {
		return err
	}
	if view, err := d.fleet.Head(id); err == nil {
		return p.RequireRegion(view.Head.Region)
	}
	return nil
}

// named lets faults of the model type point to the field that it stood in.
func (in *registration) named(err error) error {
	wrong, ok := errors.AsType[*strict.InvalidError](err)
	if !ok || !in.single {
		return err
	}
	faults := slices.Clone(wrong.Faults)
	for i := range faults {
		if faults[i].Pointer == "/model_types/0" {
			faults[i].Pointer = "/model_type"
		}
	}
	return strict.Invalid(faults)
}
