package httpapi

import (
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
func (s *Server) enter(rt *route, a *answer, r *http.Request) error {
	if rt.needs == access.Open {
		return nil
	}
	p, err := s.guard.Authenticate(r)
	if err == nil {
		err = p.Require(rt.needs)
	} else if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		a.Header()["Connection"] = closeConnection // a certificate is shown to a new one only
	}
	a.principal = p
	return err
}

// denied records an attempt that was refused for who made it or where it came
// from, or because it was to make a key that may not be made. The journal bounds
// what that writes.
func (s *Server) denied(rt *route, a *answer, r *http.Request, err error) {
	reason, attempt := attempted(rt, err)
	if !attempt {
		return
	}
	action := rt.action
	if action == "" {
		action = "access"
	}
	id := s.identity(a, r)
	s.note(audit.Entry{
		Category: audit.Auth, Action: action, Outcome: audit.Denied, Reason: reason,
		Actor: id.Actor, Source: id.Source, RequestID: id.RequestID,
		Target: audit.Target{Type: "route", ID: rt.method + " " + rt.pattern},
	})
}

// attempted reports whether an error refuses an attempt that the trail tells of,
// and what it says of it. Those who ask too often are counted, and too many to
// write down; reading without a key is how a client learns that it needs one.
func attempted(rt *route, err error) (reason string, yes bool) {
	if p, is := errors.AsType[*apiv1.Problem](err); is {
		return p.Detail, p.Code == api.CodeForeignHost || p.Code == api.CodeCrossOrigin
	}
	if refused, is := errors.AsType[*access.KeyRefusedError](err); is {
		return refused.Error(), true
	}
	p := apiv1.AccessProblem(err)
	switch {
	case p == nil:
		return "", false
	case errors.Is(err, access.ErrNoCredential) && rt.action == "":
		return "", false
	}
	return p.Detail, p.Code == api.CodeUnauthenticated || p.Code == api.CodeForbidden
}

// identity is who acts in a request, for the audit trail.
func (s *Server) identity(a *answer, r *http.Request) *audit.Identity {
	id := &audit.Identity{
		Actor:     audit.Actor{Type: "anonymous", Via: "http"},
		Source:    audit.Source{UserAgent: strict.Clip(r.UserAgent())},
		RequestID: a.Header()["X-Request-Id"][0],
	}
	if p := a.principal; p != nil {
		id.Actor = audit.Actor{Type: p.Type, ID: p.ID, Via: "http"}
	}
	if address := s.guard.Address(r); address.IsValid() {
		id.Source.IP = address.String()
	}
	if parts := strings.Split(r.Header.Get("Traceparent"), "-"); len(parts) == 4 && len(parts[1]) == 32 && safe(parts[1]) {
		id.TraceID = parts[1] // W3C Trace Context
	}
	return id
}

// principalOf is who asks for what is answered with w.
func principalOf(w http.ResponseWriter) *access.Principal {
	if a, ok := w.(*answer); ok {
		return a.principal
	}
	return nil
}
