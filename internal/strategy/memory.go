package strategy

import (
	"time"

	"headway/internal/fleet"
)

// Memory is what is known of heads besides their reports: which one served a
// session, which blocks of prompts a head has cached, how fast it is. It is bounded
// and a hint: it may be lost at any time. All methods are safe for concurrent use
// and never block; Recall and Placed allocate nothing. Of their arguments they keep
// heads alone.
type Memory interface {
	// Recall writes what is known of the request and the heads of in's tier into
	// in.Recalled. A strategy calls it before it chooses.
	Recall(in *Input, what Recall)
	// Placed is called once for each request that was placed at a head, with its
	// work there.
	Placed(in *Input, h *fleet.Head, w fleet.Work)
	// FirstToken is called once for each request whose first token was reported,
	// with the time since it was placed. The work is none where the whole answer came
	// at once, so that the time is not that of the prompt alone.
	FirstToken(h *fleet.Head, modelType string, w fleet.Work, after time.Duration, at time.Time)
	// Ended is called once for each request whose outcome was reported.
	Ended(h *fleet.Head, modelType string, w fleet.Work, e End)
}

// End is how a request ended, as far as was reported.
type End struct {
	How           fleet.Ending
	Cached        int64         // tokens of its prompt that the head had cached, fleet.Unknown if it did not say
	First         time.Duration // from when it was placed until the first token; 0: FirstToken was called
	FirstReported bool          // First was reported with the outcome, not taken from the whole answer
	Took          time.Duration // from when it was placed until the end; 0: unknown
	At            time.Time
}

// Recall is what a strategy wants to know.
type Recall uint8

// What can be recalled.
const (
	RecallSession Recall = iota // which head served the session last
	RecallPrompt                // which heads have how much of the prompt, and how fast they are
)

// Recalled is what a Memory knows for a decision.
type Recalled struct {
	Asked bool        // a strategy wanted to know
	Found bool        // something was known, of this tier or of one before
	Head  *fleet.Head // of the tier, that served the request's session last; nil: none

	Prompt bool  // what heads have of the prompt is known
	Pace   *Pace // of the pool; nil: nothing is known
}
