package registry

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json"

	"headway/internal/audit"
	"headway/internal/fleet"
)

// audited are the fields of a head that the audit trail shows.
type audited struct {
	Endpoint    string            `json:"endpoint,omitempty"`
	ModelTypes  []string          `json:"model_types,omitempty"`
	MaxInFlight int64             `json:"max_in_flight,omitzero"`
	OwnWeight   float64           `json:"own_weight,omitzero"`
	State       string            `json:"admin_state,omitempty"`
	Weight      float64           `json:"weight,omitzero"` // the operator's
	Labels      map[string]string `json:"labels,omitempty"`
}

func specFields(s *fleet.Spec) []byte {
	return fields(audited{Endpoint: s.Endpoint, ModelTypes: s.ModelTypes, MaxInFlight: s.MaxInFlight, OwnWeight: s.Weight})
}

func adminFields(a *fleet.Admin) []byte {
	return fields(audited{State: a.State.String(), Weight: a.Weight, Labels: a.Labels})
}

func fields(a audited) []byte {
	b, err := json.Marshal(a, json.Deterministic(true))
	if err != nil {
		return nil // text that was validated always encodes
	}
	return b
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
// able to come back whatever becomes of the trail.
func (r *Registry) recordStart(ctx context.Context, id string, spec *fleet.Spec, skipped int) {
	reason := ""
	if skipped > 0 {
		reason = fmt.Sprintf("registrations and removals of this head that were not recorded before this one: %d", skipped)
	}
	r.note(audit.Entry{
		Category: audit.Head, Action: "head.register", Outcome: audit.Success, Reason: reason,
		Target: headTarget(id, spec), After: specFields(spec),
	}.By(ctx))
}

// announce records that somebody is to change a head.
func (r *Registry) announce(ctx context.Context, action string, record *fleet.Record, after []byte) (audit.EndFunc, error) {
	return r.begin(ctx, audit.Entry{
		Category: audit.Head, Action: action, Target: headTarget(record.Spec.ID, &record.Spec),
		Before: adminFields(&record.Admin), After: after,
	}.By(ctx))
}

// conclude ends what announce began.
func conclude(end audit.EndFunc, err error) error {
	if err != nil {
		end(audit.Failure, err.Error(), nil)
		return err
	}
	end(audit.Success, "", nil)
	return nil
}
