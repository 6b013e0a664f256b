package strategy

import (
	"time"

	"headway/internal/fleet"
)

// Memory is what is known of heads besides their reports, such as which one served
// a session. It is bounded and a hint: it may be lost at any time. All methods are
// safe for concurrent use, never block and allocate nothing. Of their arguments
// they keep heads alone.
type Memory interface {
	// Recall writes what is known of the request and the heads of in's tier into
	// in.Recalled. A strategy calls it before it chooses.
	Recall(in *Input)
	// Placed is called once for each request that was placed at a head.
	Placed(in *Input, h *fleet.Head)
	// FirstToken is called once for each request whose first token was reported,
	// with the time since it was placed.
	FirstToken(h *fleet.Head, after time.Duration)
	// Ended is called once for each request whose outcome was reported.
	Ended(h *fleet.Head, how fleet.Ending, after time.Duration)
}

// Recalled is what a Memory knows for a decision.
type Recalled struct {
	Asked bool        // a strategy wanted to know
	Found bool        // something was known, of this tier or of one before
	Head  *fleet.Head // of the tier, that served the request's session last; nil: none
}
