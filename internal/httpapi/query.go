package httpapi

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"headway/api"
	"headway/internal/apiv1"
	"headway/internal/strict"
)

// maxParameter is the longest value of a parameter, in bytes.
const maxParameter = 256

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

func (q *query) oneOf(name string, allowed []string) {
	if v := q.values[name]; v != "" && !slices.Contains(allowed, v) {
		q.fault(name, "want one of: "+strings.Join(allowed, ", "))
	}
}
