package apiv1

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"headway/api"
	"headway/internal/access"
	"headway/internal/audit"
	"headway/internal/fleet"
	"headway/internal/policy"
	"headway/internal/routing"
	"headway/internal/strict"
	"headway/internal/trail"

	"github.com/go-json-experiment/json"
)

// Problem is an error as it is answered.
type Problem struct {
	Code       string // one of api.Code…
	Detail     string // a sentence
	Faults     []api.Fault
	RetryAfter time.Duration
	noHead     *routing.NoHeadError // for what more it has to say
}

// ErrNoLetter says that no dead letter of the message queue has a number.
var ErrNoLetter = errors.New("there is no dead letter with this number")

func (p *Problem) Error() string { return p.Code + ": " + p.Detail }

// Status is the problem's status in HTTP.
func (p *Problem) Status() int { return kinds[p.Code].status }

// RefusesCaller reports whether the problem is the caller or its origin. The audit
// trail has such attempts.
func (p *Problem) RefusesCaller() bool {
	switch p.Code {
	case api.CodeForeignHost, api.CodeCrossOrigin, api.CodeUnauthenticated, api.CodeForbidden, api.CodeKeyInURL, api.CodeOverrideNotAllowed:
		return true
	}
	return false
}

// Answer is the problem as it is sent, without what only the carrier knows:
// the instance and the request's id.
func (p *Problem) Answer() api.Problem {
	kind := kinds[p.Code]
	a := api.Problem{
		Type: "urn:headway:problem:" + p.Code, Title: kind.title, Status: kind.status,
		Detail: p.Detail, Code: p.Code, Errors: p.Faults,
	}
	if p.noHead != nil {
		a.Reason, a.Removed = p.noHead.Reason().String(), p.noHead.Counts
		if p.noHead.Explanation != nil {
			a.Explanation = toExplanation(p.noHead.Explanation)
		}
	}
	return a
}

// Encode is an answer as bytes.
func Encode(a api.Problem) []byte {
	encoded, err := json.Marshal(a, json.Deterministic(true))
	if err != nil { // a text is not UTF-8
		encoded = fmt.Appendf(nil, `{"type":"about:blank","status":%d}`, a.Status)
	}
	return encoded
}

// kinds are the status and title of each code.
var kinds = map[string]struct {
	status int
	title  string
}{
	api.CodeInvalidJSON:         {http.StatusBadRequest, "Malformed JSON"},
	api.CodeInvalid:             {http.StatusUnprocessableEntity, "Invalid request"},
	api.CodeTooLarge:            {http.StatusRequestEntityTooLarge, "Content too large"},
	api.CodeUnsupportedMedia:    {http.StatusUnsupportedMediaType, "Unsupported media type"},
	api.CodeRequestTimeout:      {http.StatusRequestTimeout, "Request timeout"},
	api.CodeUpgradeRequired:     {http.StatusUpgradeRequired, "Upgrade required"},
	api.CodeQueueUnavailable:    {http.StatusServiceUnavailable, "Message queue unavailable"},
	api.CodeLetterNotFound:      {http.StatusNotFound, "Dead letter not found"},
	api.CodeNotFound:            {http.StatusNotFound, "Not found"},
	api.CodeMethodNotAllowed:    {http.StatusMethodNotAllowed, "Method not allowed"},
	api.CodeHeadNotFound:        {http.StatusNotFound, "Head not found"},
	api.CodeStaleEpoch:          {http.StatusConflict, "Stale epoch"},
	api.CodeHeadContested:       {http.StatusConflict, "Head id in use"},
	api.CodeNotEjected:          {http.StatusNotFound, "Head not ejected"},
	api.CodeTooFewRequests:      {http.StatusConflict, "Too few requests"},
	api.CodeFleetFull:           {http.StatusInsufficientStorage, "Fleet full"},
	api.CodeOverloaded:          {http.StatusServiceUnavailable, "Overloaded"},
	api.CodeStateUnavailable:    {http.StatusServiceUnavailable, "State unavailable"},
	api.CodeConflict:            {http.StatusConflict, "Conflict"},
	api.CodeUnknownModelType:    {http.StatusNotFound, "Unknown model type"},
	api.CodeObjective:           {http.StatusTooManyRequests, "Objective unreachable"},
	api.CodeNoEligibleHead:      {http.StatusServiceUnavailable, "No eligible head"},
	api.CodeOverrideNotAllowed:  {http.StatusForbidden, "Override not allowed"},
	api.CodeDecisionNotFound:    {http.StatusNotFound, "Decision not found"},
	api.CodePreconditionMissing: {http.StatusPreconditionRequired, "Precondition required"},
	api.CodePreconditionFailed:  {http.StatusPreconditionFailed, "Precondition failed"},
	api.CodeRevisionNotFound:    {http.StatusNotFound, "Revision not found"},
	api.CodeUnauthenticated:     {http.StatusUnauthorized, "Unauthorized"},
	api.CodeKeyInURL:            {http.StatusBadRequest, "Key in URL"},
	api.CodeMalformed:           {http.StatusBadRequest, "Malformed HTTP request"},
	api.CodeIssuerUnavailable:   {http.StatusServiceUnavailable, "Token issuer unavailable"},
	api.CodeForbidden:           {http.StatusForbidden, "Forbidden"},
	api.CodeRateLimited:         {http.StatusTooManyRequests, "Too many requests"},
	api.CodeKeyNotFound:         {http.StatusNotFound, "Key not found"},
	api.CodeLastAdmin:           {http.StatusConflict, "Last administrator"},
	api.CodeAuditUnavailable:    {http.StatusServiceUnavailable, "Audit trail unavailable"},
	api.CodeForeignHost:         {http.StatusMisdirectedRequest, "Misdirected request"},
	api.CodeCrossOrigin:         {http.StatusForbidden, "Cross-origin request"},
	api.CodeTimeout:             {http.StatusGatewayTimeout, "Gateway timeout"},
	api.CodeClientGone:          {StatusClientGone, "Client closed request"},
	api.CodeInternal:            {http.StatusInternalServerError, "Internal server error"},
}

// StatusClientGone is nginx's code for a client that closed the connection before
// the answer.
const StatusClientGone = 499

// knownErrors are the sentinel errors that have a code.
var knownErrors = []struct {
	err    error
	code   string
	detail string // "": what the error says
	retry  time.Duration
}{
	{access.ErrInURL, api.CodeKeyInURL, "", 0},
	{access.ErrNoCredential, api.CodeUnauthenticated, "", 0},
	{access.ErrMalformed, api.CodeUnauthenticated, "", 0},
	{access.ErrSeveral, api.CodeUnauthenticated, "", 0},
	{access.ErrElsewhere, api.CodeUnauthenticated, "", 0},
	{access.ErrUnknown, api.CodeUnauthenticated, "", 0},
	{access.ErrExpired, api.CodeUnauthenticated, "", 0},
	{access.ErrRevoked, api.CodeUnauthenticated, "", 0},
	{access.ErrUntrusted, api.CodeUnauthenticated, "", 0},
	{fleet.ErrHeadNotFound, api.CodeHeadNotFound, "No head with this id is registered; register it with POST /api/v1/heads.", 0},
	{fleet.ErrStaleEpoch, api.CodeStaleEpoch, "The epoch is not that of the head's current lease. Use the epoch of its last registration, or register again.", 0},
	{fleet.ErrNotEjected, api.CodeNotEjected, "The head is not ejected. GET /api/v1/heads/{id} shows its state.", 0},
	{policy.ErrConflict, api.CodePreconditionFailed, "The policy was changed in the meantime. Read it again, with its ETag, and repeat the change.", 0},
	{policy.ErrNoRevision, api.CodeRevisionNotFound, "No revision has this number. GET /api/v1/policy/revisions lists them.", 0},
	{routing.ErrDecisionNotFound, api.CodeDecisionNotFound, "No recent decision has this id.", 0},
	{ErrNoLetter, api.CodeLetterNotFound, "No dead letter has this number. GET /api/v1/queue/dead-letters lists them.", 0},
	{access.ErrKeyNotFound, api.CodeKeyNotFound, "No key has this id. GET /api/v1/keys lists them.", 0},
	{access.ErrLastAdmin, api.CodeLastAdmin, "This is the last key that may administer while others are in use. Create another first.", 0},
	{trail.ErrQuery, api.CodeInvalid, "The cursor is not the next_cursor of this search.", 0},
	{audit.ErrUnavailable, api.CodeAuditUnavailable, "The audit trail cannot be written, so nothing was changed. See the log of the service.", 5 * time.Second},
	{fleet.ErrConflict, api.CodeConflict, "It was changed at the same time. Read it again and repeat the change.", 0},
	{fleet.ErrFleetFull, api.CodeFleetFull, "The fleet has reached its configured limit (heads.max or heads.max_model_types).", 0},
	{fleet.ErrOverloaded, api.CodeOverloaded, "Too many changes are waiting to be written. Try again.", time.Second},
	{fleet.ErrStoreUnavailable, api.CodeStateUnavailable, "The state cannot be written. Nothing was changed.", 5 * time.Second},
	{context.DeadlineExceeded, api.CodeTimeout, "The answer took too long. The change may or may not have taken effect.", 0},
	{context.Canceled, api.CodeClientGone, "The client closed the connection before the answer.", 0},
}

// ProblemOf is the only place that maps errors to codes, and so to statuses. The
// text of an error that it does not know is not sent.
func ProblemOf(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	if broken, ok := errors.AsType[*strict.SyntaxError](err); ok {
		return InvalidJSON(broken.Pointer, "The body "+broken.Reason+".")
	}
	if invalid, ok := errors.AsType[*strict.InvalidError](err); ok {
		faults := FaultsOf(invalid.Faults)
		return &Problem{Code: api.CodeInvalid, Detail: DetailOf(faults), Faults: faults}
	}
	if denied, ok := errors.AsType[*access.DeniedError](err); ok {
		return &Problem{Code: api.CodeForbidden, Detail: sentence(denied.Reason)}
	}
	if limited, ok := errors.AsType[*access.LimitedError](err); ok {
		return &Problem{Code: api.CodeRateLimited, Detail: sentence(limited.Error()), RetryAfter: max(limited.RetryAfter, time.Second)}
	}
	if unchecked, ok := errors.AsType[*access.UncheckedError](err); ok {
		wait := max(unchecked.RetryAfter, time.Second)
		detail := fmt.Sprintf("%s The issuer is asked for its keys again in %.0f s at the earliest.", sentence(unchecked.Why.Error()), math.Ceil(wait.Seconds()))
		return &Problem{Code: api.CodeIssuerUnavailable, Detail: detail, RetryAfter: wait}
	}
	if override, ok := errors.AsType[*routing.OverrideError](err); ok {
		return &Problem{
			Code:   api.CodeOverrideNotAllowed,
			Detail: "The policy does not let callers set " + strings.TrimPrefix(override.Field, "/") + "; caller_may lists what they may set.",
			Faults: []api.Fault{{Pointer: override.Field, Reason: "is reserved to the policy"}},
		}
	}
	if no, ok := errors.AsType[*routing.NoHeadError](err); ok {
		return noHeadProblem(no)
	}
	if contested, ok := errors.AsType[*fleet.ContestedError](err); ok {
		return &Problem{
			Code: api.CodeHeadContested,
			Detail: "Another endpoint registered this id, and its lease ends in " + contested.Left.Round(100*time.Millisecond).String() +
				" unless it reports. If that is another machine, give each an id of its own. If this head has moved, report the old one as offline, wait until its lease has ended, or register with take_over.",
			Faults:     []api.Fault{{Pointer: "/endpoint", Reason: "is another than the one that holds the lease"}},
			RetryAfter: max(contested.Left, time.Second),
		}
	}
	for _, k := range knownErrors {
		if errors.Is(err, k.err) {
			return &Problem{Code: k.code, Detail: cmp.Or(k.detail, sentence(k.err.Error())), RetryAfter: k.retry}
		}
	}
	return &Problem{Code: api.CodeInternal, Detail: "An internal error occurred. The log has the details under the request id."}
}

// MaxFaults is the most faults that one answer lists.
const MaxFaults = 50

// InvalidJSON is the problem of a body that is not JSON at the place that the
// pointer names.
func InvalidJSON(pointer, detail string) *Problem {
	p := &Problem{Code: api.CodeInvalidJSON, Detail: detail}
	p.Faults = []api.Fault{{Pointer: strict.Clip(pointer), Reason: strings.ToLower(detail[:1]) + strings.TrimSuffix(detail[1:], ".")}}
	return p
}

// FaultsOf are faults as they are sent.
func FaultsOf(list []strict.Fault) []api.Fault {
	faults := make([]api.Fault, len(list))
	for i, f := range list {
		faults[i] = api.Fault{Pointer: strict.Clip(f.Pointer), Reason: f.Reason}
	}
	return faults
}

// DetailOf says the only fault, or how many there are.
func DetailOf(faults []api.Fault) string {
	if len(faults) != 1 {
		return strconv.Itoa(len(faults)) + " things are wrong with the request; errors lists them."
	}
	switch f := faults[0]; {
	case f.Parameter != "":
		return "Parameter " + f.Parameter + ": " + f.Reason + "."
	case f.Pointer != "":
		return f.Pointer + ": " + f.Reason + "."
	default:
		return strings.ToUpper(f.Reason[:1]) + f.Reason[1:] + "."
	}
}

func noHeadProblem(no *routing.NoHeadError) *Problem {
	if no.Failure == routing.FailUnknownModel {
		detail, reason := no.Sentence("this model type"), "is not known"
		if no.Nearest != "" {
			detail += " Did you mean " + no.Nearest + "?"
			reason += "; did you mean " + no.Nearest + "?"
		}
		return &Problem{
			Code: api.CodeUnknownModelType, Detail: detail,
			Faults: []api.Fault{{Pointer: "/model_type", Reason: reason}},
		}
	}
	code := api.CodeNoEligibleHead
	if no.Failure == routing.FailObjective {
		code = api.CodeObjective
	}
	return &Problem{Code: code, Detail: no.Sentence(no.ModelType) + no.Known, RetryAfter: no.RetryAfter, noHead: no}
}

// sentence makes a sentence of an error.
func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] + "." }
