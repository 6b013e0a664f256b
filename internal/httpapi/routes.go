package httpapi

import (
	"cmp"
	"fmt"
	"net/http"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"headway/api"
	"headway/internal/access"
	"headway/internal/apiv1"
	"headway/internal/audit"
)

// route is one line of the table of routes.
type route struct {
	method  string
	pattern string
	id      string // operation of the OpenAPI document
	needs   access.Permission
	own     access.Permission // that is enough for what is the caller's own, as the handler finds out
	action  string            // what the audit trail calls it, "" for what is not sensitive
	success int               // status of the usual answer
	probe   bool              // for health checks and scrapes, which name any Host or none, and may ask by OPTIONS
	query   bool              // the handler reads the query; elsewhere under /api there must be none
	client  bool              // for clients of the OpenAI and Anthropic APIs, which send their keys as those do
	stream  bool              // the answer has no end: it is counted when it begins
	body    bool              // the handler gets the body; elsewhere it is not read
	maxBody int64             // bytes; 0, as all have today: Limits.MaxBodyBytes
	handle  func(w *answer, r *http.Request) error
	refuse  func(w *answer, r *http.Request, p *apiv1.Problem) // the form of an error; nil: Server.problem

	server  *Server
	counted counters
}

// decisionsPath is the path of the hot route.
const decisionsPath = "/api/v1/decisions"

// indexPattern is how the mux writes the path / and nothing below it.
const indexPattern = "/{$}"

// routes is the whole surface.
func (s *Server) routes() []*route {
	return append([]*route{
		{method: "POST", pattern: "/api/v1/heads", id: "registerHead", action: "head.register", needs: access.BeHead, success: 201, body: true, handle: s.registerHead},
		{method: "GET", pattern: "/api/v1/heads", id: "listHeads", needs: access.Read, success: 200, query: true, handle: s.listHeads},
		{method: "GET", pattern: "/api/v1/heads/{id}", id: "getHead", needs: access.Read, success: 200, handle: ofHead(s.getHead)},
		{method: "PATCH", pattern: "/api/v1/heads/{id}", id: "patchHead", action: "head.patch", needs: access.Operate, success: 200, body: true, handle: ofHead(s.patchHead)},
		{method: "DELETE", pattern: "/api/v1/heads/{id}", id: "deleteHead", action: "head.deregister", needs: access.BeHead, success: 204, handle: ofHead(s.deleteHead)},
		{method: "DELETE", pattern: "/api/v1/heads/{id}/ejection", id: "endEjection", action: "head.reinstate", needs: access.Operate, success: 204, handle: ofHead(s.endEjection)},
		{method: "POST", pattern: "/api/v1/heads/{id}/drain-rehearsal", id: "rehearseDrain", needs: access.Operate, success: 200, query: true, handle: ofHead(s.rehearseDrain)},
		{method: "PUT", pattern: "/api/v1/heads/{id}/status", id: "reportStatus", needs: access.BeHead, success: 200, body: true, handle: ofHead(s.reportStatus)},
		{method: "POST", pattern: decisionsPath, id: "decide", needs: access.Decide, success: 200, body: true, handle: s.makeDecision},
		{method: "GET", pattern: decisionsPath, id: "listDecisions", needs: access.Read, success: 200, query: true, handle: s.listDecisions},
		{method: "GET", pattern: "/api/v1/decision-log", id: "readDecisionLog", needs: access.Read, success: 200, query: true, handle: s.readDecisionLog},
		{method: "GET", pattern: "/api/v1/decisions/{id}", id: "getDecision", needs: access.Read, own: access.Decide, success: 200, handle: s.getDecision},
		{method: "POST", pattern: "/api/v1/decisions/{id}/progress", id: "reportProgress", needs: access.Decide, success: 204, body: true, handle: report(s.o.Verbs.Progress)},
		{method: "POST", pattern: "/api/v1/decisions/{id}/outcome", id: "reportOutcome", needs: access.Decide, success: 204, body: true, handle: report(s.o.Verbs.Outcome)},
		{method: "GET", pattern: "/api/v1/strategies", id: "listStrategies", needs: access.Read, success: 200, query: true, handle: s.listStrategies},
		{method: "GET", pattern: "/api/v1/policy", id: "getPolicy", needs: access.Read, success: 200, handle: s.getPolicy},
		{method: "PUT", pattern: "/api/v1/policy", id: "putPolicy", action: "policy.put", needs: access.Admin, success: 200, body: true, handle: s.putPolicy},
		{method: "PATCH", pattern: "/api/v1/policy", id: "patchPolicy", action: "policy.patch", needs: access.Admin, success: 200, body: true, handle: s.patchPolicy},
		{method: "POST", pattern: "/api/v1/policy/validate", id: "validatePolicy", needs: access.Read, success: 200, body: true, handle: s.validatePolicy},
		{method: "GET", pattern: "/api/v1/policy/revisions", id: "listPolicyRevisions", needs: access.Read, success: 200, query: true, handle: s.listRevisions},
		{method: "GET", pattern: "/api/v1/policy/revisions/{n}", id: "getPolicyRevision", needs: access.Read, success: 200, handle: s.getRevision},
		{method: "POST", pattern: "/api/v1/policy/revisions/{n}/restore", id: "restorePolicy", action: "policy.restore", needs: access.Admin, success: 200, handle: s.restoreRevision},
		{method: "GET", pattern: "/api/v1/keys", id: "listKeys", needs: access.Admin, success: 200, query: true, handle: s.listKeys},
		{method: "POST", pattern: "/api/v1/keys", id: "createKey", action: "key.create", needs: access.Admin, success: 201, body: true, handle: s.createKey},
		{method: "PATCH", pattern: "/api/v1/keys/{id}", id: "patchKey", action: "key.patch", needs: access.Admin, success: 200, body: true, handle: s.patchKey},
		{method: "DELETE", pattern: "/api/v1/keys/{id}", id: "revokeKey", action: "key.revoke", needs: access.Admin, success: 204, handle: s.revokeKey},
		{method: "GET", pattern: "/api/v1/state/export", id: "exportState", action: "state.export", needs: access.Admin, success: 200, handle: s.exportState},
		{method: "GET", pattern: "/api/v1/state/check", id: "checkState", action: "state.check", needs: access.Admin, success: 200, handle: s.checkState},
		{method: "GET", pattern: "/api/v1/audit", id: "listAudit", needs: access.Read, success: 200, query: true, handle: s.listAudit},
		{method: "GET", pattern: "/api/v1/queue/dead-letters", id: "listDeadLetters", needs: access.Read, success: 200, query: true, handle: s.listDeadLetters},
		{method: "GET", pattern: "/api/v1/queue/dead-letters/{n}", id: "getDeadLetter", needs: access.Read, success: 200, handle: s.getDeadLetter},
		{method: "POST", pattern: "/api/v1/queue/dead-letters/{n}/retry", id: "retryDeadLetter", action: "queue.retry", needs: access.Operate, success: 204, handle: s.ofLetter(DeadLetters.RetryDeadLetter)},
		{method: "DELETE", pattern: "/api/v1/queue/dead-letters/{n}", id: "purgeDeadLetter", action: "queue.purge", needs: access.Operate, success: 204, handle: s.ofLetter(DeadLetters.PurgeDeadLetter)},
		{method: "GET", pattern: "/api/v1/events", id: "streamEvents", needs: access.Read, success: 200, query: true, stream: true, handle: s.getEvents},
		{method: "GET", pattern: "/api/v1/ws", id: "openWebSocket", needs: access.Open, success: 101, query: true, stream: true, handle: s.serveWebSocket},
		{method: "GET", pattern: "/livez", id: "livez", needs: access.Open, probe: true, success: 200, handle: s.livez},
		{method: "GET", pattern: "/readyz", id: "readyz", needs: access.Open, probe: true, success: 200, handle: s.readyz},
		{method: "GET", pattern: "/metrics", id: "metrics", needs: access.Open, probe: true, success: 200, handle: s.metricsHandler()},
		{method: "GET", pattern: "/openapi.json", id: "openapi", needs: access.Open, success: 200, handle: s.getOpenAPI},
		{method: "GET", pattern: indexPattern, id: "index", needs: access.Open, success: 200, handle: s.index},
	}, append(s.subtrees(), s.dataPlane()...)...)
}

// subtrees are what other rooms serve below a path of their own.
func (s *Server) subtrees() (list []*route) {
	serve := func(h http.Handler) func(*answer, *http.Request) error {
		return func(w *answer, r *http.Request) error { h.ServeHTTP(w, r); return nil }
	}
	if s.o.Monitor != nil {
		list = append(list,
			&route{method: "GET", pattern: "/prometheus/", needs: access.Read, success: 200, query: true, handle: serve(s.o.Monitor)},
			&route{method: "POST", pattern: "/prometheus/", needs: access.Read, success: 200, query: true, handle: serve(s.o.Monitor)})
	}
	if s.o.Console != nil {
		// What the page shows is asked for elsewhere, with a key if one is needed.
		list = append(list,
			&route{method: "GET", pattern: "/console", needs: access.Open, success: 200, handle: serve(s.o.Console)},
			&route{method: "GET", pattern: "/console/", needs: access.Open, success: 200, handle: serve(s.o.Console)})
	}
	return list
}

// mount puts routes into the mux. It fails if one of them declares no
// permission, or none that there is.
func (s *Server) mount(routes []*route) error {
	s.mux, s.direct = http.NewServeMux(), map[string]*route{}
	add := func(pattern string, rt *route) {
		rt.server = s
		rt.maxBody = cmp.Or(rt.maxBody, s.o.Limits.MaxBodyBytes)
		if rt.refuse == nil {
			rt.refuse = s.problem
		}
		s.metrics.hold(rt)
		s.mux.Handle(pattern, rt)
	}
	methods, refuse := map[string][]string{}, map[string]func(*answer, *http.Request, *apiv1.Problem){}
	for _, rt := range routes {
		if rt.needs != access.Open && !slices.Contains(access.Permissions(), rt.needs) {
			return fmt.Errorf("httpapi: route %s %s declares no permission that there is: %q", rt.method, rt.pattern, rt.needs)
		}
		add(rt.method+" "+rt.pattern, rt)
		methods[rt.pattern], refuse[rt.pattern] = append(methods[rt.pattern], rt.method), rt.refuse
		if rt.method == http.MethodGet {
			methods[rt.pattern] = append(methods[rt.pattern], http.MethodHead)
		}
		if rt.probe {
			s.mux.Handle(http.MethodOptions+" "+rt.pattern, rt)
			methods[rt.pattern] = append(methods[rt.pattern], http.MethodOptions)
		}
		if rt.method == http.MethodPost && !strings.Contains(rt.pattern, "{") {
			s.direct[rt.pattern] = rt
		}
	}
	for pattern, allowed := range methods {
		allow := strings.Join(allowed, ", ")
		client := strings.HasPrefix(pattern, "/v1/")
		add(pattern, &route{pattern: pattern, needs: access.Open, client: client, refuse: refuse[pattern], handle: func(w *answer, r *http.Request) error {
			w.Header().Set("Allow", allow)
			if client && r.Method == http.MethodOptions {
				w.WriteHeader(http.StatusNoContent)
				return nil
			}
			return &apiv1.Problem{Code: api.CodeMethodNotAllowed, Detail: "Allowed here: " + allow + "."}
		}})
	}
	s.nowhere = &route{pattern: otherLabel, needs: access.Open, handle: func(*answer, *http.Request) error {
		return &apiv1.Problem{Code: api.CodeNotFound, Detail: "No route matches this path. GET / lists the routes."}
	}}
	add("/", s.nowhere)
	if s.unknown = s.nowhere; s.o.Proxy != nil {
		s.unknown = &route{pattern: "/v1/", needs: access.Open, client: true, refuse: refuseClient, handle: s.unknownClient}
		add("/v1/", s.unknown)
		s.mux.Handle("/v1", s.unknown)
		s.mux.Handle("/heads", s.unknown) // the mux would redirect to the subtree
		s.passThrough = &route{pattern: "/heads/", action: "head.request", needs: access.Decide, query: true, client: true, refuse: refuseClient, handle: s.passThroughToHead}
		add("/heads/", s.passThrough)
	}
	for pattern := range methods { // the mux would redirect to the subtree
		if root := strings.TrimSuffix(pattern, "/"); root != pattern && methods[root] == nil {
			s.mux.Handle(root, s.nowhere)
		}
	}
	return nil
}

// ServeHTTP lets the mux call the route.
func (rt *route) ServeHTTP(w http.ResponseWriter, r *http.Request) { rt.server.serve(rt, w, r) }

// ServeHTTP answers a request of the main listener.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.o.DataPlaneApart && ofDataPlane(r.URL.Path) {
		s.nowhere.ServeHTTP(w, r)
	} else {
		s.find(w, r)
	}
}

// serveDataPlane answers a request of the data plane's own listener.
func (s *Server) serveDataPlane(w http.ResponseWriter, r *http.Request) {
	if ofDataPlane(r.URL.Path) {
		s.find(w, r)
	} else {
		s.unknown.ServeHTTP(w, r)
	}
}

// ofDataPlane reports whether a path is of the data plane, or was meant to be: clients
// whose base URL ends with a slash begin it with two.
func ofDataPlane(path string) bool {
	root, _, _ := strings.Cut(strings.TrimLeft(path, "/"), "/")
	return root == "v1" || root == "heads"
}

// find has the route of a request answer it.
func (s *Server) find(w http.ResponseWriter, r *http.Request) {
	if rt := s.direct[r.URL.Path]; rt != nil && r.Method == http.MethodPost && r.URL.RawPath == "" {
		rt.ServeHTTP(w, r)
	} else if s.passThrough != nil && strings.HasPrefix(r.URL.Path, s.passThrough.pattern) {
		s.passThrough.ServeHTTP(w, r) // the path is the head's, and stays as it is
	} else if p := r.URL.EscapedPath(); clean(p) {
		s.mux.ServeHTTP(w, r)
	} else if ofDataPlane(r.URL.Path) {
		s.unknown.ServeHTTP(w, r)
	} else {
		s.nowhere.ServeHTTP(w, r)
	}
}

// clean reports whether a path has no empty, . or .. part. The mux redirects from
// others.
func clean(p string) bool {
	c := path.Clean(p)
	return strings.HasPrefix(p, "/") && (p == c || p == c+"/" && c != "/")
}

// serve answers one request by its route, and counts and times the answer.
func (s *Server) serve(rt *route, w http.ResponseWriter, r *http.Request) {
	begin := time.Now()
	a := newAnswer(rt, w)
	defer a.free()
	if rt.stream {
		a.begun = func(status int) { s.metrics.answered(rt, r.Method, status, time.Since(begin)) }
	}
	header := w.Header()
	header["X-Request-Id"] = []string{requestID(r)}
	if s.draining.Load() {
		header["Connection"] = closeConnection
	}
	r, err := s.admitted(a, r)
	if err == nil {
		err = s.protect(a, r)
	}
	begun := a.status != 0
	if err != nil {
		s.fail(a, r, err)
	}
	if !rt.stream || a.status == 0 || a.status == apiv1.StatusClientGone {
		if a.status == 0 {
			a.status = http.StatusOK
		}
		s.metrics.answered(rt, r.Method, a.status, time.Since(begin)-a.elsewhere)
	}
	switch {
	case a.status == apiv1.StatusClientGone, begun && err != nil:
		panic(http.ErrAbortHandler) // or net/http would answer with an empty 200, or end an answer as if it were whole
	case err != nil || a.unread:
		readOn(a, r)
	}
}

// admitted checks the origin of a request, its caller and the permission. It
// returns the request with what the audit trail needs.
func (s *Server) admitted(a *answer, r *http.Request) (*http.Request, error) {
	if r.RequestURI != a.route.pattern { // a path that we know holds no credential
		if err := s.o.Guard.CheckURL(r); err != nil {
			return r, err
		}
	}
	if err := s.admit(a.route, r); err != nil {
		return r, err
	}
	if err := s.enter(a, r); err != nil {
		return r, err
	}
	if r.URL.RawQuery != "" && a.route.needs != access.Open && !a.route.query {
		if err := readQuery(r).err(); err != nil {
			return r, err
		}
	}
	if a.route.action != "" {
		r = r.WithContext(audit.WithIdentity(r.Context(), s.identity(a, r)))
	}
	return r, nil
}

// Values of headers, which all answers share.
var (
	closeConnection = []string{"close"}
	jsonType        = []string{"application/json"}
	problemType     = []string{"application/problem+json"}
)

// protect calls the handler and turns a panic into an error: a bug that one
// request meets must not end the process.
func (s *Server) protect(a *answer, r *http.Request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { //nolint:errorlint // it is compared by identity, as net/http does
				panic(p)
			}
			s.metrics.panics.Inc()
			err = fmt.Errorf("panic: %v: %s", p, debug.Stack())
		}
	}()
	if a.route.body {
		if err := a.readBody(r); err != nil {
			return err
		}
	}
	return a.route.handle(a, r)
}
