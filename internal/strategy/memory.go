package strategy

import (
	"time"

	"headway/internal/fleet"
)

// Memory is what is known of heads besides their reports, such as who served a
// session. What it holds is bounded and a hint: it may be lost at any time, and
// what is recalled is of the candidates at hand. All methods are safe for
// concurrent use, never block and allocate nothing. They keep none of the memory
// of their arguments but heads.
type Memory interface {
	// Recall writes what is known of the request and of the heads of in's tier
	// into in.Recalled. A strategy that wants to know calls it before it chooses.
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
