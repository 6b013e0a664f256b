package proxy

import (
	"net/http"
	"strings"

	"headway/internal/openai"
	"headway/internal/upstream"
)

// loopField is where each proxy on the way of a request names itself (RFC 8586).
// Clients cannot take it away by naming it in Connection.
const loopField = "Cdn-Loop"

// refuseLoop refuses a request that was here before: a head leads back to this
// service, by itself or over others of its kind.
func (p *Proxy) refuseLoop(h http.Header) error {
	for _, line := range h[loopField] {
		for member := range strings.SplitSeq(line, ",") {
			if id, _, _ := strings.Cut(member, ";"); strings.EqualFold(strings.TrimSpace(id), p.id) {
				return &openai.Error{
					Status: http.StatusLoopDetected, Code: "loop_detected",
					Message: "The request was at this service before: a head that it was sent to leads back here.",
				}
			}
		}
	}
	return nil
}

// signed appends to the fields of a call where the request was before, and this
// service.
func (p *Proxy) signed(fields []upstream.Field, h http.Header) []upstream.Field {
	for _, v := range h[loopField] {
		fields = append(fields, upstream.Field{Name: loopField, Value: v})
	}
	return append(fields, upstream.Field{Name: loopField, Value: p.id})
}
