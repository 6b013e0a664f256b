package routing

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"headway/internal/strict"
)

// Hidden returns a fault for each of the model types, which heads serve, that an
// alias of the policy hides: a request for it goes to another model type, and no
// request reaches those heads under this name.
func (p *Policy) Hidden(models []string) []strict.Fault {
	var hidden []strict.Fault
	for _, m := range models {
		if target, ok := p.Document.Aliases[m]; ok {
			hidden = append(hidden, strict.Fault{
				Pointer: root.member("aliases").member(m).pointer(),
				Reason:  fmt.Sprintf("heads serve %s under this name, and no request reaches them: requests for it go to %s; give the alias another name, or take it away", quote(m), quote(target)),
			})
		}
	}
	return hidden
}

// HiddenBy returns what a policy hides of the fleet as it is.
func (r *Router) HiddenBy(p *Policy) []strict.Fault {
	return p.Hidden(slices.Sorted(maps.Keys(r.fleet.Snapshot().Pools)))
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
		r.log.Warn("an alias of the policy hides a model type", append(attrs, slog.String("alias", f.Pointer), slog.String("reason", f.Reason))...)
	}
}
