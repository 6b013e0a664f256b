// Package audit keeps the audit trail: an ordered, hash-chained file of JSON
// lines that is durable before the caller is answered.
package audit

import (
	"context"
	"encoding/json"
	"time"
)

// Stage is whether a record is an intent or a result.
type Stage string

// The stages.
const (
	Intent Stage = "intent"
	Result Stage = "result"
)

// Category groups actions.
type Category string

// The categories.
const (
	Admin         Category = "admin"
	Policy        Category = "policy"
	Head          Category = "head"
	RoutingConfig Category = "routing_config"
	Auth          Category = "auth"
	Trail         Category = "audit" // the trail's own life
)

// Outcome is how an operation ended.
type Outcome string

// The outcomes; an intent has none.
const (
	Success Outcome = "success"
	Failure Outcome = "failure"
	Denied  Outcome = "denied"
	Unknown Outcome = "unknown" // the process ended, or the store failed, in a way that leaves it open
)

// Actor is who did it.
type Actor struct {
	Type string `json:"type"`          // key, jwt, certificate, local, anonymous or system
	ID   string `json:"id,omitempty"`  // of the key, the subject, the certificate
	Via  string `json:"via,omitempty"` // http, file, cli, nats or timer
}

// Source is where it came from.
type Source struct {
	IP        string `json:"ip,omitempty"`
	UserAgent string `json:"user_agent,omitempty"`
}

// Target is what it was done to.
type Target struct {
	Type      string `json:"type"` // head, policy, key, audit, config or route
	ID        string `json:"id,omitempty"`
	Region    string `json:"region,omitempty"`
	ModelType string `json:"model_type,omitempty"`
}

// Entry is the caller's part of a record. Before and After hold allow-listed
// fields only, never bodies or secrets.
type Entry struct {
	Category  Category
	Action    string // noun.verb: head.register, policy.put, key.create
	Outcome   Outcome
	Reason    string
	Actor     Actor
	Source    Source
	Target    Target
	RequestID string
	TraceID   string
	Before    json.RawMessage // a JSON object, or nil
	After     json.RawMessage
}

// Record is one line of the trail, fields in the order of its keys. AppendLine
// (line.go) lists the fields too.
type Record struct {
	V         int             `json:"v"`
	Seq       uint64          `json:"seq"`  // 1, 2, 3 … over all files of a node
	Time      time.Time       `json:"time"` // UTC, ms
	ID        string          `json:"id"`   // unique over all nodes
	Node      string          `json:"node"`
	Stage     Stage           `json:"stage"`
	Category  Category        `json:"category"`
	Action    string          `json:"action"`
	Outcome   Outcome         `json:"outcome,omitempty"`
	Reason    string          `json:"reason,omitempty"`
	Actor     Actor           `json:"actor"`
	Src       Source          `json:"src"`
	Target    Target          `json:"target"`
	RequestID string          `json:"request_id,omitempty"`
	TraceID   string          `json:"trace_id,omitempty"`
	Before    json.RawMessage `json:"before,omitempty"`
	After     json.RawMessage `json:"after,omitempty"`
	Prev      string          `json:"prev"` // hex SHA-256: the hash of the record before, 64 zeros for the first
	Hash      string          `json:"hash"` // hex SHA-256 of this line without its hash member
}

// Identity is the actor of a context, and its source.
type Identity struct {
	Actor     Actor
	Source    Source
	RequestID string
	TraceID   string
}

type identityKey struct{}

// WithIdentity returns a context with the identity id.
func WithIdentity(ctx context.Context, id *Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, id)
}

// From returns the identity of ctx; without one, the system itself.
func From(ctx context.Context) Identity {
	if id, ok := ctx.Value(identityKey{}).(*Identity); ok {
		return *id
	}
	return Identity{Actor: Actor{Type: "system"}}
}

// By returns e with the identity of ctx.
func (e Entry) By(ctx context.Context) Entry {
	id := From(ctx)
	e.Actor, e.Source, e.RequestID, e.TraceID = id.Actor, id.Source, id.RequestID, id.TraceID
	return e
}

// Denied is the entry of a refused attempt at a route.
func (id *Identity) Denied(action, route, reason string) Entry {
	return Entry{
		Category: Auth, Action: action, Outcome: Denied, Reason: reason,
		Actor: id.Actor, Source: id.Source, RequestID: id.RequestID, Target: Target{Type: "route", ID: route},
	}
}

// Recorder records operations and events: a *Journal in its trail, Unrecorded
// nowhere. Implementations are safe for concurrent use.
type Recorder interface {
	// Begin records the intent of an operation durably. After an error, which
	// wraps ErrUnavailable, the operation must not happen. end is called once,
	// when it has ended, and does not fail: a record that cannot be written is
	// queued.
	Begin(ctx context.Context, e Entry) (end EndFunc, err error)
	// Note records an event without waiting.
	Note(e Entry)
	// Happened records an event that cannot be refused. It returns when the
	// record is durable or queued, within a second.
	Happened(e Entry)
}

// EndFunc records how an operation ended.
type EndFunc func(outcome Outcome, reason string, after json.RawMessage)

// Do records an operation before and after do: its intent by the identity of
// ctx, and its outcome by the error. The error is that of the record or of do.
func Do(ctx context.Context, to Recorder, e Entry, do func() error) error {
	end, err := to.Begin(ctx, e.By(ctx))
	if err != nil {
		return err
	}
	if err := do(); err != nil {
		end(Failure, err.Error(), nil)
		return err
	}
	end(Success, "", nil)
	return nil
}

// Unrecorded is a Recorder without a trail, for simulations.
type Unrecorded struct{}

// Begin implements Recorder.
func (Unrecorded) Begin(context.Context, Entry) (EndFunc, error) {
	return func(Outcome, string, json.RawMessage) {}, nil
}

// Note implements Recorder.
func (Unrecorded) Note(Entry) {}

// Happened implements Recorder.
func (Unrecorded) Happened(Entry) {}
