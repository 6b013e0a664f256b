package routing

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"headway/internal/strict"
)

// Failure is why a decision found no head: the value of the reason label of
// headway_decision_failures_total.
type Failure uint8

// The failures; the zero value is none.
const (
	FailUnknownModel  Failure = iota + 1 // neither a head nor the policy names it
	FailNoHeads                          // the policy names it, or a head served it not long ago, and none serves it
	FailRegion                           // require, and the region has no routable head
	FailUnroutable                       // every head is drained, unhealthy or offline
	FailLabels                           // no routable head has the labels
	FailExcluded                         // the caller excluded every candidate
	FailAtCapacity                       // every candidate is at its max_in_flight
	FailPoolFull                         // as many requests of the model type are under way as the policy's pools allow
	FailPaused                           // every candidate that has a place asked for a pause
	FailQueueFull                        // none has a place, and as many requests wait for one as may
	FailQueueTimeout                     // the request waited for a place as long as it may
	FailObjective                        // no candidate that has a place is likely to begin to answer within the objective of the request
	FailUnknownRegion                    // FailRegion of a decision, if neither a head nor the policy knows the region
	FailTried                            // each candidate was tried before; of Router.Again, not counted
)

var failureNames = [...]string{
	"", "unknown_model_type", "no_heads", "region", "unroutable", "labels", "excluded", "at_capacity",
	"pool_full", "paused", "queue_full", "queue_timeout", "objective_unreachable", "unknown_region", "tried",
}

func (f Failure) String() string { return failureNames[f] }

// FailureReasons lists the reasons of headway_decision_failures_total.
func FailureReasons() []string { return failureNames[FailUnknownModel:FailTried] }

// NoHeadError says that a decision found no head.
type NoHeadError struct {
	Failure     Failure
	ModelType   string
	Nearest     string // of an unknown model type: the known one that was probably meant, or ""
	Region      string
	Counts      map[string]int // heads by the filter that removed them
	RetryAfter  time.Duration
	Explanation *Explanation  // when the request asked for one
	Decision    *Decision     // that is kept of it; nil: of Again none is
	Required    bool          // no other region than that was looked in
	Stray       bool          // neither a head nor the policy knows the region
	Soonest     time.Duration // of FailObjective: the least predicted time to the first token
	Objective   time.Duration // of FailObjective: the longest that is worth a place
	Known       string        // sentences on the regions that there are, for callers that may know them; "": none

	// Busy says that a head of the model type, or of one of its fallbacks, may take
	// the request and only lacks a place: one may come free.
	Busy bool
	// Paused is when the first of those heads takes requests again, if each that has
	// room asked for a pause and the request respects that; zero: none did.
	Paused time.Time
}

// sentences say what a failure means, by the model type and where it was looked for.
var sentences = map[Failure]string{
	FailUnknownModel: "Neither a registered head nor the policy names %s.",
	FailNoHeads:      "No registered head serves %s.",
	FailRegion:       "No head of %s is%s, and the request is for no other region.",
	FailUnroutable:   "Each head of %s%s that the request may go to is drained, offline or silent, or has not reported yet.",
	FailLabels:       "No head of %s%s that takes requests has the labels.",
	FailExcluded:     "The request excludes every head of %s%s that could take it.",
	FailAtCapacity:   "Every head of %s%s that could take the request is at its max_in_flight.",
	FailPoolFull:     "As many requests of %s are under way as the policy's pools allow.",
	FailPaused:       "Every head of %s%s that could take the request asked for a pause.",
	FailTried:        "Every head of %s%s that could take the request was tried.",
}

// Reason is the failure that the decision has.
func (e *NoHeadError) Reason() Failure {
	if e.Stray {
		return FailUnknownRegion
	}
	return e.Failure
}

// Sentence is for people. It calls the model type what the request does.
func (e *NoHeadError) Sentence(model string) string {
	where := ""
	if e.Required {
		where = " in the region " + strict.Clip(e.Region)
	}
	if e.Stray {
		return "No head at all is" + where + ", and the request is for no other region."
	}
	if e.Failure == FailObjective {
		return fmt.Sprintf("No head of %s%s is likely to begin to answer within the objective of %.3g s: the soonest would after %.3g s.",
			model, where, e.Objective.Seconds(), e.Soonest.Seconds())
	}
	if strings.Count(sentences[e.Failure], "%s") == 1 {
		return fmt.Sprintf(sentences[e.Failure], model)
	}
	return fmt.Sprintf(sentences[e.Failure], model, where)
}

func (e *NoHeadError) Error() string {
	where := ""
	if e.Region != "" {
		where = " in region " + e.Region
	}
	return fmt.Sprintf("no head for model type %q%s: %s", e.ModelType, where, e.Failure)
}

// Errors of Router that callers tell apart. Refused input is a
// *strict.InvalidError.
var (
	// ErrDecisionNotFound says that no decision with the id is among the
	// recent ones.
	ErrDecisionNotFound = errors.New("no recent decision has this id")
	// ErrDecisionEnded says that a decision has ended, so that no other head is
	// tried for it.
	ErrDecisionEnded = errors.New("the decision has ended")
)

// OverrideError names the field of a request that the policy reserves to
// itself.
type OverrideError struct{ Field string }

func (e *OverrideError) Error() string {
	return e.Field + ": the policy does not let callers choose this"
}
