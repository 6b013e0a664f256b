// Package api has the types of Headway's HTTP interface, its error codes and
// its description. It imports nothing but the standard library, so that a
// client costs nothing.
//
// Times are RFC 3339 in UTC, durations stand in fields that end in _ms or
// _seconds. A pointer or an omitted field is a value that is not known.
package api

import (
	_ "embed"
	"time"
)

// OpenAPI is the description of the whole interface, OpenAPI 3.1 in YAML.
//
//go:embed openapi.yaml
var OpenAPI []byte

// Capacity is a head's limit on concurrent requests.
type Capacity struct {
	MaxInFlight int64 `json:"max_in_flight,omitzero"` // requests, 1 to 1,000,000; left out: not known
}

// Load is the load that a head reports. An omitted field is unknown, not 0.
type Load struct {
	InFlight            *int64   `json:"in_flight,omitempty"`             // requests being worked on
	Queued              *int64   `json:"queued,omitempty"`                // requests waiting
	PendingPromptTokens *int64   `json:"pending_prompt_tokens,omitempty"` // accepted and not yet computed
	KVCacheUsage        *float64 `json:"kv_cache_usage,omitempty"`        // 0 to 1
	KVCapacityTokens    *int64   `json:"kv_capacity_tokens,omitempty"`
	Utilization         *float64 `json:"utilization,omitempty"` // 0 to 1
	TokensPerSecond     *float64 `json:"tokens_per_second,omitempty"`
}

// Registration is the body of POST /api/v1/heads.
type Registration struct {
	ID         string            `json:"id"`
	Endpoint   string            `json:"endpoint"` // http://host:port
	ModelTypes []string          `json:"model_types,omitempty"`
	ModelType  string            `json:"model_type,omitempty"` // instead of a list of one
	Region     string            `json:"region"`
	Zone       string            `json:"zone,omitempty"`
	Version    string            `json:"version,omitempty"`
	Engine     string            `json:"engine,omitempty"`
	Weight     *float64          `json:"weight,omitempty"` // 0.001 to 1000, default 1
	Capacity   *Capacity         `json:"capacity,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Status     string            `json:"status,omitempty"`   // the first status report
	Load       *Load             `json:"load,omitempty"`     // beside Status
	TakeOver   bool              `json:"take_over,omitzero"` // though another endpoint holds the lease
}

// Lease is what each registration and report is answered with.
type Lease struct {
	Epoch                    uint64    `json:"epoch"`
	TTLSeconds               float64   `json:"ttl_seconds"`
	HeartbeatIntervalSeconds float64   `json:"heartbeat_interval_seconds"`
	ExpiresAt                time.Time `json:"expires_at"`
}

// RegistrationAnswer is the answer to a registration.
type RegistrationAnswer struct {
	Head     Head     `json:"head"`
	Lease    Lease    `json:"lease"`
	Warnings []string `json:"warnings,omitempty"` // what keeps requests from the head for all that it does right
}

// StatusReport is the body of PUT /api/v1/heads/{id}/status.
type StatusReport struct {
	Epoch    uint64 `json:"epoch"`
	Status   string `json:"status"` // active, degraded, draining or offline
	Load     *Load  `json:"load,omitempty"`
	Sequence uint64 `json:"sequence,omitzero"` // grows with each report of an epoch
}

// StatusAnswer is the answer to a status report.
type StatusAnswer struct {
	Lease Lease `json:"lease"`
}

// HeadPatch is the body of PATCH /api/v1/heads/{id}: the operator's settings.
type HeadPatch struct {
	AdminState *string            `json:"admin_state,omitempty"` // enabled, draining or maintenance
	Weight     *float64           `json:"weight,omitempty"`      // 0, or null, gives the head's own weight back
	Labels     *map[string]string `json:"labels,omitempty"`      // laid over the head's own; {}, or null, takes them away
}

// Head is one head as the router sees it.
type Head struct {
	ID           string            `json:"id"`
	Endpoint     string            `json:"endpoint"`
	ModelTypes   []string          `json:"model_types"`
	Region       string            `json:"region"`
	Zone         string            `json:"zone,omitempty"`
	Version      string            `json:"version,omitempty"`
	Engine       string            `json:"engine,omitempty"`
	Weight       float64           `json:"weight"`
	Capacity     *Capacity         `json:"capacity,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	Epoch        uint64            `json:"epoch"`
	Status       string            `json:"status"`      // as reported; unknown before the first report
	AdminState   string            `json:"admin_state"` // as the operator set it
	Routable     bool              `json:"routable"`    // takes new requests
	Health       Health            `json:"health"`
	Load         *ReportedLoad     `json:"load,omitempty"`
	InFlight     int64             `json:"in_flight"` // decisions there that have not ended
	Lease        Lease             `json:"lease"`
	RegisteredAt time.Time         `json:"registered_at"`
	UpdatedAt    time.Time         `json:"updated_at"` // of what is stored, not of the load
	// LearnedSpeed is how fast the head computes prompts, by model type: 1 as fast as the
	// heads of the model type do in the mean. Without what is not known yet, and in
	// lists.
	LearnedSpeed map[string]float64 `json:"learned_speed,omitempty"`
}

// Health is the router's view of a head: its lease, and as ejected or failing
// its failed requests.
type Health struct {
	State  string     `json:"state"` // pending, fresh, suspect, stale, held, assumed, ejected, failing or paused
	Reason string     `json:"reason,omitempty"`
	Until  *time.Time `json:"until,omitempty"` // when it changes if nothing happens
}

// ReportedLoad is a head's last report and how old it is.
type ReportedLoad struct {
	Load
	AgeMs float64 `json:"age_ms"`
}

// DecisionRequest is the body of POST /api/v1/decisions.
type DecisionRequest struct {
	ModelType        string            `json:"model_type"`
	Region           string            `json:"region,omitempty"`
	RegionMode       string            `json:"region_mode,omitempty"` // prefer or require
	Strategy         string            `json:"strategy,omitempty"`
	SessionKey       string            `json:"session_key,omitempty"`
	SessionID        string            `json:"session_id,omitempty"`         // the conversation that the request continues; session_key where that is empty
	Turn             int64             `json:"turn,omitzero"`                // of the conversation
	ExpectedReturnMs *float64          `json:"expected_return_ms,omitempty"` // until its next request is expected
	Prompt           string            `json:"prompt,omitempty"`             // is hashed and forgotten; client.HashText does that before it is sent
	PrefixHashes     []string          `json:"prefix_hashes,omitempty"`      // 1 to 16 hexadecimal digits each
	InputTokens      *int64            `json:"input_tokens,omitempty"`
	TTLSeconds       int64             `json:"ttl_seconds,omitzero"` // of the reservation; 0: as configured
	Exclude          []string          `json:"exclude,omitempty"`
	Labels           map[string]string `json:"labels,omitempty"`
	Explain          bool              `json:"explain,omitzero"`
}

// DecisionHead is the head that a decision names.
type DecisionHead struct {
	ID       string `json:"id"`
	Endpoint string `json:"endpoint"`
	Region   string `json:"region"`
}

// Decision is the answer to a DecisionRequest.
type Decision struct {
	DecisionID     string         `json:"decision_id"`
	ModelType      string         `json:"model_type"` // to ask the head for: aliases are resolved
	Head           DecisionHead   `json:"head"`
	Strategy       string         `json:"strategy"`
	Reason         string         `json:"reason"`
	Alternatives   []DecisionHead `json:"alternatives"` // to try next, best first
	ExpiresAt      time.Time      `json:"expires_at"`   // of the reservation
	PolicyRevision uint64         `json:"policy_revision"`
	Fallback       *Fallback      `json:"fallback,omitempty"` // what it stands in for
	Explanation    *Explanation   `json:"explanation,omitempty"`
}

// Fallback is what was asked for and had no head, so that the policy's fallbacks
// chose another model type or region.
type Fallback struct {
	ModelType string `json:"model_type"` // after aliases
	Region    string `json:"region,omitempty"`
	Reason    string `json:"reason"` // a failure of RecentDecision, or tried
}

// Explanation is the basis of a decision.
type Explanation struct {
	PolicyRevision     uint64      `json:"policy_revision"`
	SnapshotRevision   uint64      `json:"snapshot_revision"`
	Rule               string      `json:"rule"` // where the strategy comes from: default_strategy, a JSON Pointer to a rule, or request
	Strategy           string      `json:"strategy"`
	Delegate           string      `json:"delegate,omitempty"` // the strategy that it hands this model type to
	Formula            string      `json:"formula"`
	Region             string      `json:"region,omitempty"`
	RegionMode         string      `json:"region_mode"`
	InputTokens        int64       `json:"input_tokens,omitzero"`         // of the prompt, as the request said or as was assumed; left out where there was no head
	InputTokensAssumed bool        `json:"input_tokens_assumed,omitzero"` // the request did not say how long its prompt is: as is usual
	CacheHit           bool        `json:"cache_hit"`
	Candidates         []Candidate `json:"candidates"`
	Omitted            int         `json:"omitted,omitzero"` // candidates left out of a long list
}

// Candidate is one head in an explanation.
type Candidate struct {
	Head        string   `json:"head"`
	Region      string   `json:"region"`
	DistanceMs  *float64 `json:"distance_ms,omitempty"`
	Filter      string   `json:"filter,omitempty"`       // what removed it
	Cost        *float64 `json:"cost,omitempty"`         // lower is better
	PredictedMs *float64 `json:"predicted_ms,omitempty"` // time to the first token; left out: too little is known
	Chosen      bool     `json:"chosen"`
	Signals     []Signal `json:"signals"`
	Terms       []Term   `json:"terms,omitempty"` // that the cost is made of
}

// Term is a part of the cost by which a strategy compares heads.
type Term struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit,omitempty"`
}

// Signal is one known number of a head.
type Signal struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	AgeMs float64 `json:"age_ms"` // 0: the router counts it itself
	Used  bool    `json:"used"`   // the cost, or what removed the head, comes of it
}

// Progress is the body of POST /api/v1/decisions/{id}/progress.
type Progress struct {
	Event string `json:"event"` // first_token
}

// Outcome is the body of POST /api/v1/decisions/{id}/outcome.
type Outcome struct {
	Result       string   `json:"result"` // ok, error or cancelled
	StatusCode   *int64   `json:"status_code,omitempty"`
	TTFTMs       *float64 `json:"ttft_ms,omitempty"`
	DurationMs   *float64 `json:"duration_ms,omitempty"`
	InputTokens  *int64   `json:"input_tokens,omitempty"`
	OutputTokens *int64   `json:"output_tokens,omitempty"`
	CachedTokens *int64   `json:"cached_tokens,omitempty"`
}

// RecordedOutcome is how a decision ended; result may also be expired or
// evicted.
type RecordedOutcome struct {
	Outcome
	TokensEstimated bool     `json:"tokens_estimated,omitzero"` // input_tokens or output_tokens is no count of the head's
	QueuedMs        *float64 `json:"queued_ms,omitempty"`       // as of the decision
	HedgeRefused    bool     `json:"hedge_refused,omitzero"`    // a hedge was due, and as many requests are hedged as may be
	// What the client of the data plane saw, from when its request was received:
	// reading it, the queue, attempts before and heads beside are a part of it.
	ClientTTFTMs     *float64   `json:"client_ttft_ms,omitempty"`
	ClientDurationMs *float64   `json:"client_duration_ms,omitempty"`
	Fault            string     `json:"fault,omitempty"` // a reason of headway_proxy_call_failures_total
	At               *time.Time `json:"at,omitempty"`
}

// RecentDecision is a past decision. Without a head it has the strategy none
// and a failure.
type RecentDecision struct {
	Decision
	Head         DecisionHead     `json:"head,omitzero"`
	ExpiresAt    time.Time        `json:"expires_at,omitzero"`
	Failure      string           `json:"failure,omitempty"`
	Region       string           `json:"region,omitempty"` // that the request named
	At           time.Time        `json:"at"`
	QueuedMs     *float64         `json:"queued_ms,omitempty"`            // that the request waited for a place until then
	Requested    string           `json:"requested_model_type,omitempty"` // that the request named, where it is not model_type
	RequestID    string           `json:"request_id,omitempty"`           // of a request of the data plane
	ReceivedAt   *time.Time       `json:"received_at,omitempty"`          // likewise
	FirstTokenAt *time.Time       `json:"first_token_at,omitempty"`
	Outcome      *RecordedOutcome `json:"outcome,omitempty"` // left out while it is open
}

// Strategy describes a strategy and its results.
type Strategy struct {
	Name       string              `json:"name"`
	Summary    string              `json:"summary"`
	Formula    string              `json:"formula"`
	Parameters []StrategyParameter `json:"parameters"`
	Results    StrategyResults     `json:"results"`

	Effectiveness StrategyEffectiveness `json:"effectiveness"`
}

// StrategyList is the answer of GET /api/v1/strategies.
type StrategyList struct {
	Data          []Strategy `json:"data"`
	NextCursor    string     `json:"next_cursor"`    // "": all of them are in one page
	WindowSeconds int64      `json:"window_seconds"` // of each effectiveness

	Shadow []StrategyShadow `json:"shadow"` // what the policy's shadow would have chosen within the window
}

// StrategyShadow compares a strategy that decided with another that was asked beside
// it.
type StrategyShadow struct {
	Strategy       string   `json:"strategy"`
	Shadow         string   `json:"shadow"`
	Decisions      int64    `json:"decisions"`        // for which it was asked
	Agreement      float64  `json:"agreement"`        // the part of those with the same head, 0 to 1
	RegretMs       *float64 `json:"regret_ms"`        // of the strategy that decided, the mean; nil: not known
	ShadowRegretMs *float64 `json:"shadow_regret_ms"` // that the other would have had
}

// StrategyEffectiveness is what placements of a strategy led to within a window,
// nil what is not known.
type StrategyEffectiveness struct {
	Decisions        int64    `json:"decisions"`         // that ended
	TTFTMs           *float64 `json:"ttft_ms"`           // the mean time to the first token
	RegretMs         *float64 `json:"regret_ms"`         // the mean time that the best head would have been sooner, by what was expected
	RegretReliable   bool     `json:"regret_reliable"`   // what was expected is near enough to what was observed
	CalibrationError *float64 `json:"calibration_error"` // Σ |expected − observed| / Σ observed, of the time to the first token
	CalibrationBias  *float64 `json:"calibration_bias"`  // Σ (expected − observed) / Σ observed
	Predictions      int64    `json:"predictions"`       // decisions with a time to the first token and one that was expected
	PrefixPromised   *int64   `json:"prefix_promised"`   // tokens of prompts that heads were expected to have cached
	PrefixDelivered  *int64   `json:"prefix_delivered"`  // tokens that they had, promised or not
	PrefixKept       *int64   `json:"prefix_kept"`       // tokens of those promised that they had
	Imbalance        *float64 `json:"imbalance"`         // the part of the requests in flight above an even share of the heads, 0 to 1
	ObjectiveMet     int64    `json:"objective_met"`     // decisions whose first token came in time
	ObjectiveMissed  int64    `json:"objective_missed"`  // decisions whose first token came late, or whose head failed
	Refused          int64    `json:"refused"`           // requests that it refused with 429, which are none of the decisions
}

// StrategyParameter describes one parameter of a strategy.
type StrategyParameter struct {
	Name    string   `json:"name"`
	Type    string   `json:"type"` // number, string or array
	Default any      `json:"default,omitempty"`
	Minimum *float64 `json:"minimum,omitempty"`
	Maximum *float64 `json:"maximum,omitempty"`
	Unit    string   `json:"unit,omitempty"`
	Summary string   `json:"summary"`
}

// StrategyResults are a strategy's results since the start of the process.
type StrategyResults struct {
	Decisions  uint64   `json:"decisions"`
	OK         uint64   `json:"ok"`
	Errors     uint64   `json:"errors"`
	Cancelled  uint64   `json:"cancelled"`
	Expired    uint64   `json:"expired"`
	Refused    uint64   `json:"refused"` // requests that it refused with 429, which are none of the decisions
	MeanTTFTMs *float64 `json:"mean_ttft_ms,omitempty"`
}

// List is one page of a list.
type List[T any] struct {
	Data       []T    `json:"data"`
	NextCursor string `json:"next_cursor"` // "" on the last page
}

// Index is the answer of GET / to clients other than browsers.
type Index struct {
	Name    string  `json:"name"` // headway
	Version string  `json:"version"`
	OpenAPI string  `json:"openapi"`           // URL of the description of the interface, relative to this one
	Console string  `json:"console,omitempty"` // URL of the console, relative to this one; empty: there is none
	Routes  []Route `json:"routes"`
}

// Route is a method and the pattern of a path.
type Route struct {
	Method string `json:"method"`
	Path   string `json:"path"`
}

// Readiness is the body of the probes.
type Readiness struct {
	Status string  `json:"status"` // ok or unavailable
	Checks []Check `json:"checks"`
}

// Check is one condition of readiness.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// StateReport is the answer of GET /api/v1/state/check.
type StateReport struct {
	Sound   bool          `json:"sound"`
	Buckets []StateBucket `json:"buckets"`
	Faults  []string      `json:"faults"` // up to 100
}

// StateBucket counts the records of one kind.
type StateBucket struct {
	Name    string `json:"name"`
	Records int    `json:"records"`
}

// Problem is the body of every error (RFC 9457).
type Problem struct {
	Type      string  `json:"type"`
	Title     string  `json:"title"`
	Status    int     `json:"status"`
	Detail    string  `json:"detail,omitempty"`
	Instance  string  `json:"instance"`
	Code      string  `json:"code"`
	RequestID string  `json:"request_id"`
	Errors    []Fault `json:"errors,omitempty"`

	// Only with no_eligible_head and objective_unreachable.
	Reason      string         `json:"reason,omitempty"`  // what stood in the way last: no_heads, region, unknown_region, unroutable, labels, excluded, at_capacity, pool_full or objective_unreachable
	Removed     map[string]int `json:"removed,omitempty"` // heads by the filter that removed them
	Explanation *Explanation   `json:"explanation,omitempty"`
}

// Fault is one fault of a request: a JSON Pointer into the body, or the name of
// a parameter, and the reason.
type Fault struct {
	Pointer   string `json:"pointer,omitempty"`
	Parameter string `json:"parameter,omitempty"`
	Reason    string `json:"reason"`
}

// The codes of problems.
const (
	CodeInvalidJSON         = "invalid_json"
	CodeInvalid             = "invalid_request"
	CodeMalformed           = "malformed_request"
	CodeTooLarge            = "body_too_large"
	CodeUnsupportedMedia    = "unsupported_media_type"
	CodeNotFound            = "not_found"
	CodeMethodNotAllowed    = "method_not_allowed"
	CodeHeadNotFound        = "head_not_found"
	CodeStaleEpoch          = "stale_epoch"
	CodeNotEjected          = "not_ejected"
	CodeTooFewRequests      = "too_few_requests"
	CodeHeadContested       = "head_contested"
	CodeFleetFull           = "fleet_full"
	CodeOverloaded          = "overloaded"
	CodeStateUnavailable    = "state_unavailable"
	CodeConflict            = "conflict"
	CodeUnknownModelType    = "unknown_model_type"
	CodeNoEligibleHead      = "no_eligible_head"
	CodeObjective           = "objective_unreachable"
	CodeOverrideNotAllowed  = "override_not_allowed"
	CodeDecisionNotFound    = "decision_not_found"
	CodePreconditionMissing = "precondition_required"
	CodePreconditionFailed  = "precondition_failed"
	CodeRevisionNotFound    = "revision_not_found"
	CodeUnauthenticated     = "unauthenticated"
	CodeIssuerUnavailable   = "issuer_unavailable"
	CodeForbidden           = "forbidden"
	CodeRateLimited         = "rate_limited"
	CodeKeyInURL            = "key_in_url"
	CodeKeyNotFound         = "key_not_found"
	CodeLastAdmin           = "last_admin"
	CodeAuditUnavailable    = "audit_unavailable"
	CodeForeignHost         = "foreign_host"
	CodeCrossOrigin         = "cross_origin"
	CodeRequestTimeout      = "request_timeout"
	CodeUpgradeRequired     = "upgrade_required"
	CodeQueueUnavailable    = "queue_unavailable"
	CodeLetterNotFound      = "dead_letter_not_found"
	CodeTimeout             = "timeout"
	CodeClientGone          = "client_gone" // never sent; it is what the log calls it
	CodeInternal            = "internal"
)
