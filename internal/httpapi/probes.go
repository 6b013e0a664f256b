package httpapi

import (
	"fmt"
	"net/http"

	"headway/api"
)

func (s *Server) livez(w *answer, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, api.Readiness{Status: "ok", Checks: []api.Check{{Name: "process", OK: true, Detail: "answering"}}})
}

func (s *Server) readyz(w *answer, _ *http.Request) error {
	status, body := http.StatusOK, api.Readiness{Status: "ok"}
	add := func(name string, ok bool, yes, no string) {
		check := api.Check{Name: name, OK: ok, Detail: yes}
		if !ok {
			check.Detail, status, body.Status = no, http.StatusServiceUnavailable, "unavailable"
		}
		body.Checks = append(body.Checks, check)
	}
	ready, snapshot := s.o.Fleet.Ready(), s.o.Fleet.Snapshot()
	heads := fmt.Sprintf("heads: %d, of which take requests: %d", snapshot.Heads, snapshot.Active)
	if ready.Assumed > 0 {
		heads += fmt.Sprintf("; assumed healthy since before the restart: %d", ready.Assumed)
	}
	if ready.Held > 0 {
		heads += fmt.Sprintf("; more that take requests though their leases ran out, since the mass-expiry guard holds them: %d", ready.Held)
	}
	add("fleet", ready.Loaded, heads, "the state has not been read yet")
	add("state", ready.StoreUp, "the last write succeeded", "the last write failed; see the log")
	add("policy", true, fmt.Sprintf("revision %d", s.o.Router.Policy().Revision), "")
	add("stopping", !s.draining.Load(), "no", "the service is stopping")
	if s.o.Queue != nil { // decisions do not depend on it, and so readiness does not
		add("queue", true, s.o.Queue(), "")
	}
	return writeJSON(w, status, body)
}
