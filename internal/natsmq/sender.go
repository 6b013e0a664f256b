package natsmq

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"

	"headway/internal/access"
)

// headerSender stores the sender and its rights with a command on the embedded
// server. Tokens and certificates are known by their connection only, and a
// command may outlive it.
const headerSender = "Headway-Sender"

type sentBy struct {
	Type    string              `json:"type"`
	ID      string              `json:"id,omitzero"`
	Name    string              `json:"name,omitzero"`
	Role    access.Role         `json:"role"`
	Scopes  []access.Permission `json:"scopes,omitempty"`
	Heads   []string            `json:"heads,omitempty"`
	Regions []string            `json:"regions,omitempty"`
}

// maxSender bounds the stored sender in bytes.
const maxSender = headroom - 4<<10

func senderHeader(p *access.Principal) (string, error) {
	text, err := json.Marshal(sentBy{p.Type, p.ID, p.Name, p.Role, p.Scopes, p.Heads, p.Regions})
	return string(text), err
}

// senderOfCommand returns the sender of a stored command, and refuses a revoked
// key. An expired credential was valid when the command was acknowledged, so
// the command is applied.
//
// Clients write the stream of an external server themselves, so only the
// subject counts there.
func (q *Queue) senderOfCommand(subject string, header nats.Header) (*access.Principal, error) {
	id := senderOf(subject)
	if q.server == nil || id == "" {
		return q.sender(subject)
	}
	text := header.Get(headerSender)
	if text == "" { // of an earlier version
		return q.holder(id)
	}
	var s sentBy
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return nil, access.ErrUnknown
	}
	if s.Type == "anonymous" {
		if p := q.o.Guard.Anonymous(); p != nil {
			return p, nil
		}
		return nil, access.ErrNoCredential
	}
	p := &access.Principal{Type: s.Type, ID: s.ID, Name: s.Name, Role: s.Role, Scopes: s.Scopes, Heads: s.Heads, Regions: s.Regions}
	return p, q.o.Guard.Ended(p)
}

// commandID identifies repetitions of a command. It includes sender and queue,
// so that no sender can shadow another's command. On a subject without a sender
// all share the ids, so it includes the body as well.
func commandID(subject, given string, body []byte) string {
	h := sha256.New()
	part := func(b []byte) {
		sum := sha256.Sum256(b)
		h.Write(sum[:])
	}
	part([]byte(queueOf(subject)))
	part([]byte(senderOf(subject)))
	part([]byte(given))
	if senderOf(subject) == "" {
		part(body)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// unnamed is the account of commands without a sender.
const unnamed = "unnamed"

// accountOf is the account that a command's room counts for.
func accountOf(header nats.Header) string {
	var s sentBy
	if json.Unmarshal([]byte(header.Get(headerSender)), &s) != nil {
		return unnamed
	}
	return account(&access.Principal{Type: s.Type, ID: s.ID})
}
