package httpapi

import (
	"cmp"
	"errors"
	"net/http"
	"strings"

	"headway/internal/access"
	"headway/internal/apiv1"
	"headway/internal/audit"
	"headway/internal/strict"
)

// enter authenticates the caller and checks its permission for the route. The
// handlers find the principal in the answer.
func (s *Server) enter(a *answer, r *http.Request) error {
	if a.route.needs == access.Open {
		return nil
	}
	authenticate := s.o.Guard.Authenticate
	if a.route.client {
		authenticate = s.o.Guard.AuthenticateClient
	}
	p, err := authenticate(r)
	if err == nil {
		if err = p.Require(a.route.needs); a.route.own != "" && p.May(a.route.own) {
			err = nil
		}
	} else if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		a.Header()["Connection"] = closeConnection // a certificate is shown to a new one only
	}
	a.principal = p
	return err
}

// denied records in the audit trail that an attempt was refused for its caller or
// origin, or because it was to make a key that is wider than its own. The journal bounds
// what that writes. A read without a credential is not recorded: so clients learn
// that one is needed.
func (s *Server) denied(a *answer, r *http.Request, p *apiv1.Problem, err error) {
	rt, reason := a.route, p.Detail
	if refused, is := errors.AsType[*access.KeyRefusedError](err); is {
		reason = refused.Error()
	} else if !p.RefusesCaller() || errors.Is(err, access.ErrNoCredential) && (rt.action == "" || rt.method == "" && r.Method == http.MethodGet) {
		return
	}
	s.o.Audit.Note(s.identity(a, r).Denied(cmp.Or(rt.action, "access"), cmp.Or(rt.method, knownMethod(r.Method))+" "+rt.pattern, reason))
}

// identity is the actor of a request, for the audit trail.
func (s *Server) identity(a *answer, r *http.Request) *audit.Identity {
	id := &audit.Identity{
		Actor:     audit.Actor{Type: "anonymous", Via: "http"},
		Source:    audit.Source{UserAgent: strict.Clip(r.UserAgent())},
		RequestID: a.requestID(),
	}
	if p := a.principal; p != nil {
		id.Actor = audit.Actor{Type: p.Type, ID: p.ID, Via: "http"}
	}
	if address := s.o.Guard.Address(r); address.IsValid() {
		id.Source.IP = address.String()
	}
	if parts := strings.Split(r.Header.Get("Traceparent"), "-"); len(parts) == 4 && len(parts[1]) == 32 && safe(parts[1]) {
		id.TraceID = parts[1] // W3C Trace Context
	}
	return id
}
