package openai

import (
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"
)

// Error is an error object of the API. Status and Message are required; what is
// empty of Type and Code is filled in from the status as the real APIs do.
// A nil *Error is no error; it must not be stored in an error.
type Error struct {
	Status  int
	Type    string // OpenAI's; Anthropic's follows from the status
	Code    string
	Param   string // the field that is at fault
	Message string
	// RetryAfter is for the header; zero for none.
	RetryAfter time.Duration
}

func (e *Error) Error() string { return e.Message }

// ModelNotFound is the answer to a model that no head serves.
func ModelNotFound(model string) *Error {
	return &Error{
		Status: http.StatusNotFound, Code: "model_not_found", Param: "model",
		Message: "The model `" + clip(model) + "` does not exist or you do not have access to it.",
	}
}

// defaults are the values by status; others are taken for 400 or 500.
var defaults = map[int]struct{ kind, code, anthropic string }{
	400: {"invalid_request_error", "", "invalid_request_error"},
	401: {"invalid_request_error", "invalid_api_key", "authentication_error"},
	403: {"invalid_request_error", "insufficient_permissions", "permission_error"},
	404: {"invalid_request_error", "not_found", "not_found_error"},
	405: {"invalid_request_error", "method_not_supported", "invalid_request_error"},
	413: {"invalid_request_error", "request_too_large", "request_too_large"},
	415: {"invalid_request_error", "unsupported_content_type", "invalid_request_error"},
	429: {"requests", "rate_limit_exceeded", "rate_limit_error"},
	500: {"server_error", "", "api_error"},
	502: {"server_error", "bad_gateway", "api_error"},
	503: {"server_error", "service_unavailable", "overloaded_error"},
	504: {"server_error", "timeout", "timeout_error"},
}

// Append writes the error as the body of an answer in a dialect. The id of the
// request is part of Anthropic's form, where it is left out when empty.
func (e *Error) Append(dst []byte, d Dialect, requestID string) []byte {
	standard, known := defaults[e.Status]
	switch {
	case !known && e.Status >= 400 && e.Status < 500:
		standard = defaults[400]
	case !known:
		standard = defaults[500]
	}
	if d == Anthropic {
		dst = append(dst, `{"type":"error","error":{"type":"`...)
		dst = append(dst, standard.anthropic...)
		dst = append(dst, `","message":`...)
		dst = appendString(dst, e.Message)
		dst = append(dst, '}')
		if requestID != "" {
			dst = append(dst, `,"request_id":`...)
			dst = appendString(dst, requestID)
		}
		return append(dst, '}')
	}
	return append(e.appendObject(append(dst, `{"error":`...), standard.kind, standard.code), '}')
}

func (e *Error) appendObject(dst []byte, kind, code string) []byte {
	if e.Type != "" {
		kind = e.Type
	}
	if e.Code != "" {
		code = e.Code
	}
	dst = appendString(append(dst, `{"message":`...), e.Message)
	dst = appendString(append(dst, `,"type":`...), kind)
	dst = appendNullable(append(dst, `,"param":`...), e.Param)
	dst = appendNullable(append(dst, `,"code":`...), code)
	return append(dst, '}')
}

// AppendEvent writes the error as an event of a stream, to be put where the
// stream stands between events. No event that means a clean end follows it.
func (e *Error) AppendEvent(dst []byte, at *Endpoint, requestID string) []byte {
	if at.Dialect == Anthropic || at.Name == "responses" {
		dst = append(dst, "event: error\n"...)
	}
	dst = append(dst, "data: "...)
	if at.Name == "responses" { // the members of its error event, and the object that clients look for
		dst = appendString(append(dst, `{"type":"error","message":`...), e.Message)
		dst = appendNullable(append(dst, `,"code":`...), e.Code)
		dst = appendNullable(append(dst, `,"param":`...), e.Param)
		object := e.Append(nil, OpenAI, "")
		dst = append(append(dst, ','), object[1:]...)
	} else {
		dst = e.Append(dst, at.Dialect, requestID)
	}
	return append(dst, "\n\n"...)
}

// RetryAfterSeconds is the header's value: whole seconds, rounded up.
func (e *Error) RetryAfterSeconds() string {
	return strconv.FormatInt(int64((e.RetryAfter+time.Second-1)/time.Second), 10)
}

func appendNullable(dst []byte, s string) []byte {
	if s == "" {
		return append(dst, "null"...)
	}
	return appendString(dst, s)
}

// appendString writes a JSON string. Invalid UTF-8 becomes U+FFFD.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, r := range s { // U+FFFD for each byte that is invalid
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r == '\n':
			dst = append(dst, `\n`...)
		case r < 0x20 || r == 0x7f:
			dst = append(dst, `\u00`...)
			dst = append(dst, hex[r>>4], hex[r&15])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}
