package routing

import (
	"log/slog"
	"maps"
	"slices"

	"headway/internal/policy"
	"headway/internal/strict"
)

// HiddenBy returns what a policy hides of the fleet as it is.
func (r *Router) HiddenBy(p *policy.Policy) []strict.Fault {
	return p.Hidden(slices.Sorted(maps.Keys(r.o.Fleet.Snapshot().Pools)))
}

// Registered returns what the policy in force hides of a head that registered,
// and logs it when the head is new.
func (r *Router) Registered(id string, models []string, created bool) []strict.Fault {
	hidden := r.policy.Load().Hidden(models)
	if created {
		r.logHidden(hidden, slog.String("head", id))
	}
	return hidden
}

func (r *Router) logHidden(hidden []strict.Fault, attrs ...any) {
	for _, f := range hidden {
		r.o.Log.Warn("an alias of the policy hides a model type", append(attrs, slog.String("alias", f.Pointer), slog.String("reason", f.Reason))...)
	}
}
