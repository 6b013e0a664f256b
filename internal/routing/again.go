package routing

import (
	"slices"

	"headway/internal/strategy"
)

// Again ends an attempt by what the caller reports of it and tries another head
// under the same id. It leaves out the heads that were tried, whether or not the
// policy lets callers exclude heads. req is the request of the decision, which
// keeps none of it. Again returns the new attempt; its errors are those of Decide
// and ErrDecisionEnded. After each the decision has ended.
func (r *Router) Again(d *Decision, req *strategy.Request, why Outcome) (*Decision, error) {
	why.At = r.o.Now()
	if !r.finish(d, &why) {
		return nil, ErrDecisionEnded
	}
	return r.After(d, req)
}

// After is Again for an attempt that has ended, as one whose request has waited for
// a place since. Its errors are those of Decide.
func (r *Router) After(d *Decision, req *strategy.Request) (*Decision, error) {
	return r.decide(req, origin{before: d})
}

// Hedge decides on a head beside that of d, which is still asked, and takes a place
// there too. The two decisions end by themselves. The errors are those of Decide.
func (r *Router) Hedge(d *Decision, req *strategy.Request) (*Decision, error) {
	return r.decide(req, origin{before: d, hedges: true})
}

// tried reports whether d or an attempt before it was at the head.
func (d *Decision) tried(id string) bool {
	return d != nil && (d.Head.ID == id || d.Before().tried(id))
}

// leaveOut returns the ids that a request excludes with those that were tried.
func (d *Decision) leaveOut(exclude []string) []string {
	exclude = slices.Clone(exclude)
	for ; d != nil; d = d.Before() {
		exclude = append(exclude, d.Head.ID)
	}
	return exclude
}
