package httpapi

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"headway/api"
	"headway/internal/access"
	"headway/internal/apiv1"
	"headway/internal/fleet"
	"headway/internal/routing"
)

// makeDecision is the hot route: it is found without the mux, and its answer is
// written into the buffer that held the body.
func (s *Server) makeDecision(w *answer, r *http.Request) error {
	body, err := s.o.Verbs.Decide(w.principal, w.body.b, w.body.b[:0])
	if w.body.b = body; err != nil { // it may have grown
		return err
	}
	// net/http ends the context of a caller that closed the connection, and also of
	// one that closed only its side and waits. The first cannot be answered, so that
	// its decision is withdrawn.
	doubtful := r.Context().Err() != nil
	h := w.Header()
	h["Content-Type"] = jsonType
	if len(body) > bufferedByNet || doubtful {
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	if _, err = w.Write(body); err == nil && doubtful {
		err = http.NewResponseController(w).Flush()
	}
	if err != nil {
		s.o.Verbs.Withdraw(body)
	}
	return nil
}

// bufferedByNet is the longest answer that net/http gives its length itself, for
// less than by the header map.
const bufferedByNet = 2048

// report calls a verb with the body and the id of the decision that the path
// names.
func report(verb func(id string, body []byte) error) func(*answer, *http.Request) error {
	return func(w *answer, r *http.Request) error {
		id, err := decisionID(r)
		if err == nil {
			err = verb(id, w.body.b)
		}
		return done(w, err)
	}
}

func (s *Server) getDecision(w *answer, r *http.Request) error {
	id, err := decisionID(r)
	if err != nil {
		return err
	}
	d, err := s.o.Router.Decision(id)
	if err != nil {
		return err
	}
	if err := w.principal.Require(access.Read); err == nil {
		return writeJSON(w, http.StatusOK, apiv1.RecentOf(d))
	} else if !d.MadeFor(w.principal.Mark()) {
		return err
	}
	return writeJSON(w, http.StatusOK, apiv1.OwnOf(d))
}

// maxDecisionID is longer than any id of a decision.
const maxDecisionID = 64

// decisionID is the {id} of a decision's path.
func decisionID(r *http.Request) (string, error) {
	id := r.PathValue("id")
	if !fleet.ValidID(id) || len(id) > maxDecisionID || strings.ContainsAny(id, ".:-") {
		return "", invalidParameter("id", "must be the decision_id of a decision")
	}
	return id, nil
}

func (s *Server) listDecisions(w *answer, r *http.Request) error {
	q := readQuery(r, "model_type", "head", "request_id", "result", "limit", "cursor")
	limit, before := q.limit(), cursor(q, decisionCursor, routing.Place{}, routing.ParsePlace)
	result := q.values["result"]
	if results := routing.Results(); result != "" && !slices.Contains(results, result) {
		q.fault("result", "must be one of "+strings.Join(results, ", "))
	}
	if err := q.err(); err != nil {
		return err
	}
	found := s.o.Router.Recent(routing.RecentQuery{
		Limit: limit + 1, ModelType: q.values["model_type"], Head: q.values["head"], RequestID: q.values["request_id"], Result: result, Before: before,
	})
	return writePage(w, decisionCursor, limit, found, func(d *routing.Decision) (api.RecentDecision, string) {
		return apiv1.RecentOf(d), d.Place().String()
	})
}
