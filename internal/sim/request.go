package sim

import (
	"errors"
	"fmt"
	"time"

	"headway/internal/engine"
	"headway/internal/routing"
	"headway/internal/strategy"
	"headway/internal/workload"
)

// maxAttempts is how often a request is sent whose head fails before its first
// token, as the data plane does it.
const maxAttempts = 3

// Statuses that a caller of a head gets.
const (
	badRequest  = 400
	unavailable = 503
)

// request is one request on its way.
type request struct {
	arrival  workload.Arrival
	number   int // in order of arrival
	blocks   []uint64
	service  *service
	asked    strategy.Request
	decision *routing.Decision
	head     *head
	sequence *engine.Sequence
	attempts int
	first    time.Duration // when its first token came, 0: it has not
}

// begin takes a request that comes now to one of the routers.
func (w *world) begin(q *request) {
	w.open++
	w.begun++
	q.number = w.begun
	a := &q.arrival
	q.blocks = a.Blocks()
	q.service = w.routers[w.random.IntN(len(w.routers))]
	q.asked = strategy.Request{
		ModelType: w.o.Model, Region: a.Region, SessionKey: a.Session, InputTokens: int64(a.Input), Held: !w.o.Blind,
		PrefixHashes: q.blocks, BlockTokens: workload.BlockTokens,
	}
	if w.o.Pick != nil {
		q.asked.Exclude = w.allBut(w.o.Pick(&Fleet{w}, a))
	}
	d, err := q.service.router.Decide(&q.asked)
	w.send(q, d, err)
}

// allBut are the ids of all heads but one.
func (w *world) allBut(head int) (ids []string) {
	for _, h := range w.heads {
		if h.index != head {
			ids = append(ids, h.id)
		}
	}
	return ids
}

// send sends the request to the head of a decision. A head that refuses it is
// followed by another.
func (w *world) send(q *request, d *routing.Decision, err error) {
	for {
		if _, none := errors.AsType[*routing.NoHeadError](err); none {
			w.fail(q)
			return
		}
		if err != nil {
			w.err = fmt.Errorf("decide: %w", err)
			return
		}
		q.decision, q.head = d, w.byID[d.Head.ID]
		q.attempts++
		q.service.place(q)
		if q.sequence, err = q.head.submit(q); err == nil {
			return
		}
		why := routing.Outcome{Result: routing.ResultError, StatusCode: unavailable}
		if errors.Is(err, engine.ErrTooLong) {
			why.StatusCode = badRequest
		}
		if d, err = w.another(q, why); d == nil && err == nil {
			return
		}
	}
}

// another decides again for a request whose head failed before its first token; a nil
// decision without an error says that the request was given up.
func (w *world) another(q *request, why routing.Outcome) (*routing.Decision, error) {
	if q.attempts == maxAttempts || why.StatusCode == badRequest {
		q.service.router.End(q.decision, why)
		w.fail(q)
		return nil, nil
	}
	return q.service.router.Again(q.decision, &q.asked, why)
}

// lost is when the head of a request dies under it. Before the first token another
// head gets the request; after it the answer is cut off.
func (w *world) lost(q *request) {
	why := routing.Outcome{Result: routing.ResultError, StatusCode: unavailable}
	if q.first > 0 {
		q.service.router.End(q.decision, why)
		w.fail(q)
		return
	}
	if d, err := w.another(q, why); d != nil || err != nil {
		w.send(q, d, err)
	}
}

// firstToken is when the head begins to answer.
func (w *world) firstToken(q *request) {
	q.first = w.at
	if !w.o.Blind {
		q.service.router.Begun(q.decision)
	}
}

// done is when the answer is whole.
func (w *world) done(q *request) {
	a := &q.arrival
	away := w.distance(q)
	ttft, took := q.first-a.At+away, w.at-a.At+away
	cached := q.sequence.Cached()
	q.service.router.End(q.decision, routing.Outcome{
		Result: routing.ResultOK, StatusCode: 200,
		TTFT: ms(ttft), Duration: ms(took), InputTokens: int64(a.Input), OutputTokens: int64(a.Output), CachedTokens: int64(cached),
	})
	w.measured.answered(q, w.at, ttft, took, cached)
	w.ended(q)
}

// distance is the time that a request and its answer travel between regions.
func (w *world) distance(q *request) time.Duration {
	if q.arrival.Region == "" || q.arrival.Region == q.head.region {
		return 0
	}
	between := w.o.Policy.Distance(q.arrival.Region, q.head.region)
	if between != between { //nolint:gocritic // NaN: the policy has no distance
		return 0
	}
	return time.Duration(between * float64(time.Millisecond))
}

// fail is when the request is given up.
func (w *world) fail(q *request) {
	w.measured.failed(q)
	w.ended(q)
}

// ended takes the requests that follow on the end of one.
func (w *world) ended(q *request) {
	w.open--
	for _, a := range w.o.Source.Ended(&q.arrival, w.at) {
		w.waiting++
		w.events.add(max(a.At, w.at), func() {
			w.waiting--
			w.begin(&request{arrival: a})
		})
	}
	if w.o.Progress != nil {
		w.o.Progress(w.measured.Requests)
	}
}
