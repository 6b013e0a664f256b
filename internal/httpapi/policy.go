package httpapi

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"headway/api"
	"headway/internal/audit"
	"headway/internal/calls"
	"headway/internal/fleet"
	"headway/internal/policy"
	"headway/internal/routing"
	"headway/internal/strict"
)

// getPolicy answers with the document; its revision is the ETag.
func (s *Server) getPolicy(w http.ResponseWriter, r *http.Request) error {
	policy := s.router.Policy()
	if etagListed(r.Header["If-None-Match"], policy.Revision, true) {
		w.Header().Set("ETag", etagOf(policy.Revision))
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return writePolicy(w, policy)
}

func writePolicy(w http.ResponseWriter, policy *policy.Policy) error {
	body, err := policy.Document.Encode()
	if err != nil {
		return fmt.Errorf("encode the policy: %w", err)
	}
	w.Header().Set("ETag", etagOf(policy.Revision))
	w.Header()["Content-Type"] = jsonType
	_, _ = w.Write(append(body, '\n'))
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

// replaceable is the policy that a change must meet: the current one, if that is
// what If-Match says. anyOther is set if any other would do.
func (s *Server) replaceable(r *http.Request) (current *policy.Policy, anyOther bool, err error) {
	current = s.router.Policy()
	headers := r.Header["If-Match"]
	switch {
	case len(headers) == 0:
		return nil, false, &calls.Problem{
			Code:   api.CodePreconditionMissing,
			Detail: "Send If-Match with the ETag of the policy that you changed, which GET /api/v1/policy answers with.",
		}
	case !etagListed(headers, current.Revision, false):
		return nil, false, &calls.Problem{
			Code:   api.CodePreconditionFailed,
			Detail: fmt.Sprintf("The policy has revision %d by now; read it again and repeat the change.", current.Revision),
		}
	}
	return current, etagListed(headers, 0, false), nil
}

// maxRepeats bounds how often a change is made again because another came
// between.
const maxRepeats = 100

// replace makes a change of the policy. If any policy will do, such changes take
// turns, and one is made again if something else came between, such as the
// policy file.
func (s *Server) replace(r *http.Request, current *policy.Policy, anyOther bool, change func(*policy.Policy) (*policy.Policy, error)) (next *policy.Policy, err error) {
	if !anyOther {
		return change(current)
	}
	s.replacing.Lock()
	defer s.replacing.Unlock()
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	for range maxRepeats {
		if next, err = change(s.router.Policy()); !errors.Is(err, policy.ErrConflict) {
			break
		}
	}
	return next, err
}

func (s *Server) putPolicy(w http.ResponseWriter, r *http.Request) error {
	return s.changePolicy(w, r, "policy.put", func(_ *policy.Policy, body []byte) (policy.Document, []strict.Fault) {
		return policy.Parse(body, "json")
	})
}

func (s *Server) patchPolicy(w http.ResponseWriter, r *http.Request) error {
	return s.changePolicy(w, r, "policy.patch", func(current *policy.Policy, body []byte) (policy.Document, []strict.Fault) {
		return current.Document.Merge(body)
	})
}

func (s *Server) changePolicy(w http.ResponseWriter, r *http.Request, action string, read func(current *policy.Policy, body []byte) (policy.Document, []strict.Fault)) error {
	current, anyOther, err := s.replaceable(r)
	if err != nil {
		return err
	}
	note := r.Header.Get("X-Change-Note")
	if len(note) > maxNote || !utf8.ValidString(note) {
		return invalidParameter("X-Change-Note", fmt.Sprintf("want at most %d bytes of UTF-8", maxNote))
	}
	body, err := s.readBody(w, r)
	if err != nil {
		return err
	}
	defer body.free()
	policy, err := s.replace(r, current, anyOther, func(current *policy.Policy) (*policy.Policy, error) {
		doc, faults := read(current, body.b)
		if len(faults) > 0 {
			return nil, strict.Invalid(faults)
		}
		return s.router.Apply(r.Context(), doc, routing.PolicyChange{
			Source: policy.SourceAPI, Action: action, Author: author(r), Note: note,
		}, current.Revision)
	})
	if err != nil {
		return err
	}
	return writePolicy(w, policy)
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
func (s *Server) validatePolicy(w http.ResponseWriter, r *http.Request) error {
	body, err := s.readBody(w, r)
	if err != nil {
		return err
	}
	defer body.free()
	current := s.router.Policy()
	check := api.PolicyCheck{CurrentRevision: current.Revision, Errors: []api.Fault{}, Differences: []api.Difference{}}
	doc, faults := policy.Parse(body.b, "json")
	if len(faults) > 0 {
		check.Errors = calls.FaultsOf(faults)
		return writeJSON(w, http.StatusOK, check)
	}
	next, faults := policy.Compile(doc)
	if len(faults) > 0 {
		return strict.Invalid(faults)
	}
	differences, err := policy.Differences(current.Document, doc)
	if err != nil {
		return fmt.Errorf("compare the policies: %w", err)
	}
	for _, d := range differences {
		check.Differences = append(check.Differences, api.Difference{Pointer: d.Pointer, Before: d.Before, After: d.After})
	}
	if warnings := append(slices.Clone(next.Warnings), s.router.HiddenBy(next)...); len(warnings) > 0 {
		check.Warnings = calls.FaultsOf(warnings)
	}
	check.Valid, check.Replay = true, s.replay(next)
	return writeJSON(w, http.StatusOK, check)
}

func (s *Server) replay(next *policy.Policy) *api.PolicyReplay {
	result := s.router.Replay(next)
	replay := &api.PolicyReplay{
		Decisions: result.Decisions, Moved: result.Moved, Failed: result.Failed, Examples: []api.ReplayedDecision{},
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
func (s *Server) listRevisions(w http.ResponseWriter, r *http.Request) error {
	q := readQuery(r, "limit", "cursor")
	limit, place := q.limit(), q.cursor(revisionCursor)
	before, err := strconv.ParseUint(place, 10, 64)
	if place != "" && err != nil {
		q.fault("cursor", "is not the next_cursor of this list")
	}
	if err := q.err(); err != nil {
		return err
	}
	list, err := s.router.Revisions(r.Context(), maxRevisions)
	if err != nil {
		return err
	}
	if place != "" {
		list = slices.DeleteFunc(list, func(p policy.Stored) bool { return p.Revision >= before })
	}
	page := api.List[api.PolicyRevision]{Data: []api.PolicyRevision{}}
	if len(list) > limit {
		list = list[:limit]
		page.NextCursor = revisionCursor.encode(strconv.FormatUint(list[limit-1].Revision, 10))
	}
	current := s.router.Policy().Revision
	for _, p := range list {
		revision := toRevision(p, current)
		revision.Document = nil
		page.Data = append(page.Data, revision)
	}
	return writeJSON(w, http.StatusOK, page)
}

// maxRevisions is more than a store keeps.
const maxRevisions = 1000

func toRevision(p policy.Stored, current uint64) api.PolicyRevision {
	return api.PolicyRevision{
		Revision: p.Revision, Source: p.Source, Author: p.Author, Note: p.Note,
		SavedAt: p.SavedAt, Current: p.Revision == current, Document: p.Document,
	}
}

func (s *Server) getRevision(w http.ResponseWriter, r *http.Request) error {
	n, err := revisionOf(r)
	if err != nil {
		return err
	}
	list, err := s.router.Revisions(r.Context(), maxRevisions)
	if err != nil {
		return err
	}
	for _, p := range list {
		if p.Revision == n {
			return writeJSON(w, http.StatusOK, toRevision(p, s.router.Policy().Revision))
		}
	}
	return fmt.Errorf("revision %d: %w", n, policy.ErrNoRevision)
}

func revisionOf(r *http.Request) (uint64, error) {
	n, err := strconv.ParseUint(r.PathValue("n"), 10, 53)
	if err != nil {
		return 0, invalidParameter("n", "want the number of a revision")
	}
	return n, nil
}

func (s *Server) restoreRevision(w http.ResponseWriter, r *http.Request) error {
	n, err := revisionOf(r)
	if err != nil {
		return err
	}
	current, anyOther, err := s.replaceable(r)
	if err != nil {
		return err
	}
	policy, err := s.replace(r, current, anyOther, func(current *policy.Policy) (*policy.Policy, error) {
		return s.router.Restore(r.Context(), n, author(r), current.Revision)
	})
	if err != nil {
		return err
	}
	return writePolicy(w, policy)
}
