package httpapi

import (
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

// Needs is the permission that a route wants.
func (s *Server) Needs(method, pattern string) access.Permission {
	for _, rt := range s.routes() {
		if rt.method == method && rt.pattern == pattern {
			return rt.needs
		}
	}
	return ""
}

// OpenAPIJSON is what GET /openapi.json answers with.
var OpenAPIJSON = openAPIJSON
