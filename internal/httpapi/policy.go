package httpapi

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"headway/api"
	"headway/internal/apiv1"
	"headway/internal/audit"
	"headway/internal/fleet"
	"headway/internal/policy"
	"headway/internal/routing"
	"headway/internal/strict"
)

// getPolicy answers with the document; its revision is the ETag.
func (s *Server) getPolicy(w *answer, r *http.Request) error {
	current := s.o.Router.Policy()
	if etagListed(r.Header["If-None-Match"], current.Revision, true) {
		w.Header().Set("ETag", etagOf(current.Revision))
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return writePolicy(w, current, nil)
}

// writePolicy writes a policy unless it could not be made.
func writePolicy(w *answer, p *policy.Policy, err error) error {
	if err != nil {
		return err
	}
	w.Header().Set("ETag", etagOf(p.Revision))
	w.Header()["Content-Type"] = jsonType
	_, _ = w.Write(append(slices.Clip(p.Canonical), '\n'))
	return nil
}

func etagOf(revision uint64) string { return `"` + strconv.FormatUint(revision, 10) + `"` }

// etagListed reports whether the headers name the revision, or any by *. A weak
// tag says that documents mean the same, which is enough to read, not to write.
func etagListed(headers []string, revision uint64, weak bool) bool {
	etag := etagOf(revision)
	for _, header := range headers {
		for known := range strings.SplitSeq(header, ",") {
			known = strings.TrimSpace(known)
			if weak {
				known = strings.TrimPrefix(known, "W/")
			}
			if known == etag || known == "*" {
				return true
			}
		}
	}
	return false
}

// expected is the revision that a change may replace, as If-Match says: the
// current one, or any.
func (s *Server) expected(r *http.Request) (uint64, error) {
	headers, current := r.Header["If-Match"], s.o.Router.Policy().Revision
	switch {
	case len(headers) == 0:
		return 0, &apiv1.Problem{
			Code:   api.CodePreconditionMissing,
			Detail: "Send If-Match with the ETag of the policy that you changed, which GET /api/v1/policy answers with.",
		}
	case !etagListed(headers, current, false):
		return 0, &apiv1.Problem{
			Code:   api.CodePreconditionFailed,
			Detail: fmt.Sprintf("The policy has revision %d now. Read it again and repeat the change.", current),
		}
	case etagListed(headers, routing.AnyRevision, false): // which no tag names but *
		return routing.AnyRevision, nil
	}
	return current, nil
}

func (s *Server) putPolicy(w *answer, r *http.Request) error {
	return s.changePolicy(w, r, "policy.put", func(_ *policy.Policy, body []byte) (*policy.Policy, []strict.Fault) {
		return policy.Parse(body, "json")
	})
}

func (s *Server) patchPolicy(w *answer, r *http.Request) error {
	return s.changePolicy(w, r, "policy.patch", (*policy.Policy).Merge)
}

func (s *Server) changePolicy(w *answer, r *http.Request, action string, read func(current *policy.Policy, body []byte) (*policy.Policy, []strict.Fault)) error {
	expect, err := s.expected(r)
	if err != nil {
		return err
	}
	note := r.Header.Get("X-Change-Note")
	if len(note) > maxNote || !utf8.ValidString(note) {
		return invalidParameter("X-Change-Note", fmt.Sprintf("want at most %d bytes of UTF-8", maxNote))
	}
	next, err := s.o.Router.Apply(r.Context(), routing.Change{
		Make: func(current *policy.Policy) (*policy.Policy, error) {
			next, faults := read(current, w.body.b)
			return next, strict.Invalid(faults)
		},
		Expect: expect, Source: policy.SourceAPI, Action: action, Author: author(r), Note: note,
	})
	return writePolicy(w, next, err)
}

// maxNote is the longest note to a change, in bytes.
const maxNote = 500

// author is who changes the policy, for its history. The subject of a token or
// certificate is for others to choose, and may look like the id of a key.
func author(r *http.Request) string {
	actor := audit.From(r.Context()).Actor
	if actor.Type == "jwt" || actor.Type == "certificate" {
		return actor.Type + ":" + actor.ID
	}
	return cmp.Or(actor.ID, actor.Type)
}

// validatePolicy is a dry run: what is wrong with a document, or what it would
// change.
func (s *Server) validatePolicy(w *answer, r *http.Request) error {
	current := s.o.Router.Policy()
	check := api.PolicyCheck{CurrentRevision: current.Revision, Errors: []api.Fault{}, Differences: []api.Difference{}}
	next, faults := policy.Parse(w.body.b, "json")
	if len(faults) > 0 {
		check.Errors = apiv1.FaultsOf(faults)
		return writeJSON(w, http.StatusOK, check)
	}
	differences, err := policy.Differences(current, next)
	if err != nil {
		return fmt.Errorf("compare the policies: %w", err)
	}
	for _, d := range differences {
		check.Differences = append(check.Differences, api.Difference{Pointer: d.Pointer, Before: d.Before, After: d.After})
	}
	if warnings := append(slices.Clone(next.Warnings), s.o.Router.HiddenBy(next)...); len(warnings) > 0 {
		check.Warnings = apiv1.FaultsOf(warnings)
	}
	check.Valid, check.Replay = true, s.replay(next)
	return writeJSON(w, http.StatusOK, check)
}

func (s *Server) replay(next *policy.Policy) *api.PolicyReplay {
	result := s.o.Router.Replay(next)
	replay := &api.PolicyReplay{
		Decisions: result.Decisions, Moved: result.Moved, Failed: result.Failed, Unjudged: result.Unjudged, Examples: []api.ReplayedDecision{},
	}
	id := func(h *fleet.Head) string {
		if h == nil {
			return ""
		}
		return h.ID
	}
	for _, e := range result.Examples {
		replay.Examples = append(replay.Examples, api.ReplayedDecision{
			DecisionID: e.Decision.ID(), ModelType: e.Decision.ModelType, Region: e.Decision.Region,
			HeadBefore: id(e.Before), StrategyBefore: e.StrategyBefore, HeadAfter: id(e.After), StrategyAfter: e.StrategyNext,
		})
	}
	return replay
}

// listRevisions lists the history without the documents, which may be large.
func (s *Server) listRevisions(w *answer, r *http.Request) error {
	q := readQuery(r, "limit", "cursor")
	limit, before := q.limit(), cursor(q, revisionCursor, math.MaxUint64, numberPlace)
	if err := q.err(); err != nil {
		return err
	}
	list, err := s.o.Router.Revisions(r.Context(), math.MaxInt)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(p policy.Stored) bool { return p.Revision >= before })
	current := s.o.Router.Policy().Revision
	return writePage(w, revisionCursor, limit, list, func(p policy.Stored) (api.PolicyRevision, string) {
		p.Document = nil
		return toRevision(p, current), strconv.FormatUint(p.Revision, 10)
	})
}

func toRevision(p policy.Stored, current uint64) api.PolicyRevision {
	return api.PolicyRevision{
		Revision: p.Revision, Source: p.Source, Author: p.Author, Note: p.Note,
		SavedAt: p.SavedAt, Current: p.Revision == current, Document: p.Document,
	}
}

func (s *Server) getRevision(w *answer, r *http.Request) error {
	n, err := revisionOf(r)
	if err != nil {
		return err
	}
	stored, err := s.o.Router.Revision(r.Context(), n)
	return writeResult(w, toRevision(stored, s.o.Router.Policy().Revision), err)
}

func revisionOf(r *http.Request) (uint64, error) {
	n, err := strconv.ParseUint(r.PathValue("n"), 10, 53)
	if err != nil {
		return 0, invalidParameter("n", "want the number of a revision")
	}
	return n, nil
}

func (s *Server) restoreRevision(w *answer, r *http.Request) error {
	n, err := revisionOf(r)
	if err != nil {
		return err
	}
	expect, err := s.expected(r)
	if err != nil {
		return err
	}
	next, err := s.o.Router.Restore(r.Context(), n, author(r), expect)
	return writePolicy(w, next, err)
}
