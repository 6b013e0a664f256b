package httpapi

import (
	"cmp"
	"errors"
	"net/http"
	"strings"

	"headway/api"
	"headway/internal/access"
	"headway/internal/apiv1"
	"headway/internal/audit"
	"headway/internal/strict"
)

// enter finds out who asks and whether they may use the route. It writes the
// principal into the answer, where handlers find it.
func (s *Server) enter(a *answer, r *http.Request) error {
	if a.route.needs == access.Open {
		return nil
	}
	p, err := s.o.Guard.Authenticate(r)
	if err == nil {
		err = p.Require(a.route.needs)
	} else if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		a.Header()["Connection"] = closeConnection // a certificate is shown to a new one only
	}
	a.principal = p
	return err
}

// denied records in the audit trail that an attempt was refused for who made it
// or where it came from, or because it was to make a key that may not be made. The
// journal bounds what that writes. A read without a credential is not recorded:
// it is how a client learns that one is needed.
func (s *Server) denied(a *answer, r *http.Request, p *apiv1.Problem, err error) {
	rt, reason := a.route, p.Detail
	if refused, is := errors.AsType[*access.KeyRefusedError](err); is {
		reason = refused.Error()
	} else if !refusesCaller(p.Code) || errors.Is(err, access.ErrNoCredential) && rt.action == "" {
		return
	}
	s.noteDenied(s.identity(a, r), cmp.Or(rt.action, "access"), rt.method+" "+rt.pattern, reason)
}

// refusesCaller reports whether a problem is who asks, or from where.
func refusesCaller(code string) bool {
	switch code {
	case api.CodeForeignHost, api.CodeCrossOrigin, api.CodeUnauthenticated, api.CodeForbidden, api.CodeKeyInURL:
		return true
	}
	return false
}

func (s *Server) noteDenied(id *audit.Identity, action, route, reason string) {
	s.o.Note(audit.Entry{
		Category: audit.Auth, Action: action, Outcome: audit.Denied, Reason: reason,
		Actor: id.Actor, Source: id.Source, RequestID: id.RequestID,
		Target: audit.Target{Type: "route", ID: route},
	})
}

// identity is who acts in a request, for the audit trail.
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
