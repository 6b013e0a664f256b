package httpapi

import (
	"cmp"
	"errors"
	"net/http"
	"strconv"
	"strings"

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
			id: e.Name, method: e.Method, pattern: strings.Replace(e.Path, "{id}", "{id...}", 1), needs: access.Decide, success: http.StatusOK, query: true, client: true,
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

// passThroughToHead has a head of the model type that the path names answer the
// request, of any method and form: /heads/{model_type}/{path at the head}.
func (s *Server) passThroughToHead(a *answer, r *http.Request) error {
	return s.passOn(a, r, proxy.PassThrough)
}

// passOn has a head answer the request.
func (s *Server) passOn(a *answer, r *http.Request, e *openai.Endpoint) error {
	if e.Dialect == openai.Anthropic { // where its clients look for it
		a.Header()["Request-Id"] = a.Header()["X-Request-Id"]
	}
	c := proxy.Caller{Principal: a.principal, RequestID: a.requestID(), Endpoint: e}
	if e == proxy.PassThrough {
		c.Left = leaving(r)
	}
	elsewhere, err := s.o.Proxy.Serve(a, r, c)
	a.elsewhere = elsewhere
	switch {
	case errors.Is(err, proxy.ErrUnread):
		a.unread = true
		return nil
	case errors.Is(err, proxy.ErrClientGone):
		return &apiv1.Problem{Code: api.CodeClientGone}
	}
	return err
}

// refuseClient answers with a problem in the form of the path's API.
func refuseClient(a *answer, r *http.Request, p *apiv1.Problem) {
	d, detail := dialect(r), p.Detail
	if d == openai.Anthropic && p.Code == api.CodeUnauthenticated { // as its clients know it
		detail = strings.Replace(detail, "send it as Authorization", "send it as x-api-key: KEY or as Authorization", 1)
	}
	answerClient(a, d, &openai.Error{
		Status: p.Status(), Code: cmp.Or(clientCodes[p.Code], p.Code), Message: detail, RetryAfter: p.RetryAfter,
	})
}

// dialect is the API that a request means.
func dialect(r *http.Request) openai.Dialect {
	if r.Header["Anthropic-Version"] != nil && strings.HasPrefix(r.URL.Path, "/v1/models") {
		return openai.Anthropic
	}
	return openai.DialectOf(r.URL.Path)
}

// unknownClient answers where no endpoint of those APIs is.
func (s *Server) unknownClient(_ *answer, r *http.Request) error {
	if _, _, err := openai.Lookup(r.Method, r.URL.Path); err != nil {
		return err
	}
	return &apiv1.Problem{Code: api.CodeNotFound, Detail: "The path is not written as the API has it."}
}

// refusedClient records and counts what the data plane refused by itself, as the
// problem that it would be in the other API.
func (s *Server) refusedClient(a *answer, r *http.Request, e *openai.Error) {
	code := refusedStatus[e.Status]
	if e.Code == api.CodeOverrideNotAllowed {
		code = api.CodeOverrideNotAllowed
	}
	s.denied(a, r, &apiv1.Problem{Code: code, Detail: e.Message}, e)
	s.metrics.refused(code)
}

// refusedStatus are the codes of problems with the status of a refusal.
var refusedStatus = map[int]string{
	http.StatusBadRequest: api.CodeInvalid, http.StatusForbidden: api.CodeForbidden, http.StatusRequestTimeout: api.CodeRequestTimeout,
	http.StatusRequestEntityTooLarge: api.CodeTooLarge, http.StatusUnsupportedMediaType: api.CodeUnsupportedMedia,
}

func answerClient(a *answer, d openai.Dialect, e *openai.Error) {
	h := a.Header()
	if d == openai.Anthropic {
		h["Request-Id"] = h["X-Request-Id"]
	}
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
	api.CodeForbidden: "insufficient_permissions", api.CodeRateLimited: "rate_limit_exceeded", api.CodeTooLarge: "request_too_large",
}

// listModels answers with the models that can be asked for.
func (s *Server) listModels(a *answer, r *http.Request) error {
	return writeClient(a, openai.AppendModels(nil, dialect(r), s.o.Proxy.Models()))
}

func writeClient(a *answer, body []byte) error {
	h := a.Header()
	h["Content-Type"], h["Content-Length"] = jsonType, []string{strconv.Itoa(len(body))}
	_, _ = a.Write(body)
	return nil
}

func (s *Server) getModel(a *answer, r *http.Request) error {
	id := r.PathValue("id")
	for _, m := range s.o.Proxy.Models() {
		if m.ID == id {
			return writeClient(a, m.Append(nil, dialect(r)))
		}
	}
	return openai.ModelNotFound(id)
}
