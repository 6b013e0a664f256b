package routing

import (
	"context"
	"errors"
	"time"
)

// PolicyStore keeps policy documents durably. Implementations are safe for
// concurrent use; what they return is the caller's to keep. An error that
// wraps fleet.ErrStoreUnavailable says that nothing was written and that it
// may work later.
type PolicyStore interface {
	// Policy returns the current document, or ErrNoPolicy when none was ever
	// stored.
	Policy(ctx context.Context) (StoredPolicy, error)
	// SavePolicy stores p as the next revision if expect is the current one
	// (0: none yet), else it fails with ErrPolicyConflict. It is durable on
	// return. p.Revision is ignored. At least the last 50 revisions are kept.
	SavePolicy(ctx context.Context, expect uint64, p StoredPolicy) (revision uint64, err error)
	// PolicyRevisions returns the kept revisions, newest first, at most limit.
	PolicyRevisions(ctx context.Context, limit int) ([]StoredPolicy, error)
}

// StoredPolicy is one revision of the policy document.
type StoredPolicy struct {
	Revision uint64    `json:"revision"`
	Document []byte    `json:"document"` // JSON
	Source   string    `json:"source"`   // default, file, api or restore
	SavedAt  time.Time `json:"saved_at"`
	Author   string    `json:"author,omitempty"`
	Note     string    `json:"note,omitempty"`
}

// Errors of a PolicyStore.
var (
	ErrNoPolicy       = errors.New("no policy is stored")
	ErrPolicyConflict = errors.New("the policy has another revision")
)
