package api

import (
	"encoding/json"
	"time"
)

// KeyRequest is the body of POST /api/v1/keys. No caller can make a key with
// more rights than its own.
type KeyRequest struct {
	Name             string   `json:"name"`                         // for people: 1 to 100 characters
	Role             string   `json:"role"`                         // viewer, operator, admin, head or client
	Scopes           []string `json:"scopes,omitempty"`             // of what the role may do: read, operate, decide, head, admin; left out: all of it
	Heads            []string `json:"heads,omitempty"`              // of role head: the ids that it may register, * stands for any characters; required there
	Regions          []string `json:"regions,omitempty"`            // of role head: the regions that it may register in; left out: any
	ExpiresInSeconds *int64   `json:"expires_in_seconds,omitempty"` // 60 to 315,360,000; left out: never
	KeyLimits
}

// KeyLimits are what a key may use of the data plane, /v1.
type KeyLimits struct {
	RequestsPerMinute int64 `json:"requests_per_minute,omitzero"` // 0: as admission.requests_per_minute says, -1: no limit
	TokensPerMinute   int64 `json:"tokens_per_minute,omitzero"`   // of prompts and answers; 0: as admission.tokens_per_minute says, -1: no limit
	Weight            int64 `json:"weight,omitzero"`              // 1 to 1000: its share of the places where requests wait; 0: 1
}

// KeyPatch is the body of PATCH /api/v1/keys/{id}. What is left out stays.
type KeyPatch struct {
	RequestsPerMinute *int64 `json:"requests_per_minute,omitempty"`
	TokensPerMinute   *int64 `json:"tokens_per_minute,omitempty"`
	Weight            *int64 `json:"weight,omitempty"`
}

// Key is an API key without its secret, of which only a hash is stored.
type Key struct {
	ID      string   `json:"id"`
	Name    string   `json:"name"`
	Role    string   `json:"role"`
	Scopes  []string `json:"scopes,omitempty"`
	Heads   []string `json:"heads,omitempty"`
	Regions []string `json:"regions,omitempty"`
	KeyLimits
	CreatedAt  time.Time  `json:"created_at"`
	CreatedBy  string     `json:"created_by"`
	ExpiresAt  *time.Time `json:"expires_at,omitempty"`
	RevokedAt  *time.Time `json:"revoked_at,omitempty"`
	LastUsedAt *time.Time `json:"last_used_at,omitempty"` // since the start of the process, to the second
	Secret     string     `json:"secret,omitempty"`       // in the answer that makes the key, and never again
}

// Difference is one difference of two documents. A missing value is omitted.
type Difference struct {
	Pointer string          `json:"pointer"` // JSON Pointer
	Before  json.RawMessage `json:"before,omitempty"`
	After   json.RawMessage `json:"after,omitempty"`
}

// PolicyCheck is the answer to POST /api/v1/policy/validate, a dry run.
type PolicyCheck struct {
	Valid           bool          `json:"valid"`
	Errors          []Fault       `json:"errors"`             // every fault; empty when valid
	Warnings        []Fault       `json:"warnings,omitempty"` // what is allowed and probably not meant, also for the fleet as it is
	CurrentRevision uint64        `json:"current_revision"`
	Differences     []Difference  `json:"differences"`      // to the policy in force
	Replay          *PolicyReplay `json:"replay,omitempty"` // only when valid
}

// PolicyReplay lists the recent decisions that would differ. Each is repeated
// under both policies on the present fleet with the same random numbers;
// nothing is reserved. Session keys, labels and excluded heads are not kept, so
// they have no effect.
type PolicyReplay struct {
	Decisions int                `json:"decisions"` // replayed
	Moved     int                `json:"moved"`     // another head
	Failed    int                `json:"failed"`    // found a head under the old policy and none under the new one
	Unjudged  int                `json:"unjudged"`  // found a head by the strategy slo, which may refuse them: their prompts are not kept, so that the repetition cannot tell
	Examples  []ReplayedDecision `json:"examples"`  // up to 20 of those, newest first
}

// ReplayedDecision is one repeated decision.
type ReplayedDecision struct {
	DecisionID     string `json:"decision_id"`
	ModelType      string `json:"model_type"`
	Region         string `json:"region,omitempty"`
	HeadBefore     string `json:"head_before"`
	StrategyBefore string `json:"strategy_before"`
	HeadAfter      string `json:"head_after,omitempty"` // left out: none
	StrategyAfter  string `json:"strategy_after,omitempty"`
}

// PolicyRevision is one revision of the policy.
type PolicyRevision struct {
	Revision uint64          `json:"revision"`
	Source   string          `json:"source"` // default, file, api or restore
	Author   string          `json:"author,omitempty"`
	Note     string          `json:"note,omitempty"`
	SavedAt  time.Time       `json:"saved_at,omitzero"`
	Current  bool            `json:"current"`
	Document json.RawMessage `json:"document,omitempty"` // left out of lists
}

// AuditRecord is one record of the audit trail, a line of its file.
type AuditRecord struct {
	V         int             `json:"v"` // version of the format: 1
	Seq       uint64          `json:"seq"`
	Time      time.Time       `json:"time"`
	ID        string          `json:"id"`
	Node      string          `json:"node"`
	Stage     string          `json:"stage"`    // intent or result
	Category  string          `json:"category"` // admin, policy, head, routing_config, auth or audit
	Action    string          `json:"action"`
	Outcome   string          `json:"outcome,omitempty"` // success, failure, denied or unknown; not of an intent
	Reason    string          `json:"reason,omitempty"`
	Actor     AuditActor      `json:"actor"`
	Src       AuditSource     `json:"src"`
	Target    AuditTarget     `json:"target"`
	RequestID string          `json:"request_id,omitempty"`
	TraceID   string          `json:"trace_id,omitempty"`
	Before    json.RawMessage `json:"before,omitempty"`
	After     json.RawMessage `json:"after,omitempty"`
	Prev      string          `json:"prev"` // hash of the record before
	Hash      string          `json:"hash"` // SHA-256 of this line without it
}

// AuditActor is who did it.
type AuditActor struct {
	Type string `json:"type"` // key, jwt, certificate, local, anonymous or system
	ID   string `json:"id,omitempty"`
	Via  string `json:"via,omitempty"` // http, file, cli, nats or timer
}

// AuditSource is where it came from.
type AuditSource struct {
	IP        string `json:"ip,omitempty"`
	UserAgent string `json:"user_agent,omitempty"`
}

// AuditTarget is what it was done to.
type AuditTarget struct {
	Type      string `json:"type"` // head, policy, key, audit, config or route
	ID        string `json:"id,omitempty"`
	Region    string `json:"region,omitempty"`
	ModelType string `json:"model_type,omitempty"`
}
