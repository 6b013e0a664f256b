package httpapi

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"headway/api"
	"headway/internal/apiv1"
	"headway/internal/fleet"
	"headway/internal/strict"
)

// Bounds of a query.
const (
	maxParameter = 256 // bytes of a value
	defaultPage  = 100
	maxPage      = 1000
)

// query is the parameters of a request, and what is wrong with them.
type query struct {
	values map[string]string
	faults []api.Fault
}

// readQuery reads the known parameters of a request and refuses others.
func readQuery(r *http.Request, known ...string) *query {
	q := &query{values: map[string]string{}}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		q.faults = append(q.faults, api.Fault{Reason: "the query cannot be read: it is not percent-encoded as it should be"})
		return q
	}
	unknown := "is not known; there are none here"
	if len(known) > 0 {
		unknown = "is not known; known are: " + strings.Join(known, ", ")
	}
	for name, list := range values {
		switch {
		case len(q.faults) > apiv1.MaxFaults:
			return q
		case !slices.Contains(known, name):
			q.fault(strict.Clip(name), unknown)
		case len(list) > 1:
			q.fault(name, "is there more than once")
		case len(list[0]) > maxParameter:
			q.fault(name, "has more than "+strconv.Itoa(maxParameter)+" bytes")
		default:
			q.values[name] = list[0]
		}
	}
	return q
}

func (q *query) fault(name, reason string) {
	q.faults = append(q.faults, api.Fault{Parameter: name, Reason: reason})
}

func (q *query) err() error {
	if len(q.faults) == 0 {
		return nil
	}
	slices.SortFunc(q.faults, func(a, b api.Fault) int { return strings.Compare(a.Parameter, b.Parameter) })
	return &apiv1.Problem{Code: api.CodeInvalid, Detail: apiv1.DetailOf(q.faults), Faults: q.faults}
}

// invalidParameter is the error for one parameter of the path.
func invalidParameter(name, reason string) error {
	faults := []api.Fault{{Parameter: name, Reason: reason}}
	return &apiv1.Problem{Code: api.CodeInvalid, Detail: apiv1.DetailOf(faults), Faults: faults}
}

// limit is the size of a page.
func (q *query) limit() int {
	text, given := q.values["limit"]
	if !given {
		return defaultPage
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxPage {
		q.fault("limit", "must be 1 to "+strconv.Itoa(maxPage))
	}
	return n
}

func (q *query) oneOf(name string, allowed []string) {
	if v := q.values[name]; v != "" && !slices.Contains(allowed, v) {
		q.fault(name, "want one of: "+strings.Join(allowed, ", "))
	}
}

// cursorKind tells the cursors of one list from those of another. What they
// hold is nobody's business but the list's.
type cursorKind string

const (
	headCursor     cursorKind = "h:"
	decisionCursor cursorKind = "d:"
	revisionCursor cursorKind = "p:"
	keyCursor      cursorKind = "k:"
	letterCursor   cursorKind = "l:"
)

func (k cursorKind) encode(place string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(string(k) + place))
}

// cursor is the place after which the page begins, "" for the first page.
func (q *query) cursor(kind cursorKind) string {
	text := q.values["cursor"]
	if text == "" {
		return ""
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	place, ours := strings.CutPrefix(string(raw), string(kind))
	// The decoder passes over line ends.
	if err != nil || strings.ContainsAny(text, "\r\n") || !ours || !fleet.ValidID(place) {
		q.fault("cursor", "is not the next_cursor of this list")
		return ""
	}
	return place
}
