package httpapi

import (
	"net/http"
	"time"

	"headway/api"
	"headway/internal/apiv1"
	"headway/internal/audit"
	"headway/internal/trail"
)

// listAudit searches the audit trail, newest first.
func (s *Server) listAudit(w *answer, r *http.Request) error {
	q := readQuery(r, "since", "until", "actor", "action", "category", "outcome", "target", "limit", "cursor")
	find := trail.Query{
		Actor: q.values["actor"], Action: q.values["action"], Target: q.values["target"],
		Category: audit.Category(q.values["category"]), Outcome: audit.Outcome(q.values["outcome"]),
		Since: q.time("since"), Until: q.time("until"), Limit: q.limit(), Cursor: q.values["cursor"],
	}
	q.oneOf("category", []string{"admin", "policy", "head", "routing_config", "auth", "audit"})
	q.oneOf("outcome", []string{"success", "failure", "denied", "unknown"})
	if err := q.err(); err != nil {
		return err
	}
	records, next, err := trail.Search(r.Context(), s.o.AuditFile, find)
	if err != nil {
		return err
	}
	page := api.List[api.AuditRecord]{Data: make([]api.AuditRecord, len(records)), NextCursor: next}
	for i := range records {
		page.Data[i] = apiv1.Record(&records[i])
	}
	return writeJSON(w, http.StatusOK, page)
}

// time is a time of the query, zero if it is not there.
func (q *query) time(name string) time.Time {
	text := q.values[name]
	if text == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		q.fault(name, "want a time such as 2026-01-31T15:04:05Z")
	}
	return t
}
