package api

import (
	"encoding/json"
	"time"
)

// Event is one event, as sent over Server-Sent Events, WebSocket and NATS.
type Event struct {
	ID         string          `json:"id,omitempty"` // what to resume after
	Type       string          `json:"type"`         // as head.expired
	Time       time.Time       `json:"time"`
	Head       string          `json:"head,omitempty"`
	Region     string          `json:"region,omitempty"`
	ModelTypes []string        `json:"model_types,omitempty"`
	Data       json.RawMessage `json:"data,omitempty"` // by type; a RecentDecision of decision.*
}

// Snapshot is one part of the fleet's state when a subscription begins, or
// after lost events.
type Snapshot struct {
	Part           int    `json:"part"` // from 1 to Parts
	Parts          int    `json:"parts"`
	PolicyRevision uint64 `json:"policy_revision"`
	Heads          []Head `json:"heads"`
}

// Lost reports missing events. A snapshot follows, unless only decisions are
// missing.
type Lost struct {
	Count  uint64 `json:"count"`           // 0 if unknown
	Reason string `json:"reason"`          // slow, window or restart
	Types  string `json:"types,omitempty"` // decision.* if only those are missing
}

// Subscription selects events; omitted filters select all. decision.made and
// decision.ended must be named.
type Subscription struct {
	Types       []string `json:"types,omitempty"` // as head.expired, or head.*
	Head        string   `json:"head,omitempty"`
	ModelType   string   `json:"model_type,omitempty"`
	Region      string   `json:"region,omitempty"`
	LastEventID string   `json:"last_event_id,omitempty"` // what was seen last
}

// Envelope is one WebSocket message in either direction.
type Envelope struct {
	ID   json.RawMessage `json:"id,omitempty"` // a string or a number; the answer has the same
	Type string          `json:"type"`
	Data json.RawMessage `json:"data,omitempty"`
}

// AdminNotice sends a head on a WebSocket its admin state.
type AdminNotice struct {
	Head       string `json:"head"`
	AdminState string `json:"admin_state"` // enabled, draining or maintenance
}

// The types of WebSocket messages, of clients and of the service.
const (
	MessageAuth        = "auth"
	MessageSubscribe   = "subscribe"
	MessageUnsubscribe = "unsubscribe"
	MessageRegister    = "register"
	MessageStatus      = "status"
	MessageDeregister  = "deregister"
	MessageDecide      = "decide"
	MessageProgress    = "progress"
	MessageOutcome     = "outcome"
	MessagePing        = "ping"

	MessageAnswer   = "answer"
	MessageError    = "error"
	MessageSnapshot = "snapshot"
	MessageEvent    = "event"
	MessageLost     = "lost"
	MessageAdmin    = "admin"
	MessageBye      = "bye"
)

// DeadLetter is a command of the message queue that could not be applied.
type DeadLetter struct {
	Number     uint64    `json:"number"`
	Time       time.Time `json:"time"`
	Queue      string    `json:"queue"`
	Subject    string    `json:"subject"`
	Code       string    `json:"code"`
	Reason     string    `json:"reason"`
	Deliveries uint64    `json:"deliveries"`
	MessageID  string    `json:"message_id,omitempty"`
	Body       string    `json:"body"`  // the first 4096 bytes
	Bytes      int       `json:"bytes"` // of the whole body
}
