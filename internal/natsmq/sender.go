package natsmq

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"

	"headway/internal/access"
)

// headerSender keeps with a command in the stream of our own server who sent it
// and what they may do, since tokens and certificates are known by their
// connection only, and the command may be carried out long after it ended.
const headerSender = "Headway-Sender"

// sentBy is who sent a command, in the stream.
type sentBy struct {
	Type    string              `json:"type"`
	ID      string              `json:"id,omitzero"`
	Name    string              `json:"name,omitzero"`
	Role    access.Role         `json:"role"`
	Scopes  []access.Permission `json:"scopes,omitempty"`
	Heads   []string            `json:"heads,omitempty"`
	Regions []string            `json:"regions,omitempty"`
}

// maxSender bounds what is kept of a sender, in bytes.
const maxSender = headroom - 4<<10

// senderHeader is the value of headerSender for a principal.
func senderHeader(p *access.Principal) (string, error) {
	text, err := json.Marshal(sentBy{p.Type, p.ID, p.Name, p.Role, p.Scopes, p.Heads, p.Regions})
	return string(text), err
}

// senderOfCommand finds out who sent a command of the stream, and refuses one
// whose key was revoked since. A credential that has only expired was good when
// the command was acknowledged, which is then carried out.
//
// The stream of an external server is written by its clients, so that there
// nothing counts but the subject.
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

// commandID is the id by which a command is recognised when it comes again. It
// belongs to the sender and the queue, so that no sender makes the command of
// another a repetition. On a subject that does not name the sender, where all
// share the ids, a repetition has to have the same body as well.
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

// unnamed is the account of commands that do not name their sender.
const unnamed = "unnamed"

// accountOf is whose share of the stream a command takes.
func accountOf(header nats.Header) string {
	var s sentBy
	if json.Unmarshal([]byte(header.Get(headerSender)), &s) != nil {
		return unnamed
	}
	return account(&access.Principal{Type: s.Type, ID: s.ID})
}
