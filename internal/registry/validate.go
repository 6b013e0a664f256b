package registry

import (
	"headway/internal/fleet"
	"headway/internal/strict"
)

// Check validates a registration that has the given faults already and returns
// all of them. The error is a *strict.InvalidError, nil only if nothing is wrong.
func (r *Registry) Check(spec fleet.Spec, already []strict.Fault) error {
	return strict.Invalid(strict.Merge(already, strict.FaultsOf(fleet.ValidateSpec(&spec, r.allowLinkLocal))))
}
