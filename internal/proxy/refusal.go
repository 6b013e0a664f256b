package proxy

import (
	"errors"
	"net/http"
	"strings"

	"headway/internal/access"
	"headway/internal/openai"
	"headway/internal/routing"
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
		known := ""
		if x.caller.Principal.May(access.Read) {
			known = x.proxy.o.Router.KnownRegions(x.req.Region)
		}
		return &openai.Error{
			Status: http.StatusBadRequest, Code: no.Reason().String(), Param: strings.ToLower(hintRegion),
			Message: no.Sentence(model) + known,
		}
	case no.Failure == routing.FailObjective:
		return &openai.Error{
			Status: http.StatusTooManyRequests, Code: no.Failure.String(), RetryAfter: retryAfterPause(no.RetryAfter), Message: no.Sentence(model),
		}
	default:
		return &openai.Error{Status: http.StatusServiceUnavailable, Code: no.Failure.String(), RetryAfter: retryAfter(), Message: no.Sentence(model)}
	}
}
