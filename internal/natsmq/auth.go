package natsmq

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"maps"
	"net"
	"net/netip"
	"strings"
	"sync"

	"github.com/nats-io/nats-server/v2/server"

	"headway/api"
	"headway/internal/access"
	"headway/internal/audit"
	"headway/internal/calls"
)

// inbox begins the subjects that answers go to.
const inbox = "_INBOX."

// guests lets connections to our own server in, and says which subjects they may
// use. It implements server.Authentication.
type guests struct {
	o      Access
	note   func(audit.Entry)
	log    *quiet
	secret [sha256.Size]byte // of our own connection
	voice  [sha256.Size]byte // of the one that answers others

	mu    sync.RWMutex
	here  map[uint64]*access.Principal // by the number of the connection
	named map[string]named             // by the id that subjects name
}

// named is who is connected under an id, and how often.
type named struct {
	p     *access.Principal
	times int
}

// Check implements server.Authentication. The credential is the token or the
// password of the connection; the name of the user does not matter.
func (g *guests) Check(c server.ClientAuthentication) bool {
	opts := c.GetOpts()
	token := opts.Token
	if token == "" {
		token = opts.Password
	}
	switch sum := sha256.Sum256([]byte(token)); {
	case subtle.ConstantTimeCompare(sum[:], g.secret[:]) == 1:
		c.RegisterUser(&server.User{Username: "headway"})
		return true
	case subtle.ConstantTimeCompare(sum[:], g.voice[:]) == 1:
		// Whoever asks names the subject of the answer: nothing but inboxes.
		c.RegisterUser(&server.User{Username: "headway-answers", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: []string{inbox + ">"}},
		}})
		return true
	}
	p, from := g.o.Anonymous(), netip.Addr{}
	if a, ok := c.RemoteAddress().(*net.TCPAddr); ok {
		from = a.AddrPort().Addr().Unmap()
	}
	if token != "" {
		ctx, cancel := context.WithTimeout(context.Background(), authenticateTime)
		defer cancel()
		var err error
		if p, err = g.o.Authenticate(ctx, token, from); err != nil {
			g.log.warn("a connection to the message queue was refused", "from", from.String(), "reason", err)
			g.refused(from, err)
			return false
		}
	}
	if p == nil || token == "" && !from.IsLoopback() {
		return false
	}
	if !g.enter(c.GetID(), p) {
		return false
	}
	c.RegisterUser(&server.User{Username: subjectID(p), Permissions: permissions(p), ConnectionDeadline: p.Expires})
	return true
}

// refused records a credential that is not good.
func (g *guests) refused(from netip.Addr, err error) {
	problem := calls.AccessProblem(err)
	if problem == nil || problem.Code != api.CodeUnauthenticated {
		return
	}
	g.note(audit.Entry{
		Category: audit.Auth, Action: "access", Outcome: audit.Denied, Reason: problem.Detail,
		Actor: audit.Actor{Type: "anonymous", Via: "nats"}, Source: audit.Source{IP: from.String()},
		Target: audit.Target{Type: "route", ID: "NATS CONNECT"},
	})
}

// enter lets a connection in, unless whoever it is may not stay any more.
func (g *guests) enter(connection uint64, p *access.Principal) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.o.Ended(p) { // since it was authenticated: the look that ends others has passed
		return false
	}
	g.leave(connection)
	g.here[connection] = p
	id := subjectID(p)
	g.named[id] = named{p, g.named[id].times + 1}
	return true
}

// leave forgets a connection. The lock is held.
func (g *guests) leave(connection uint64) {
	p := g.here[connection]
	if p == nil {
		return
	}
	delete(g.here, connection)
	id := subjectID(p)
	if n := g.named[id]; n.times > 1 {
		g.named[id] = named{n.p, n.times - 1}
	} else {
		delete(g.named, id)
	}
}

// known is who is connected under the id that subjects name.
func (g *guests) known(id string) *access.Principal {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.named[id].p
}

// watch ends the connections of those who may not stay as soon as that changes,
// until ctx ends.
func (g *guests) watch(ctx context.Context, s *server.Server) {
	for {
		changed := g.o.Changed() // before the look, so that no change is missed
		g.check(s)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// check ends the connections of those who may not stay and forgets those who
// have left.
func (g *guests) check(s *server.Server) {
	g.mu.RLock()
	here := maps.Clone(g.here)
	g.mu.RUnlock()
	for id, p := range here {
		gone, ended := s.GetClient(id) == nil, g.o.Ended(p)
		if !gone && !ended {
			continue
		}
		g.mu.Lock()
		g.leave(id)
		g.mu.Unlock()
		if !gone {
			_ = s.DisconnectClientByID(id)
		}
	}
}

// subjectID is how a subject names somebody: by the id, or by a hash of one that
// would not be one word of a subject.
func subjectID(p *access.Principal) string {
	odd := func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '-' && r != '_'
	}
	switch {
	case p.ID == "":
		return p.Type
	case !strings.ContainsFunc(p.ID, odd):
		return p.ID
	}
	sum := sha256.Sum256([]byte(p.Type + ":" + p.ID))
	return hex.EncodeToString(sum[:8])
}

// permissions are the subjects that somebody may use. Answers go to an inbox of
// one's own, or others could read them. Subjects with the sender's id at the end
// are enforced by the server: so the service knows who speaks. What concerns
// heads has to have it, what concerns decisions may.
func permissions(p *access.Principal) *server.Permissions {
	id := subjectID(p)
	var publish []string
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
		subscribe = append(subscribe, prefix+queueEvents+".>")
	}
	if p.May(access.Admin) {
		publish = append(publish, prefix+">", "$JS.API.>", "$JS.ACK.>")
		subscribe = append(subscribe, prefix+">", inbox+">", "$JS.EVENT.>")
	}
	if publish == nil { // an empty list would allow all
		publish = []string{inbox + id + ".>"}
	}
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: publish},
		Subscribe: &server.SubjectPermission{Allow: subscribe},
	}
}
