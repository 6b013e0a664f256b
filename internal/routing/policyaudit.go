package routing

import (
	"cmp"
	"context"
	"fmt"

	"github.com/go-json-experiment/json"

	"headway/internal/audit"
	"headway/internal/policy"
)

// maxAudited is how many of the differences of a policy an audit record names.
const maxAudited = 50

// announce records that the policy is to change, and where.
func (r *Router) announce(ctx context.Context, current, next *policy.Policy, change *Change) (audit.EndFunc, error) {
	differences, err := policy.Differences(current, next)
	if err != nil {
		return nil, err
	}
	pointers := make([]string, 0, min(len(differences), maxAudited))
	for _, d := range differences[:min(len(differences), maxAudited)] {
		pointers = append(pointers, d.Pointer)
	}
	after, err := json.Marshal(struct {
		Source  string   `json:"source"`
		Note    string   `json:"note,omitempty"`
		Changed []string `json:"changed"`
		Count   int      `json:"changed_count"`
	}{change.Source, change.Note, pointers, len(differences)})
	if err != nil {
		return nil, err
	}
	return r.o.Audit.Begin(ctx, audit.Entry{
		Category: audit.Policy, Action: cmp.Or(change.Action, "policy.put"), Target: audit.Target{Type: "policy"},
		Before: revisionFields(current.Revision), After: after,
	}.By(ctx))
}

func revisionFields(revision uint64) []byte {
	return fmt.Appendf(nil, `{"revision":%d}`, revision)
}
