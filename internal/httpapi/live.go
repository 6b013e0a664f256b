package httpapi

import (
	"errors"
	"net/http"
	"strings"

	"headway/api"
	"headway/internal/access"
	"headway/internal/live"
	"headway/internal/strict"
)

// getEvents streams events.
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

// serveWebSocket admits a client with a credential, and one without: a browser
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
	id := s.identity(w, r)
	id.Actor.Via = "websocket"
	return s.o.Live.ServeWebSocket(w, r, live.Peer{Principal: p, Identity: *id, Address: s.o.Guard.Address(r)})
}
