package httpapi

import (
	"math"
	"net/http"
	"net/url"
	"strconv"

	"headway/api"
	"headway/internal/apiv1"
	"headway/internal/fleet"
	"headway/internal/registry"
)

func (s *Server) registerHead(w *answer, r *http.Request) error {
	answer, created, err := s.o.Verbs.Register(r.Context(), w.principal, w.body.b)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
		w.Header().Set("Location", s.external.prefix+"/api/v1/heads/"+url.PathEscape(answer.Head.ID))
	}
	return writeJSON(w, status, answer)
}

func (s *Server) reportStatus(w *answer, r *http.Request, id string) error {
	answer, err := s.o.Verbs.Report(w.principal, id, w.body.b)
	return writeResult(w, answer, err)
}

func (s *Server) patchHead(w *answer, r *http.Request, id string) error {
	head, err := s.o.Verbs.Patch(r.Context(), id, w.body.b)
	return writeResult(w, head, err)
}

func (s *Server) deleteHead(w *answer, r *http.Request, id string) error {
	return done(w, s.o.Verbs.Deregister(r.Context(), w.principal, id))
}

func (s *Server) endEjection(w *answer, r *http.Request, id string) error {
	return done(w, s.o.Fleet.EndEjection(r.Context(), id))
}

func (s *Server) getHead(w *answer, r *http.Request, id string) error {
	view, err := s.o.Fleet.Head(id)
	if err != nil {
		return err
	}
	head := apiv1.HeadOf(&view)
	head.LearnedSpeed = s.learnedSpeed(view.Head)
	return writeJSON(w, http.StatusOK, head)
}

// learnedSpeed is what is known of how fast the head is, by model type, in thousandths.
func (s *Server) learnedSpeed(h *fleet.Head) map[string]float64 {
	known := map[string]float64{}
	for _, model := range h.ModelTypes {
		if speed, ok := s.o.Speeds.Speed(h, model); ok {
			known[model] = math.Round(1000*speed) / 1000
		}
	}
	return known
}

func (s *Server) listHeads(w *answer, r *http.Request) error {
	q := readQuery(r, "model_type", "region", "status", "limit", "cursor")
	limit, after := q.limit(), cursor(q, headCursor, "", idPlace)
	q.oneOf("status", fleet.Statuses())
	if err := q.err(); err != nil {
		return err
	}
	views, _ := s.o.Fleet.List(registry.Query{
		ModelType: q.values["model_type"], Region: q.values["region"], Status: q.values["status"], Limit: limit + 1, Cursor: after,
	})
	return writePage(w, headCursor, limit, views, func(v fleet.View) (api.Head, string) { return apiv1.HeadOf(&v), v.Head.ID })
}

// ofHead lets a handler have the {id} of the path. One that no head can have is
// refused.
func ofHead(next func(w *answer, r *http.Request, id string) error) func(*answer, *http.Request) error {
	return func(w *answer, r *http.Request) error {
		id := r.PathValue("id")
		if !fleet.ValidID(id) {
			return invalidParameter("id", "must be 1 to "+strconv.Itoa(fleet.MaxIDLength)+" letters, digits and ._:-")
		}
		return next(w, r, id)
	}
}
