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
	limit, after := q.limit(), q.cursor(keyCursor)
	if err := q.err(); err != nil {
		return err
	}
	page := api.List[api.Key]{Data: []api.Key{}}
	skip := after != ""
	for _, k := range s.o.Keys.List() {
		if skip {
			skip = k.ID != after
			continue
		}
		if len(page.Data) == limit {
			page.NextCursor = keyCursor.encode(page.Data[limit-1].ID)
			break
		}
		page.Data = append(page.Data, apiv1.Key(k))
	}
	return writeJSON(w, http.StatusOK, page)
}

func (s *Server) createKey(w *answer, r *http.Request) error {
	body, err := w.readBody(r)
	if err != nil {
		return err
	}
	in, err := apiv1.ReadKey(body)
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

func (s *Server) revokeKey(w *answer, r *http.Request) error {
	if err := s.o.Keys.Revoke(r.Context(), strings.Clone(r.PathValue("id"))); err != nil {
		return err
	}
	if s.o.Guard.Anonymous() != nil {
		s.o.Log.Warn("the last key was revoked: until there is a key again, whoever reaches the service by loopback may do everything, and others nothing; make one with: headway keys create --role admin --name NAME")
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
