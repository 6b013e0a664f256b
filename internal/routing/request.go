package routing

import (
	"errors"
	"fmt"
	"time"
)

// RegionMode says what a request's region means.
type RegionMode uint8

// The region modes.
const (
	// RegionDefault leaves it to the policy.
	RegionDefault RegionMode = iota
	// RegionPrefer takes the nearest region that has an available head.
	RegionPrefer
	// RegionRequire takes heads of the region or none.
	RegionRequire
)

var regionModeNames = [...]string{"", "prefer", "require"}

func (m RegionMode) String() string { return regionModeNames[m] }

// ParseRegionMode reads prefer or require.
func ParseRegionMode(s string) (RegionMode, bool) {
	switch s {
	case "prefer":
		return RegionPrefer, true
	case "require":
		return RegionRequire, true
	}
	return RegionDefault, false
}

// Request is one question for a head. Decide keeps none of its memory, so a
// caller may reuse it.
type Request struct {
	ModelType    string
	Region       string // "": any
	RegionMode   RegionMode
	Strategy     string        // "": the policy's
	SessionKey   string        // "": none
	PrefixHashes []uint64      // chained hashes of the prompt's blocks
	InputTokens  int64         // 0: unknown
	TTL          time.Duration // of the reservation; 0: Options.ReservationTTL
	Exclude      []string      // ids of heads not to take
	Labels       map[string]string
	Explain      bool
}

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

// Failures lists every failure.
func Failures() []Failure {
	return []Failure{
		FailUnknownModel, FailNoHeads, FailRegion, FailUnroutable,
		FailLabels, FailExcluded, FailAtCapacity,
	}
}

// FailureReasons lists the reasons of headway_decision_failures_total.
func FailureReasons() []Failure { return append(Failures(), failUnknownRegion) }

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

// Explanation is what a decision saw, asked for by Request.Explain.
type Explanation struct {
	PolicyRevision   uint64
	SnapshotRevision uint64
	Rule             int // index into the policy's rules, -1: default_strategy
	Strategy         string
	Formula          string
	Delegate         string // the strategy that Strategy hands this model type to, "": none
	Region           string
	RegionMode       RegionMode
	Candidates       []Candidate
	Omitted          int // candidates left out because there were more than MaxExplained
	CacheHit         bool
}

// MaxExplained is the most candidates that an Explanation lists.
const MaxExplained = 256

// Candidate is one head as a decision saw it.
type Candidate struct {
	HeadID   string
	Region   string
	Distance float64 // ms, NaN: unknown
	Filter   string  // the filter that removed it, "" if none did
	Cost     float64 // lower is better; NaN: not compared
	Chosen   bool
	Signals  []Signal
}

// Signal is one number that is known of a head and how old it was.
type Signal struct {
	Name  string // in_flight, reported_in_flight, pending_prompt_tokens, kv_cache_usage, …
	Value float64
	Age   time.Duration // 0 for what the router itself counts
	Used  bool          // the cost, or the filter that removed the head, comes of it
}

// Result is how a request ended.
type Result uint8

// The results a caller can report; ResultExpired is what the router writes
// when the reservation's time ran out first, ResultEvicted when it had to make
// room for newer ones.
const (
	ResultNone Result = iota
	ResultOK
	ResultError
	ResultCancelled
	ResultExpired
	ResultEvicted
)

var resultNames = [...]string{"", "ok", "error", "cancelled", "expired", "evicted"}

func (r Result) String() string { return resultNames[r] }

// ParseResult reads ok, error or cancelled.
func ParseResult(s string) (Result, bool) {
	switch s {
	case "ok":
		return ResultOK, true
	case "error":
		return ResultError, true
	case "cancelled":
		return ResultCancelled, true
	}
	return ResultNone, false
}

// Outcome is what a caller reports of a request. Numbers that it left out are
// fleet.Unknown.
type Outcome struct {
	Result       Result
	StatusCode   int64
	TTFT         float64 // ms to the first token
	Duration     float64 // ms
	InputTokens  int64
	OutputTokens int64
	CachedTokens int64
	At           time.Time
}
