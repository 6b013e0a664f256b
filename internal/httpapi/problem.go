package httpapi

import (
	"errors"
	"math"
	"net/http"
	"strconv"

	"headway/api"
	"headway/internal/apiv1"
	"headway/internal/openai"
	"headway/internal/proxy"
	"headway/internal/strict"
)

// maxInstance is the longest path that a problem repeats.
const maxInstance = 256

// fail refuses a request in its route's form of an error, unless an answer has
// begun.
func (s *Server) fail(a *answer, r *http.Request, err error) {
	if refused, ok := errors.AsType[*openai.Error](err); ok {
		if _, own := errors.AsType[*proxy.RefusedError](err); own {
			s.refusedClient(a, r, refused)
		}
		answerClient(a, dialect(r), refused)
		return
	}
	if errors.Is(err, proxy.ErrAborted) {
		return
	}
	p := apiv1.ProblemOf(err)
	s.denied(a, r, p, err)
	s.metrics.refused(p.Code)
	if p.Code == api.CodeInternal {
		s.o.Log.Error("request failed", "method", r.Method, "path", strict.Clip(r.URL.Path), "request_id", a.requestID(), "error", err)
	}
	switch {
	case a.status != 0:
	case p.Code == api.CodeClientGone:
		a.status = apiv1.StatusClientGone
	default:
		a.route.refuse(a, r, p)
	}
}

// problem answers with application/problem+json.
func (s *Server) problem(a *answer, r *http.Request, p *apiv1.Problem) {
	body := p.Answer()
	body.RequestID = a.requestID()
	if p.Code != api.CodeKeyInURL { // the path may hold the key
		body.Instance = s.external.prefix + r.URL.EscapedPath()
		body.Instance = body.Instance[:min(len(body.Instance), maxInstance)]
	}
	encoded := append(apiv1.Encode(body), '\n')
	h := a.Header()
	h["Content-Type"] = problemType
	if body.Status == http.StatusUnauthorized {
		h["Www-Authenticate"] = []string{`Bearer realm="headway"`}
	}
	if p.RetryAfter > 0 {
		h["Retry-After"] = []string{strconv.Itoa(int(math.Ceil(p.RetryAfter.Seconds())))}
	}
	h["Content-Length"] = []string{strconv.Itoa(len(encoded))} // it may be flushed before the request ends
	if r.ProtoMajor == 1 && (body.Status == http.StatusRequestEntityTooLarge || body.Status == http.StatusRequestTimeout) {
		h["Connection"] = closeConnection // what is left of the body is not worth reading
	}
	a.WriteHeader(body.Status)
	_, _ = a.Write(encoded)
}
