package proxy

import (
	"bytes"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"headway/internal/openai"
	"headway/internal/routing"
	"headway/internal/upstream"
)

// Bounds of a failed answer that is kept. Its status has said already that another
// head is to answer.
const (
	maxKept  = 64 << 10        // bytes
	keptTime = 2 * time.Second // for its body
)

// kept is the answer of a head that failed, to be passed on if all do.
type kept struct {
	status int
	header http.Header
	body   []byte
	as     bool  // it is passed on as it is, an empty body too
	length int64 // of the body of an answer to GET, where it is one to HEAD
}

func (k *kept) Error() string { return http.StatusText(k.status) }

// keep reads an answer that another head may give better.
func (a *attempt) keep(res *upstream.Response, result routing.Result) *failure {
	res.Body.EndBy(time.Now().Add(keptTime))
	body, err := readWhole(res, make([]byte, 0, 2<<10))
	if !ended(err) || len(body) > maxKept || a.torn(res, body) { // broken off, or too long to be an error
		body = nil
	}
	return a.keepBytes(res, body, result)
}

// torn reports whether an answer whose end is that of its connection ends in its middle.
func (a *attempt) torn(res *upstream.Response, body []byte) bool {
	if res.Framed || mediaType(res.Header) != "application/json" {
		return false
	}
	answer := openai.Answer{Endpoint: a.x.caller.Endpoint}
	answer.Push(nil, body)
	return answer.Broken()
}

// keepOf is keep for an answer to PassThrough, which is for the caller as it is. One
// that is too long to be kept is passed on at once: no other head is asked.
func (x *exchange) keepOf(res *upstream.Response) *failure {
	if res.ContentLength > maxWhole && x.r.Method != http.MethodHead {
		return x.forward(res, nil)
	}
	x.wait(x.proxy.o.Now())
	undo := res.Body.EndBy(time.Now().Add(keptTime))
	body, err := readWhole(res, make([]byte, 0, 2<<10))
	x.resume(x.proxy.o.Now())
	if err == nil {
		undo()
		return x.forward(res, body)
	}
	if !ended(err) {
		body = nil
	}
	f := x.keepBytes(res, body, routing.ResultError)
	if k, is := f.answer.(*kept); is { //nolint:errorlint // it comes as it is
		k.as, k.length = ended(err), res.ContentLength
	}
	return f
}

func (a *attempt) keepBytes(res *upstream.Response, body []byte, result routing.Result) *failure {
	status := res.Status
	if status < 300 {
		status = statusInside(body) // {"error":…} in an answer that says that all is well
		a.failing(reasonErrorInside)
	}
	return &failure{
		again: status >= 500 || status == http.StatusTooManyRequests, outcome: a.outcome(result, status),
		answer: &kept{status: status, header: res.Header, body: bytes.Clone(a.renamed(body))},
	}
}

// saidStatus is how engines say the status of an error within an answer of 200.
// Within a string its quotes would be escaped.
var saidStatus = regexp.MustCompile(`"(?:code|status)"\s*:\s*"?(4[0-9][0-9])\b`)

// statusInside is the status of an error within an answer: 4xx if that says so of
// what the caller asked for, or that the head is full, else 502.
func statusInside(text []byte) int {
	if said := saidStatus.FindSubmatch(text[:min(len(text), maxKept)]); said != nil {
		switch status, _ := strconv.Atoi(string(said[1])); status {
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired, http.StatusRequestTimeout, statusClientGone:
		default:
			return status
		}
	}
	return http.StatusBadGateway
}

// late is an answer that is no stream though the caller's has begun, with a
// comment.
func (x *exchange) late(res *upstream.Response) *failure {
	if res.Status < 400 {
		f := x.broken(&upstream.Error{Kind: upstream.Malformed, Sent: true, Received: true, Err: errors.New("no stream of events")})
		f.again = false // others would answer likewise
		return f
	}
	f := x.keep(res, routing.ResultError)
	f.again = false // the caller's fault, or what heads have not
	return f
}

// event is the answer as an event of a stream that has begun.
func (k *kept) event(x *exchange) (event []byte) {
	e := x.caller.Endpoint
	if mediaType(k.header) != "application/json" || len(k.body) == 0 || k.status < 400 {
		failed := openai.Error{Status: k.status, Message: "The head that the request was sent to answered " + k.Error() + "."}
		return failed.AppendEvent(nil, e, x.caller.RequestID)
	}
	if e.Dialect == openai.Anthropic {
		event = append(event, "event: error\n"...)
	}
	for line := range bytes.FieldsFuncSeq(k.body, func(r rune) bool { return r == '\n' || r == '\r' }) {
		event = append(append(append(event, "data: "...), line...), '\n')
	}
	return append(event, '\n')
}

// send answers with what the last head said.
func (k *kept) send(x *exchange) error {
	again := time.Duration(0)
	switch {
	case k.status == http.StatusTooManyRequests:
		again = retryAfterPause(x.leastPause())
	case k.status >= 500:
		again = retryAfter()
	}
	if !k.as && (mediaType(k.header) != "application/json" || len(k.body) == 0) {
		return &openai.Error{Status: k.status, Message: "The head that the request was sent to answered " + k.Error() + ".", RetryAfter: again}
	}
	if k.status == http.StatusTooManyRequests || k.status == http.StatusServiceUnavailable && k.header["Retry-After"] == nil {
		x.w.Header()["Retry-After"] = []string{(&openai.Error{RetryAfter: again}).RetryAfterSeconds()}
	}
	length := int64(len(k.body))
	if k.as && x.r.Method == http.MethodHead {
		length = k.length
	}
	x.header(k.status, k.header, length)
	if x.write(k.body) != nil {
		return ErrAborted
	}
	return nil
}
