package registry

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json"

	"headway/internal/audit"
	"headway/internal/fleet"
)

// auditFields are the fields of a head that the audit trail shows.
type auditFields struct {
	Endpoint    string            `json:"endpoint,omitempty"`
	ModelTypes  []string          `json:"model_types,omitempty"`
	MaxInFlight int64             `json:"max_in_flight,omitzero"`
	OwnWeight   float64           `json:"own_weight,omitzero"`
	State       string            `json:"admin_state,omitempty"`
	Weight      float64           `json:"weight,omitzero"` // the operator's
	Labels      map[string]string `json:"labels,omitempty"`
}

func (f auditFields) json() []byte {
	b, err := json.Marshal(f, json.Deterministic(true))
	if err != nil {
		return nil // text that was validated always encodes
	}
	return b
}

func adminFields(a *fleet.Admin) []byte {
	return auditFields{State: a.State.String(), Weight: a.Weight, Labels: a.Labels}.json()
}

func headTarget(id string, s *fleet.Spec) audit.Target {
	t := audit.Target{Type: "head", ID: id}
	if s != nil {
		t.Region = s.Region
		if len(s.ModelTypes) == 1 {
			t.ModelType = s.ModelTypes[0]
		}
	}
	return t
}

// recordStart records that a head registered. It cannot be refused: heads must be
// able to come back even if the trail fails.
func (r *Registry) recordStart(ctx context.Context, spec *fleet.Spec, skipped int) {
	reason := ""
	if skipped > 0 {
		reason = fmt.Sprintf("registrations and removals of this head that were not recorded before this one: %d", skipped)
	}
	after := auditFields{Endpoint: spec.Endpoint, ModelTypes: spec.ModelTypes, MaxInFlight: spec.MaxInFlight, OwnWeight: spec.Weight}
	r.o.Audit.Happened(audit.Entry{
		Category: audit.Head, Action: "head.register", Outcome: audit.Success, Reason: reason,
		Target: headTarget(spec.ID, spec), After: after.json(),
	}.By(ctx))
}

// audited records what an operator is to change of a head, changes it, and
// records how that ended.
func (r *Registry) audited(ctx context.Context, action string, spec *fleet.Spec, before, after []byte, change func() error) error {
	return audit.Do(ctx, r.o.Audit, audit.Entry{
		Category: audit.Head, Action: action, Target: headTarget(spec.ID, spec), Before: before, After: after,
	}, change)
}
