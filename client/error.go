package client

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"headway/api"
)

// Sentinels for errors.Is. One error may match several: a stale epoch is a
// conflict as well.
var (
	ErrInvalid          = errors.New("the request is invalid")                    // 400, 405, 415, 422, 428
	ErrUnauthorized     = errors.New("no valid key")                              // 401
	ErrForbidden        = errors.New("not allowed")                               // 403
	ErrNotFound         = errors.New("not found")                                 // 404 of any kind
	ErrUnknownModelType = errors.New("unknown model type")                        // no head serves it, and the policy does not name it
	ErrConflict         = errors.New("in conflict with the state")                // 409, 412
	ErrStale            = errors.New("made from an older state")                  // an epoch or an ETag that is not the current one
	ErrTooLarge         = errors.New("too large")                                 // 413, or an answer beyond the bound
	ErrRateLimited      = errors.New("too many requests")                         // 429
	ErrUnavailable      = errors.New("unavailable")                               // 502, 503, 504, 507, or no answer at all
	ErrNoHead           = errors.New("no head can take the request")              // Problem.Reason says why
	ErrAnswer           = errors.New("the answer is not one of Headway's router") // wrong JSON, or an unexpected status
)

// Error is an answer with an error status.
type Error struct {
	Problem    api.Problem   // only Status and Title are set when the answer was no problem document
	Status     int           // of HTTP
	RetryAfter time.Duration // what the router asks to wait, up to an hour; 0: it does not say
}

// Error has the code, the detail and the faults.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%d)", cmp.Or(e.Problem.Code, strings.ToLower(http.StatusText(e.Status)), "unexpected status"), e.Status)
	if text := cmp.Or(e.Problem.Detail, e.Problem.Title); text != "" {
		b.WriteString(": " + text)
	}
	if len(e.Problem.Errors) > 1 {
		for _, f := range e.Problem.Errors {
			fmt.Fprintf(&b, " %s: %s.", cmp.Or(f.Pointer, f.Parameter, "body"), f.Reason)
		}
	}
	if e.Problem.RequestID != "" {
		b.WriteString(" [request " + e.Problem.RequestID + "]")
	}
	return b.String()
}

// Is reports whether target is one of the sentinels that fit.
func (e *Error) Is(target error) bool {
	return target == ofStatus[e.Status] || target == ofCode[e.Problem.Code] || target == ErrAnswer && e.Status < http.StatusBadRequest
}

var ofCode = map[string]error{
	api.CodeStaleEpoch:         ErrStale,
	api.CodePreconditionFailed: ErrStale,
	api.CodeNoEligibleHead:     ErrNoHead,
	api.CodeUnknownModelType:   ErrUnknownModelType,
}

var ofStatus = map[int]error{
	http.StatusBadRequest:            ErrInvalid,
	http.StatusUnauthorized:          ErrUnauthorized,
	http.StatusForbidden:             ErrForbidden,
	http.StatusNotFound:              ErrNotFound,
	http.StatusMethodNotAllowed:      ErrInvalid,
	http.StatusConflict:              ErrConflict,
	http.StatusPreconditionFailed:    ErrConflict,
	http.StatusRequestEntityTooLarge: ErrTooLarge,
	http.StatusUnsupportedMediaType:  ErrInvalid,
	http.StatusUnprocessableEntity:   ErrInvalid,
	http.StatusPreconditionRequired:  ErrInvalid,
	http.StatusTooManyRequests:       ErrRateLimited,
	http.StatusBadGateway:            ErrUnavailable,
	http.StatusServiceUnavailable:    ErrUnavailable,
	http.StatusGatewayTimeout:        ErrUnavailable,
	http.StatusInsufficientStorage:   ErrUnavailable,
}

// newError makes an error of an answer. A body that is no problem, as of a
// proxy, is not repeated.
func newError(resp *http.Response, body []byte) *Error {
	e := &Error{Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now())}
	isProblem := strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json")
	if !isProblem || json.Unmarshal(body, &e.Problem) != nil || e.Problem.Code == "" {
		e.Problem = api.Problem{Title: http.StatusText(e.Status), Status: e.Status}
	}
	return e
}

// maxRetryAfter bounds the accepted Retry-After.
const maxRetryAfter = time.Hour

func retryAfter(text string, now time.Time) time.Duration {
	if text == "" {
		return 0
	}
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		return time.Duration(min(n, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}
