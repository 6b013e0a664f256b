package httpapi

import (
	"net/http"
	"net/url"
	"strings"

	"headway/api"
	"headway/internal/access"
	"headway/internal/apiv1"
)

func (s *Server) listKeys(w *answer, r *http.Request) error {
	q := readQuery(r, "limit", "cursor")
	limit, after := q.limit(), cursor(q, keyCursor, "", idPlace)
	if err := q.err(); err != nil {
		return err
	}
	list := s.o.Keys.List()
	for skip := after != ""; skip && len(list) > 0; list = list[1:] {
		skip = list[0].ID != after
	}
	return writePage(w, keyCursor, limit, list, func(k access.Listed) (api.Key, string) { return apiv1.Key(k), k.ID })
}

func (s *Server) createKey(w *answer, r *http.Request) error {
	in, err := apiv1.ReadKey(w.body.b)
	if err != nil {
		return err
	}
	key, secret, err := s.o.Keys.Create(r.Context(), w.principal, in)
	if err != nil {
		return err
	}
	out := apiv1.Key(access.Listed{Key: key})
	out.Secret = secret
	w.Header().Set("Location", s.external.prefix+"/api/v1/keys/"+url.PathEscape(key.ID))
	w.Header().Set("Cache-Control", "no-store")
	return writeJSON(w, http.StatusCreated, out)
}

func (s *Server) patchKey(w *answer, r *http.Request) error {
	set, err := apiv1.ReadKeyPatch(w.body.b)
	if err != nil {
		return err
	}
	key, err := s.o.Keys.SetLimits(r.Context(), strings.Clone(r.PathValue("id")), set)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, apiv1.Key(key))
}

func (s *Server) revokeKey(w *answer, r *http.Request) error {
	if err := s.o.Keys.Revoke(r.Context(), strings.Clone(r.PathValue("id"))); err != nil {
		return err
	}
	if s.o.Guard.Anonymous() != nil {
		s.o.Log.Warn("the last key was revoked: until there is a key again, every client on loopback may do everything, and others nothing; make one with: headway keys create --role admin --name NAME")
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
