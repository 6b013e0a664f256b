package httpapi

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json"

	"headway/api"
	"headway/internal/access"
	"headway/internal/calls"
)

// maxInstance is the longest path that a problem repeats.
const maxInstance = 256

// fail answers with a problem. Nothing can be said once an answer has begun.
func (s *Server) fail(a *answer, r *http.Request, err error) {
	p := calls.ProblemOf(err)
	body := p.Answer()
	body.RequestID, body.Instance = a.Header()["X-Request-Id"][0], r.URL.EscapedPath()
	s.metrics.refused(p.Code)
	switch {
	case body.Status == http.StatusInternalServerError:
		s.log.Error("request failed", "method", r.Method, "path", calls.Clip(r.URL.Path), "request_id", body.RequestID, "error", err)
	case body.Status == calls.StatusClientGone && a.status == 0:
		a.status = calls.StatusClientGone
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
	s.send(a, p, &body)
}

func (s *Server) send(a *answer, p *calls.Problem, body *api.Problem) {
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
	if body.Status == http.StatusRequestEntityTooLarge || body.Status == http.StatusRequestTimeout {
		h["Connection"] = closeConnection // what is left of the body is not worth reading
	}
	a.WriteHeader(body.Status)
	_, _ = a.Write(append(encoded, '\n'))
}
