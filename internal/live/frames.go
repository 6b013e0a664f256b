package live

import (
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"

	"headway/api"
	"headway/internal/apiv1"
	"headway/internal/event"
	"headway/internal/fleet"
)

// frame is one message, encoded for both transports. It does not change once it
// is in the log.
type frame struct {
	entry  int    // kind of entry in the log
	place  place  // after it
	lost   uint64 // decisions that it reports as lost
	kind   string // type of the event
	head   string
	region string
	models []string
	admin  string // admin state of the head, "" if the event has none
	sse    []byte
	ws     []byte
}

// eventFrame encodes an event of the stream.
func (h *Hub) eventFrame(e *event.Event) *frame {
	v := apiv1.EventOf(h.o.Instance, e)
	f := newFrame(api.MessageEvent, e.Type, v.ID, v)
	f.head, f.region, f.models = e.Head, e.Region, e.ModelTypes
	if state, ok := e.Data.(fleet.HeadState); ok {
		f.admin = state.AdminState
	}
	return f
}

// newFrame encodes v: as a message over WebSocket, and by the type of the event
// over SSE.
func newFrame(message, kind, id string, v any) *frame {
	data, err := json.Marshal(v)
	if err != nil { // the types of api do not fail
		data = []byte("{}")
	}
	f := &frame{kind: kind, ws: appendText(nil, envelope(nil, nil, message, data))}
	if id != "" {
		f.sse = append(append(append(f.sse, "id: "...), id...), '\n')
	}
	f.sse = append(append(append(f.sse, "event: "...), kind...), "\ndata: "...)
	f.sse = append(append(f.sse, data...), "\n\n"...)
	return f
}

// notice encodes what is not an event.
func notice(kind string, v any) *frame { return newFrame(kind, kind, "", v) }

// Why events are missing.
const (
	lossTooSlow = "slow"    // the subscriber did not keep up
	lossTooOld  = "window"  // they are too old to be resumed after
	lossRestart = "restart" // they are of another run of the service
)

// lostEvents encodes how many events are missing. A snapshot follows.
func lostEvents(count uint64, reason string) *frame {
	return notice(api.MessageLost, api.Lost{Count: count, Reason: reason})
}

// lostDecisions encodes how many decisions are missing. No snapshot follows.
func lostDecisions(count uint64, reason string) *frame {
	f := notice(api.MessageLost, api.Lost{Count: count, Reason: reason, Types: decisionAll})
	f.lost = count
	return f
}

// envelope appends an api.Envelope.
func envelope(b, id []byte, kind string, data []byte) []byte {
	b = append(b, '{')
	if len(id) > 0 {
		b = append(append(append(b, `"id":`...), id...), ',')
	}
	b = append(append(append(b, `"type":"`...), kind...), '"')
	if len(data) > 0 {
		b = append(append(b, `,"data":`...), data...)
	}
	return append(b, '}')
}

// The types of the events of decisions.
const (
	decisionMade  = "decision.made"
	decisionEnded = "decision.ended"
	decisionAll   = "decision.*"
)

// knownTypes are the types that a subscription can name.
var knownTypes = append(event.Types(), decisionMade, decisionEnded)

// filter is a valid subscription.
type filter struct {
	api.Subscription
	key       string // equal for filters that keep the same events
	decisions bool
}

// newFilter validates a subscription. Faults point to fields below a pointer, or
// name parameters if it is "".
func newFilter(s api.Subscription, pointer string) (filter, error) {
	f := filter{Subscription: s}
	var faults []api.Fault
	fault := func(field, reason string) {
		if pointer == "" {
			faults = append(faults, api.Fault{Parameter: field, Reason: reason})
		} else {
			faults = append(faults, api.Fault{Pointer: pointer + field, Reason: reason})
		}
	}
	for _, pattern := range s.Types {
		if !slices.ContainsFunc(knownTypes, func(kind string) bool { return event.Matches(pattern, kind) }) {
			fault("types", "no event has such a type; there are "+strings.Join(knownTypes, ", ")+", and patterns as head.*")
			break
		}
		f.decisions = f.decisions || event.Matches(pattern, decisionMade) || event.Matches(pattern, decisionEnded)
	}
	if len(s.Types) > len(knownTypes) {
		fault("types", "has more types than there are")
	}
	for _, text := range []struct {
		field, value string
		longest      int
	}{
		{"head", s.Head, fleet.MaxNameLength},
		{"model_type", s.ModelType, fleet.MaxModelTypeLength},
		{"region", s.Region, fleet.MaxNameLength},
		{"last_event_id", s.LastEventID, 128},
	} {
		if len(text.value) > text.longest {
			fault(text.field, "has more than "+strconv.Itoa(text.longest)+" bytes")
		}
	}
	if len(faults) > 0 {
		return f, &apiv1.Problem{Code: api.CodeInvalid, Detail: apiv1.DetailOf(faults), Faults: faults}
	}
	f.LastEventID = ""
	f.key = strings.Join(s.Types, ",") + "\x00" + s.Head + "\x00" + s.ModelType + "\x00" + s.Region
	return f, nil
}

// keeps reports whether the filter selects a frame. An event without a head,
// region or model type concerns all of them.
func (f *filter) keeps(fr *frame) bool {
	switch {
	case len(f.Types) == 0 && strings.HasPrefix(fr.kind, "decision."):
		return false
	case len(f.Types) > 0 && fr.kind != api.MessageLost && !slices.ContainsFunc(f.Types, func(p string) bool { return event.Matches(p, fr.kind) }):
		return false
	case f.Head != "" && fr.head != "" && fr.head != f.Head:
		return false
	case f.Region != "" && fr.region != "" && fr.region != f.Region:
		return false
	case f.ModelType != "" && len(fr.models) > 0 && !slices.Contains(fr.models, f.ModelType):
		return false
	}
	return true
}

// batch is what a subscriber is sent next. Subscribers with equal filters share
// it.
type batch struct {
	bytes         []byte
	next          place
	lostEvents    uint64 // a snapshot is sent instead of bytes, if any
	lostDecisions uint64 // bytes report them
}

type batchKey struct {
	filter    string
	transport string
	from      place
}

// batches are kept until the next wake-up.
type batches struct {
	mu   sync.Mutex
	made map[batchKey]*batch
}

func (c *batches) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.made)
}

// maxBatches bounds the batches that are kept.
const (
	maxBatches   = 256
	cacheBatches = "batches"
)

// batch returns what f keeps after a place.
func (h *Hub) batch(f *filter, transport string, from place) *batch {
	key := batchKey{f.key, transport, from}
	h.batches.mu.Lock()
	defer h.batches.mu.Unlock()
	b := h.batches.made[key]
	if b != nil {
		return b
	}
	b = h.newBatch(f, transport, from)
	if len(h.batches.made) < maxBatches {
		h.batches.made[key] = b
	} else {
		h.metrics.forgotten.WithLabelValues(cacheBatches).Inc()
	}
	return b
}

func (h *Hub) newBatch(f *filter, transport string, from place) *batch {
	b := &batch{}
	var missing place
	b.next, missing = h.log.after(from, f.decisions, func(fr *frame) {
		if f.keeps(fr) {
			b.bytes = append(b.bytes, fr.of(transport)...)
			b.lostDecisions += fr.lost
		}
	})
	b.lostEvents = missing[events]
	if n := missing[decisions]; n > 0 {
		b.bytes = append(lostDecisions(n, lossTooSlow).of(transport), b.bytes...)
		b.lostDecisions += n
	}
	return b
}

// of returns the bytes for a transport.
func (f *frame) of(transport string) []byte {
	if transport == overSSE {
		return f.sse
	}
	return f.ws
}
