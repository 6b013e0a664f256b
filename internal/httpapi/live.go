package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"headway/api"
	"headway/internal/access"
	"headway/internal/apiv1"
	"headway/internal/audit"
	"headway/internal/live"
	"headway/internal/strict"
)

// getEvents streams what happens.
func (s *Server) getEvents(w *answer, r *http.Request) error {
	q := readQuery(r, "types", "head", "model_type", "region", "last_event_id")
	if err := q.err(); err != nil {
		return err
	}
	want := api.Subscription{
		Head: q.values["head"], ModelType: q.values["model_type"], Region: q.values["region"], LastEventID: q.values["last_event_id"],
	}
	if types := q.values["types"]; types != "" {
		want.Types = strings.Split(types, ",")
	}
	if last := r.Header.Get("Last-Event-Id"); last != "" { // what a browser sends when it connects again
		want.LastEventID = strict.Clip(last)
	}
	if r.Method == http.MethodHead {
		w.Header()["Content-Type"] = []string{"text/event-stream"}
		return nil
	}
	return s.o.Live.ServeEvents(w, r, w.principal, want)
}

// serveWebSocket lets in who has a credential, and who has none yet: a browser
// cannot send one with the upgrade, so the first message may hold it. What each
// message needs is in the table of live.
func (s *Server) serveWebSocket(w *answer, r *http.Request) error {
	p, err := s.o.Guard.Authenticate(r)
	if err != nil && !errors.Is(err, access.ErrNoCredential) {
		return err
	}
	if err := readQuery(r).err(); err != nil {
		return err
	}
	w.principal = p
	base := *s.identity(w, r)
	base.Actor.Via = "websocket"
	as := func(p *access.Principal) *audit.Identity {
		id := base
		if p != nil {
			id.Actor.Type, id.Actor.ID = p.Type, p.ID
		}
		return &id
	}
	address := s.o.Guard.Address(r)
	return s.o.Live.ServeWebSocket(w, r, live.Peer{
		Principal: p,
		Authenticate: func(ctx context.Context, token string) (*access.Principal, error) {
			return s.o.Guard.AuthenticateToken(ctx, token, address)
		},
		Context: func(ctx context.Context, p *access.Principal) context.Context {
			return audit.WithIdentity(ctx, as(p))
		},
		Denied: func(p *access.Principal, action string, err error) {
			if problem := apiv1.ProblemOf(err); refusesCaller(problem.Code) {
				s.noteDenied(as(p), action, "GET /api/v1/ws", problem.Detail)
			}
		},
	})
}
