package httpapi

import (
	"net/http"

	"headway/internal/access"
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
		list = append(list, Operation{rt.method, pattern, rt.id, rt.success})
	}
	return list
}

// Mount puts the table of routes into the mux once more, with a route beside it
// that needs a permission.
func (s *Server) Mount(needs access.Permission) error {
	nothing := func(http.ResponseWriter, *http.Request) error { return nil }
	return s.mount(append(s.routes(), &route{method: "GET", pattern: "/beside", needs: needs, handle: nothing}))
}

// OpenAPIJSON is what GET /openapi.json answers with.
var OpenAPIJSON = openAPIJSON

// Author is who changes the policy, as its history has it.
var Author = author
