package httpapi

import (
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/access"
	"headway/internal/apiv1"
)

// Operation is a line of the table of routes, as the description of the
// interface must have it.
type Operation struct {
	Method, Pattern, ID string
	Success             int
}

// Operations is the table of routes.
func (s *Server) Operations() []Operation {
	var list []Operation
	for _, rt := range s.routes() {
		pattern := rt.pattern
		if pattern == indexPattern {
			pattern = "/"
		}
		list = append(list, Operation{rt.method, strings.Replace(pattern, "{id...}", "{id}", 1), rt.id, rt.success})
	}
	return list
}

// Mount puts the table of routes into the mux once more, with a route beside it
// that needs a permission.
func (s *Server) Mount(needs access.Permission) error {
	nothing := func(*answer, *http.Request) error { return nil }
	return s.mount(append(s.routes(), &route{method: "GET", pattern: "/beside", needs: needs, handle: nothing}))
}

// MountReader mounts, beside the table, POST /beside: it reads a body of at most
// maxBody bytes, and its errors are their codes.
func (s *Server) MountReader(maxBody int64) error {
	return s.mount(append(s.routes(), &route{
		method: "POST", pattern: "/beside", needs: access.Open, body: true, maxBody: maxBody,
		handle: func(*answer, *http.Request) error { return nil },
		refuse: func(w *answer, _ *http.Request, p *apiv1.Problem) {
			w.WriteHeader(p.Status())
			_, _ = w.Write([]byte(p.Code))
		},
	}))
}

// Rehearse lets a rehearsal take so long.
func (s *Server) Rehearse(most time.Duration) { s.rehearsals = most }

// ReadLog reads the decision log for a request that goes on until it is ended.
func (s *Server) ReadLog() (end func()) {
	s.readingLog.Lock()
	return s.readingLog.Unlock
}

// OpenAPIJSON is what GET /openapi.json answers with.
func OpenAPIJSON() ([]byte, error) { return openAPIJSON("") }

// Author is who changes the policy, as its history has it.
var Author = author

// BoundedListener is a listener within limits.
func BoundedListener(l net.Listener, limits Limits) net.Listener {
	return newBoundedListener(l, limits, false, newMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
}

// UseBuffer takes a buffer, fills and frees it, and returns how large it was.
func UseBuffer(size int) (had int) {
	b := newBuffer()
	had = cap(b.b)
	if size > 0 {
		b.b = make([]byte, size)
	}
	b.free()
	return had
}

// Handler is what a listener's requests come to.
func (s *Server) Handler() http.Handler { return s.http.Handler }

// Compressed compresses the answers of a handler.
func Compressed(h http.Handler) http.Handler { return compressed(h) }
