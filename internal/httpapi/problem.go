package httpapi

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"headway/api"
	"headway/internal/access"
	"headway/internal/apiv1"
	"headway/internal/strict"
)

// maxInstance is the longest path that a problem repeats.
const maxInstance = 256

// fail answers with a problem. Nothing can be said once an answer has begun.
func (s *Server) fail(a *answer, r *http.Request, err error) {
	p := apiv1.ProblemOf(err)
	body := p.Answer()
	body.RequestID, body.Instance = a.Header()["X-Request-Id"][0], s.external.prefix+r.URL.EscapedPath()
	s.metrics.refused(p.Code)
	switch {
	case body.Status == http.StatusInternalServerError:
		s.log.Error("request failed", "method", r.Method, "path", strict.Clip(r.URL.Path), "request_id", body.RequestID, "error", err)
	case body.Status == apiv1.StatusClientGone && a.status == 0:
		a.status = apiv1.StatusClientGone
		return
	}
	if a.status != 0 {
		return
	}
	if errors.Is(err, access.ErrInURL) { // the path may hold it
		body.Instance = ""
		body.Status, body.Code, body.Title = http.StatusBadRequest, api.CodeKeyInURL, "A key stands in the URL"
		body.Type = "urn:headway:problem:" + body.Code
	}
	if len(body.Instance) > maxInstance {
		body.Instance = body.Instance[:maxInstance]
	}
	s.send(a, r, p, &body)
}

func (s *Server) send(a *answer, r *http.Request, p *apiv1.Problem, body *api.Problem) {
	encoded, err := json.Marshal(body, json.Deterministic(true))
	if err != nil {
		encoded = fmt.Appendf(nil, `{"type":"about:blank","status":%d}`, body.Status)
	}
	h := a.Header()
	h["Content-Type"] = problemType
	if body.Status == http.StatusUnauthorized {
		h["Www-Authenticate"] = []string{`Bearer realm="headway"`}
	}
	if p.RetryAfter > 0 {
		h["Retry-After"] = []string{strconv.Itoa(int(math.Ceil(p.RetryAfter.Seconds())))}
	}
	encoded = append(encoded, '\n')
	h["Content-Length"] = []string{strconv.Itoa(len(encoded))} // it may be flushed before the request ends
	if r.ProtoMajor == 1 && (body.Status == http.StatusRequestEntityTooLarge || body.Status == http.StatusRequestTimeout) {
		h["Connection"] = closeConnection // what is left of the body is not worth reading
	}
	a.WriteHeader(body.Status)
	_, _ = a.Write(encoded)
}

// problemOfNet is the answer, with its header, to what net/http has refused
// before it was a request. detail may begin with the status and its text.
func problemOfNet(code int, detail string) []byte {
	body := api.Problem{
		Status: code, Code: api.CodeMalformed, Type: "urn:headway:problem:" + api.CodeMalformed,
		Title: "This is no HTTP request", RequestID: newRequestID(),
	}
	text := http.StatusText(code)
	reason := strings.TrimPrefix(strings.TrimPrefix(detail, strconv.Itoa(code)+" "+text), ": ")
	switch code {
	case http.StatusRequestHeaderFieldsTooLarge:
		reason = "the header is longer than http.max_header_bytes allows"
	case http.StatusExpectationFailed:
		reason = "the only Expect that is known is 100-continue"
	}
	body.Detail = "The request cannot be read: " + cmp.Or(reason, "it is not as RFC 9112 wants it") + "."
	encoded, err := json.Marshal(body, json.Deterministic(true))
	if err != nil {
		encoded = nil // text that net/http has made always encodes
	}
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Length: %d\r\nContent-Type: %s\r\nDate: %s\r\nX-Request-Id: %s\r\n\r\n%s\n",
		code, text, len(encoded)+1, problemType[0], time.Now().UTC().Format(http.TimeFormat), body.RequestID, encoded)
}
