package policy

import (
	"fmt"

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
				Pointer: "/aliases/" + strict.Escape(m),
				Reason:  fmt.Sprintf("heads serve %s under this name, and no request reaches them: requests for it go to %s; give the alias another name, or take it away", strict.Quote(m), strict.Quote(target)),
			})
		}
	}
	return hidden
}
