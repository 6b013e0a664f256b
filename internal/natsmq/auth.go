package natsmq

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/prometheus/client_golang/prometheus"

	"headway/api"
	"headway/internal/access"
	"headway/internal/apiv1"
	"headway/internal/audit"
)

// inbox is the prefix of reply subjects.
const inbox = "_INBOX."

// authenticator authenticates connections to the embedded server, and limits
// their subjects. It implements server.Authentication.
//
// Subjects contain the id of a credential, not of its principal, which several
// credentials may share. So each credential has its own rights until it ends.
type authenticator struct {
	guard  *access.Guard
	audit  audit.Recorder
	log    *limitedLog
	secret [sha256.Size]byte // of our own connection
	voice  [sha256.Size]byte // of the one that answers others
	grace  time.Duration     // for which a credential is known after its last connection has ended

	forgotten prometheus.Counter // credentials, before the grace has ended

	mu     sync.RWMutex
	here   map[uint64]*credential // by the number of the connection
	known  map[string]*credential // by the id that subjects name; at most maxCredentials
	shares shares[int]            // connections of each principal
}

// credential has at least one connection.
type credential struct {
	id          string
	principal   *access.Principal
	connections int
	left        time.Time // when the last connection was found to have ended
}

// Check implements server.Authentication. The credential is the token or
// password of the connection or, without either, its certificate. The user name
// is ignored.
func (a *authenticator) Check(c server.ClientAuthentication) (good bool) {
	defer func() { a.recovered(recover(), "refused", &good, false) }()
	opts := c.GetOpts()
	token := opts.Token
	if token == "" {
		token = opts.Password
	}
	switch sum := sha256.Sum256([]byte(token)); {
	case subtle.ConstantTimeCompare(sum[:], a.secret[:]) == 1:
		c.RegisterUser(&server.User{Username: "headway"})
		return true
	case subtle.ConstantTimeCompare(sum[:], a.voice[:]) == 1:
		// Callers choose the reply subject: only inboxes are allowed.
		c.RegisterUser(&server.User{Username: "headway-answers", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: []string{inbox + ">"}},
		}})
		return true
	}
	from := netip.Addr{}
	if remote, ok := c.RemoteAddress().(*net.TCPAddr); ok {
		from = remote.AddrPort().Addr().Unmap()
	}
	ctx, cancel := context.WithTimeout(context.Background(), authenticateTime)
	defer cancel()
	state := c.GetTLSConnectionState()
	p, err := a.guard.AuthenticateConnection(ctx, token, state, from)
	if err != nil {
		a.log.warn("a connection to the message queue was refused", "from", from.String(), "reason", err)
		if problem := apiv1.ProblemOf(err); problem.Code == api.CodeUnauthenticated {
			e := refused("CONNECT", problem)
			e.Source.IP = from.String()
			a.audit.Note(e)
		}
		return false
	}
	shown := []byte(token)
	if token == "" && state != nil && len(state.PeerCertificates) > 0 {
		shown = state.PeerCertificates[0].Raw
	}
	id := credentialID(p, shown)
	if !a.enter(c.GetID(), id, p) {
		return false
	}
	c.RegisterUser(&server.User{Username: id, Permissions: permissions(id, p), ConnectionDeadline: p.Expires})
	return true
}

// credentialID is a credential's id in subjects: the id of a key, the type of
// the local credential or of none, a hash of a token or certificate. Its holder
// can compute the hash, and no other credential has it.
func credentialID(p *access.Principal, shown []byte) string {
	switch p.Type {
	case "key":
		return p.ID
	case "local", "anonymous":
		return p.Type
	}
	sum := sha256.Sum256(shown)
	return p.Type + "-" + hex.EncodeToString(sum[:16])
}

// account shares one quota among all credentials of a principal.
func account(p *access.Principal) string { return p.Type + ":" + p.ID }

// recovered turns a panic into an answer, so that one credential cannot end the
// process.
func (a *authenticator) recovered(cause any, what string, answer *bool, as bool) {
	if cause != nil {
		a.log.warn("a connection to the message queue is "+what+": its credential met a bug", "panic", fmt.Sprint(cause))
		*answer = as
	}
}

// enter admits a connection, unless its credential has ended or its principal
// has used up its share.
func (a *authenticator) enter(connection uint64, id string, p *access.Principal) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.ID == "" && p.Type != "anonymous" { // a token without a subject names no principal
		return false
	}
	if a.guard.Ended(p) != nil { // since it was authenticated: the look that ends others has passed
		return false
	}
	a.leave(connection)
	if !a.shares.take(account(p), 1) {
		a.log.warn("a connection to the message queue was refused: its principal has as many as are left for others", "type", p.Type, "id", p.ID)
		return false
	}
	c := a.known[id]
	if c == nil {
		if len(a.known) >= maxCredentials {
			before := len(a.known)
			a.forget(0)
			a.forgotten.Add(float64(before - len(a.known)))
		}
		c = &credential{id: id}
		a.known[id] = c
	}
	c.principal = p
	c.connections++
	a.here[connection] = c
	return true
}

// leave forgets a connection. The lock is held.
func (a *authenticator) leave(connection uint64) {
	c := a.here[connection]
	if c == nil {
		return
	}
	delete(a.here, connection)
	a.shares.give(account(c.principal), 1)
	if c.connections--; c.connections == 0 {
		c.left = time.Now()
	}
}

// named is the principal of the credential in a subject, nil if unknown.
func (a *authenticator) named(id string) *access.Principal {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if c := a.known[id]; c != nil {
		return c.principal
	}
	return nil
}

// listens reports whether a connection of a credential would receive a message
// on a subject.
func (a *authenticator) listens(s *server.Server, id, subject string) bool {
	var connections []uint64
	a.mu.RLock()
	for connection, c := range a.here {
		if c.id == id {
			connections = append(connections, connection)
		}
	}
	a.mu.RUnlock()
	for _, connection := range connections {
		found, err := s.Connz(&server.ConnzOptions{CID: connection, Subscriptions: true})
		if err != nil {
			return true // nothing is known of it
		}
		for _, c := range found.Conns {
			if slices.ContainsFunc(c.Subs, func(sub string) bool { return server.SubjectsCollide(sub, subject) }) {
				return true
			}
		}
	}
	return false
}

// watch closes connections as soon as their credential ends, until ctx ends.
func (a *authenticator) watch(ctx context.Context, s *server.Server) {
	for {
		changed := a.guard.Changed() // before the look, so that no change is missed
		a.check(s)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// check closes connections whose credential has ended. It forgets closed
// connections and, a while later, their credentials, since their messages may
// still be queued.
func (a *authenticator) check(s *server.Server) {
	here := map[uint64]*access.Principal{}
	a.mu.RLock()
	for connection, c := range a.here {
		here[connection] = c.principal
	}
	a.mu.RUnlock()
	for connection, p := range here {
		gone, ended := s.GetClient(connection) == nil, a.ended(p)
		if !gone && !ended {
			continue
		}
		a.mu.Lock()
		a.leave(connection)
		a.mu.Unlock()
		if !gone {
			_ = s.DisconnectClientByID(connection)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forget(a.grace)
}

// forget forgets the credentials whose last connection ended long enough ago.
// The lock is held.
func (a *authenticator) forget(after time.Duration) {
	maps.DeleteFunc(a.known, func(_ string, c *credential) bool { return c.connections == 0 && time.Since(c.left) >= after })
}

// ended reports whether a credential has ended. A panic counts as ended, and
// affects this connection only.
func (a *authenticator) ended(p *access.Principal) (ended bool) {
	defer func() { a.recovered(recover(), "ended", &ended, true) }()
	return a.guard.Ended(p) != nil
}

// permissions are the subjects of a credential. Answers go to an inbox of its
// own, so that others cannot read them. The server enforces the id at the end
// of subjects, which identifies the sender: required for heads, optional for
// decisions.
func permissions(id string, p *access.Principal) *server.Permissions {
	var publish, never []string
	subscribe := []string{inbox + id + ".>"}
	if p.May(access.Decide) {
		for _, subject := range []string{prefix + queueRequest, prefix + queueOutcome} {
			publish = append(publish, subject, subject+"."+id)
		}
	}
	if p.May(access.BeHead) {
		for _, subject := range []string{prefix + queueRegister, prefix + queueStatus, commands + queueRegister} {
			publish = append(publish, subject+"."+id)
			if p.Role != access.RoleHead {
				publish = append(publish, subject)
			}
		}
	}
	if p.May(access.Read) {
		publish = append(publish, "$SRV.>")
		subscribe = append(subscribe, prefix+queueEvents+".>", prefix+queueAudit)
	}
	if p.May(access.Admin) {
		publish = append(publish, prefix+">", "$JS.API.>", "$JS.ACK.>")
		never = []string{prefix + queueEvents + ".>", prefix + queueAudit, stored + ">"} // what the service says, it alone says
		subscribe = append(subscribe, prefix+">", inbox+">", "$JS.EVENT.>")
	}
	if publish == nil { // an empty list would allow all
		publish = []string{inbox + id + ".>"}
	}
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: publish, Deny: never},
		Subscribe: &server.SubjectPermission{Allow: subscribe},
	}
}
