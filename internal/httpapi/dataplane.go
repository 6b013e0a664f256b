package httpapi

import (
	"errors"
	"net/http"
	"strconv"

	"headway/api"
	"headway/internal/access"
	"headway/internal/apiv1"
	"headway/internal/openai"
	"headway/internal/proxy"
)

// dataPlane are the routes of the OpenAI and Anthropic APIs. Their errors have the
// form of those APIs.
func (s *Server) dataPlane() (list []*route) {
	if s.o.Proxy == nil {
		return nil
	}
	for i := range openai.Endpoints() {
		e := &openai.Endpoints()[i]
		rt := &route{
			method: e.Method, pattern: e.Path, needs: access.Decide, success: http.StatusOK, query: true, client: true,
			handle: func(a *answer, r *http.Request) error { return s.passOn(a, r, e) },
			refuse: refuseClient,
		}
		switch e.Name {
		case "models":
			rt.handle = s.listModels
		case "model":
			rt.handle = s.getModel
		}
		list = append(list, rt)
	}
	return list
}

// passOn has a head answer the request.
func (s *Server) passOn(a *answer, r *http.Request, e *openai.Endpoint) error {
	elsewhere, err := s.o.Proxy.Serve(a, r, proxy.Caller{Principal: a.principal, RequestID: a.requestID(), Endpoint: e})
	a.elsewhere = elsewhere
	if errors.Is(err, proxy.ErrClientGone) {
		return &apiv1.Problem{Code: api.CodeClientGone}
	}
	return err
}

// refuseClient answers with a problem in the form of the path's API.
func refuseClient(a *answer, r *http.Request, p *apiv1.Problem) {
	answerClient(a, openai.DialectOf(r.URL.Path), &openai.Error{
		Status: p.Status(), Code: clientCodes[p.Code], Message: p.Detail, RetryAfter: p.RetryAfter,
	})
}

func answerClient(a *answer, d openai.Dialect, e *openai.Error) {
	h := a.Header()
	body := e.Append(nil, d, a.requestID())
	h["Content-Type"] = jsonType
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	if e.Status == http.StatusUnauthorized {
		h["Www-Authenticate"] = []string{`Bearer realm="headway"`}
	}
	if e.RetryAfter > 0 {
		h["Retry-After"] = []string{e.RetryAfterSeconds()}
	}
	a.WriteHeader(e.Status)
	_, _ = a.Write(body)
}

// clientCodes are the codes of problems that those APIs have a name for; others keep
// ours.
var clientCodes = map[string]string{
	api.CodeUnauthenticated: "invalid_api_key", api.CodeMethodNotAllowed: "method_not_supported", api.CodeNotFound: "unknown_url",
	api.CodeRateLimited: "rate_limit_exceeded", api.CodeTooLarge: "request_too_large",
}

// listModels answers with the models that can be asked for.
func (s *Server) listModels(a *answer, _ *http.Request) error {
	a.Header()["Content-Type"] = jsonType
	_, _ = a.Write(openai.AppendModels(nil, s.o.Proxy.Models()))
	return nil
}

func (s *Server) getModel(a *answer, r *http.Request) error {
	id := r.PathValue("id")
	for _, m := range s.o.Proxy.Models() {
		if m.ID == id {
			a.Header()["Content-Type"] = jsonType
			_, _ = a.Write(m.Append(nil))
			return nil
		}
	}
	return openai.ModelNotFound(id)
}
