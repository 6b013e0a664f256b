package httpapi

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"headway/api"
	"headway/internal/access"
	"headway/internal/audit"
	"headway/internal/fleet"
)

// enter finds out who asks and whether they may use the route. It writes the
// principal into the answer, where handlers find it.
func (s *Server) enter(rt *route, a *answer, r *http.Request) error {
	if rt.needs == access.Open {
		return nil
	}
	p, err := s.guard.Authenticate(r)
	if err == nil && !p.May(rt.needs) {
		err = &deniedError{"this needs the permission " + string(rt.needs) + ", which the " + p.Type + " does not have"}
	}
	a.principal = p
	return err
}

// deniedError is of somebody who is known and may not.
type deniedError struct{ reason string }

func (e *deniedError) Error() string { return e.reason }

// denied records an attempt that was refused for who made it. Those who ask too
// often are counted, and too many to write down; reading without a key is how a
// client learns that it needs one.
func (s *Server) denied(rt *route, a *answer, r *http.Request, err error) {
	p := accessProblem(err)
	if p == nil || p.code != api.CodeUnauthenticated && p.code != api.CodeForbidden || errors.Is(err, access.ErrNoCredential) && rt.action == "" {
		return
	}
	action := rt.action
	if action == "" {
		action = "access"
	}
	id := s.identity(a, r)
	s.note(audit.Entry{
		Category: audit.Auth, Action: action, Outcome: audit.Denied, Reason: p.detail,
		Actor: id.Actor, Source: id.Source, RequestID: id.RequestID,
		Target: audit.Target{Type: "route", ID: rt.method + " " + rt.pattern},
	})
}

// identity is who acts in a request, for the audit trail.
func (s *Server) identity(a *answer, r *http.Request) *audit.Identity {
	id := &audit.Identity{
		Actor:     audit.Actor{Type: "anonymous", Via: "http"},
		Source:    audit.Source{UserAgent: clip(r.UserAgent())},
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

// mayBe refuses a head that speaks for another.
func mayBe(w http.ResponseWriter, id string) error {
	if p := principalOf(w); !p.MayBe(id) {
		return &deniedError{"the " + p.Type + " may not speak for this head"}
	}
	return nil
}

// mayBeIn refuses a head that registers where it does not belong.
func mayBeIn(w http.ResponseWriter, region string) error {
	if p := principalOf(w); !p.MayBeIn(region) {
		return &deniedError{"the " + p.Type + " may not register heads in this region"}
	}
	return nil
}

// mayRegister refuses a registration that whoever asks may not make, or that
// would take a head away from a region that they have no say in.
func (s *Server) mayRegister(w http.ResponseWriter, spec *fleet.Spec) error {
	if err := errors.Join(mayBe(w, spec.ID), mayBeIn(w, spec.Region)); err != nil {
		return err
	}
	return s.mayMove(w, spec.ID)
}

// mayMove refuses to touch a head that is known in another region than those of
// whoever asks.
func (s *Server) mayMove(w http.ResponseWriter, id string) error {
	if p := principalOf(w); p != nil && len(p.Regions) > 0 {
		if view, err := s.fleet.Head(id); err == nil {
			return mayBeIn(w, view.Head.Region)
		}
	}
	return nil
}

// ownHead is the head that the path names, if whoever asks may speak for it.
func (s *Server) ownHead(w http.ResponseWriter, r *http.Request) (string, error) {
	id, err := headID(r)
	if err != nil {
		return "", err
	}
	if err := mayBe(w, id); err != nil {
		return "", err
	}
	return id, s.mayMove(w, id)
}

// accessProblem turns the errors of access into problems; nil for others.
func accessProblem(err error) *problem {
	if denied, ok := errors.AsType[*deniedError](err); ok {
		return &problem{code: api.CodeForbidden, detail: sentence(denied.reason)}
	}
	if limited, ok := errors.AsType[*access.LimitedError](err); ok {
		return &problem{code: api.CodeRateLimited, detail: sentence("too many requests of one " + limited.Limit), retryAfter: max(limited.RetryAfter, time.Second)}
	}
	if invalid, ok := errors.AsType[*access.InvalidError](err); ok {
		faults := make([]fleet.Fault, len(invalid.Faults))
		for i, f := range invalid.Faults {
			faults[i] = fleet.Fault(f)
		}
		list := toFaults(faults)
		return &problem{code: api.CodeInvalid, detail: detailOf(list), faults: list}
	}
	for _, unknown := range []error{
		access.ErrNoCredential, access.ErrMalformed, access.ErrSeveral, access.ErrInURL, access.ErrElsewhere,
		access.ErrUnknown, access.ErrExpired, access.ErrRevoked, access.ErrUnbelieved, access.ErrIssuerAway,
	} {
		if errors.Is(err, unknown) {
			return &problem{code: api.CodeUnauthenticated, detail: sentence(unknown.Error())}
		}
	}
	return nil
}

// sentence makes a sentence of an error.
func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] + "." }
