// Package routing decides which head serves a request.
//
// A decision is filter → score → pick: [Router.Decide] takes the current
// policy and the current fleet snapshot, both immutable, narrows the heads to
// the candidates that may serve the request, lets the policy's [strategy.Strategy]
// order them, and reserves a place at the first that has one. It takes no lock
// and does no I/O. The [Decision] is also the reservation: it counts as one
// request in flight at its head until its outcome is reported or its time runs
// out.
package routing
