package routing

import (
	"errors"
	"fmt"
	"time"
)

// Failure is why a decision found no head: the value of the reason label of
// headway_decision_failures_total.
type Failure string

// The failures.
const (
	FailUnknownModel Failure = "unknown_model_type" // neither a head nor the policy names it
	FailNoHeads      Failure = "no_heads"           // the policy names it, no head serves it
	FailRegion       Failure = "region"             // require, and the region has no routable head
	FailUnroutable   Failure = "unroutable"         // every head is drained, unhealthy or offline
	FailLabels       Failure = "labels"             // no routable head has the labels
	FailExcluded     Failure = "excluded"           // the caller excluded every candidate
	FailAtCapacity   Failure = "at_capacity"        // every candidate is at its max_in_flight
)

// failUnknownRegion is what the metric has for a FailRegion of a request that
// names a region which neither a head nor the policy knows.
const failUnknownRegion Failure = "unknown_region"

// FailureReasons lists the reasons of headway_decision_failures_total.
func FailureReasons() []Failure {
	return []Failure{
		FailUnknownModel, FailNoHeads, FailRegion, FailUnroutable,
		FailLabels, FailExcluded, FailAtCapacity, failUnknownRegion,
	}
}

// NoHeadError says that a decision found no head.
type NoHeadError struct {
	Failure     Failure
	ModelType   string
	Nearest     string // of an unknown model type: the known one that was probably meant, or ""
	Region      string
	Counts      map[string]int // heads by the filter that removed them
	RetryAfter  time.Duration
	Explanation *Explanation // when the request asked for one

	stray bool // nothing and nobody knows the region
}

func (e *NoHeadError) Error() string {
	where := ""
	if e.Region != "" {
		where = " in region " + e.Region
	}
	return fmt.Sprintf("no head for model type %q%s: %s", e.ModelType, where, e.Failure)
}

// Errors of Router that callers tell apart; refused input is a
// *strict.InvalidError.
var (
	// ErrDecisionNotFound says that no decision with the id is among the
	// recent ones.
	ErrDecisionNotFound = errors.New("no recent decision has this id")
	// ErrOverrideNotAllowed is wrapped by an *OverrideError.
	ErrOverrideNotAllowed = errors.New("the policy does not let callers choose this")
)

// OverrideError names the field of a request that the policy reserves to
// itself.
type OverrideError struct{ Field string }

func (e *OverrideError) Error() string {
	return fmt.Sprintf("%s: %v", e.Field, ErrOverrideNotAllowed)
}

func (e *OverrideError) Unwrap() error { return ErrOverrideNotAllowed }
