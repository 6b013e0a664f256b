package policy

import (
	"context"
	"errors"
	"time"

	"headway/internal/feed"
)

// Store keeps policy documents durably. Implementations are safe for
// concurrent use; what they return is the caller's to keep. An error that
// wraps fleet.ErrStoreUnavailable says that nothing was written and that it
// may work later.
type Store interface {
	// Policy returns the current document, or ErrNone when none was ever
	// stored.
	Policy(ctx context.Context) (Stored, error)
	// SavePolicy stores p as the next revision if expect is the current one
	// (0: none yet), else it fails with ErrConflict. It is durable on
	// return. p.Revision is ignored. At least the last 50 revisions are kept.
	SavePolicy(ctx context.Context, expect uint64, p Stored) (revision uint64, err error)
	// PolicyRevisions returns the kept revisions, newest first, at most limit.
	PolicyRevisions(ctx context.Context, limit int) ([]Stored, error)
	// WatchPolicy returns what was saved after a revision, as fleet.Store's Watch
	// does; the whole is the newest document alone.
	WatchPolicy(ctx context.Context, after uint64) (feed.Changes[Stored], error)
}

// Stored is one revision of the policy document.
type Stored struct {
	Revision uint64    `json:"revision"`
	Document []byte    `json:"document"` // JSON
	Source   string    `json:"source"`   // default, file, api or restore
	SavedAt  time.Time `json:"saved_at"`
	Author   string    `json:"author,omitempty"`
	Note     string    `json:"note,omitempty"`
}

// Errors of a Store.
var (
	ErrNone     = errors.New("no policy is stored")
	ErrConflict = errors.New("the policy has another revision")
)

// The sources of policies.
const (
	SourceDefault = "default" // the binary
	SourceFile    = "file"
	SourceAPI     = "api"
	SourceRestore = "restore" // an earlier revision
)

// ErrNoRevision says that a revision of the policy is not kept any more, or
// never was.
var ErrNoRevision = errors.New("no such revision of the policy is kept")
