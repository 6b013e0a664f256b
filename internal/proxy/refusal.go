package proxy

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"

	"headway/internal/access"
	"headway/internal/openai"
	"headway/internal/routing"
	"headway/internal/strict"
)

// refusal is the answer to a decision that found no head. What the caller has to change
// is no 5xx: libraries would send it again.
func (x *exchange) refusal(err error) error {
	no, ok := errors.AsType[*routing.NoHeadError](err)
	if !ok {
		return hintError(err)
	}
	switch model := x.fields.Model; {
	case no.Failure == routing.FailUnknownModel:
		return openai.ModelNotFound(model)
	case no.Stray:
		return &openai.Error{
			Status: http.StatusBadRequest, Code: "unknown_region", Param: strings.ToLower(hintRegion),
			Message: no.Sentence(model) + x.regions(),
		}
	default:
		return &openai.Error{Status: http.StatusServiceUnavailable, Code: no.Failure.String(), RetryAfter: retryAfter(), Message: no.Sentence(model)}
	}
}

// maxRegions is how many regions one answer lists.
const maxRegions = 20

// regions names those of the fleet, to callers that may read it.
func (x *exchange) regions() string {
	if !x.caller.Principal.May(access.Read) {
		return ""
	}
	list := slices.Sorted(maps.Keys(x.proxy.o.Fleet.Snapshot().Regions))
	meant := ""
	if near := strict.Nearest(x.req.Region, list); near != "" {
		meant = " Did you mean " + near + "?"
	}
	more := ""
	if len(list) > maxRegions {
		list, more = list[:maxRegions], " and others"
	}
	return meant + " There are heads in " + strings.Join(list, ", ") + more + "."
}
