package httpapi

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"headway/api"
	"headway/internal/fleet"
	"headway/internal/routing"
)

// problem is an error that knows its answer.
type problem struct {
	status     int
	code       string
	detail     string
	faults     []api.Fault
	retryAfter time.Duration
}

func (p *problem) Error() string { return p.code + ": " + p.detail }

// toProblem is the only place that turns an error into a status. Errors that
// it does not know are ours, and their text stays here.
func toProblem(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	if invalid, ok := errors.AsType[*fleet.InvalidError](err); ok {
		return invalidProblem(invalid.Faults)
	}
	if override, ok := errors.AsType[*routing.OverrideError](err); ok {
		return &problem{
			status: http.StatusForbidden, code: api.CodeOverrideNotAllowed,
			detail: "The policy does not let callers set " + override.Field + "; caller_may lists what they may.",
			faults: []api.Fault{{Pointer: override.Field, Reason: "is reserved to the policy"}},
		}
	}
	if no, ok := errors.AsType[*routing.NoHeadError](err); ok {
		return noHeadProblem(no)
	}
	for _, known := range []struct {
		err    error
		status int
		code   string
		detail string
	}{
		{fleet.ErrHeadNotFound, 404, api.CodeHeadNotFound, "No head with this id is registered; register it with POST /api/v1/heads."},
		{fleet.ErrStaleEpoch, 409, api.CodeStaleEpoch, "The head has been registered again since; use the newest lease, or register."},
		{routing.ErrDecisionNotFound, 404, api.CodeDecisionNotFound, "No recent decision has this id."},
		{fleet.ErrConflict, 409, api.CodeConflict, "Somebody else changed this at the same time; read it again and repeat."},
		{fleet.ErrFleetFull, 507, api.CodeFleetFull, "The fleet is as large as the configuration allows (heads.max, heads.max_model_types)."},
		{fleet.ErrOverloaded, 503, api.CodeOverloaded, "Too many changes wait to be written; try again."},
		{fleet.ErrStoreUnavailable, 503, api.CodeStateUnavailable, "The state cannot be written; nothing was changed."},
		{context.DeadlineExceeded, 504, api.CodeTimeout, "The answer took too long; whether the change took effect is not known."},
		{context.Canceled, 499, api.CodeTimeout, "The client left."},
	} {
		if errors.Is(err, known.err) {
			p := &problem{status: known.status, code: known.code, detail: known.detail}
			if known.status == http.StatusServiceUnavailable {
				p.retryAfter = time.Second
			}
			return p
		}
	}
	return &problem{status: http.StatusInternalServerError, code: api.CodeInternal, detail: "Something went wrong here; the log has it under the request's id."}
}

func invalidProblem(faults []fleet.Fault) *problem {
	p := &problem{status: http.StatusUnprocessableEntity, code: api.CodeInvalid, detail: "The request is invalid; errors lists what is wrong with it."}
	for _, f := range faults {
		p.faults = append(p.faults, api.Fault{Pointer: f.Pointer, Reason: f.Reason})
	}
	if len(faults) == 1 {
		p.detail = faults[0].Pointer + " " + faults[0].Reason + "."
	}
	return p
}

func noHeadProblem(no *routing.NoHeadError) *problem {
	if no.Failure == routing.FailUnknownModel {
		return &problem{
			status: http.StatusNotFound, code: api.CodeUnknownModelType,
			detail: "Neither a registered head nor the policy names this model type.",
		}
	}
	detail := map[routing.Failure]string{
		routing.FailNoHeads:    "No registered head serves this model type.",
		routing.FailRegion:     "The required region has no head that takes requests.",
		routing.FailUnroutable: "Every head of this model type is drained, offline or silent.",
		routing.FailLabels:     "No head that takes requests has the labels.",
		routing.FailExcluded:   "The request excludes every head that could take it.",
		routing.FailAtCapacity: "Every head is at its max_in_flight.",
	}[no.Failure]
	for _, filter := range routing.Filters() {
		if n := no.Counts[filter]; n > 0 {
			detail += fmt.Sprintf(" Removed by %s: %d.", filter, n)
		}
	}
	return &problem{
		status: http.StatusServiceUnavailable, code: api.CodeNoEligibleHead, detail: detail,
		retryAfter: no.RetryAfter,
		faults:     []api.Fault{{Reason: string(no.Failure)}},
	}
}

// statusClientGone is nginx's code for a client that left before the answer:
// an outcome of its own, neither the client's error nor ours.
const statusClientGone = 499

// fail answers with a problem. Nothing can be said once an answer has begun.
func (s *Server) fail(a *answer, r *http.Request, err error) {
	p := toProblem(err)
	id := a.Header()["X-Request-Id"][0]
	switch {
	case p.status == http.StatusInternalServerError:
		s.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "request_id", id, "error", err)
	case p.status == statusClientGone:
		a.status = statusClientGone
		return
	}
	if a.status != 0 {
		return
	}
	body, err := json.Marshal(api.Problem{
		Type: "urn:headway:problem:" + p.code, Title: title(p.status), Status: p.status,
		Detail: p.detail, Instance: r.URL.EscapedPath(), Code: p.code, RequestID: id, Errors: p.faults,
	})
	if err != nil { // invalid UTF-8 in the path
		body = []byte(`{"type":"about:blank","status":` + strconv.Itoa(p.status) + `}`)
	}
	h := a.Header()
	h["Content-Type"] = []string{"application/problem+json"}
	if p.retryAfter > 0 {
		h["Retry-After"] = []string{strconv.Itoa(int(math.Ceil(p.retryAfter.Seconds())))}
	}
	if p.status == http.StatusRequestEntityTooLarge {
		h["Connection"] = closeConnection
	}
	a.WriteHeader(p.status)
	_, _ = a.Write(body)
}

func title(status int) string {
	if t := http.StatusText(status); t != "" {
		return t
	}
	return "Error"
}
