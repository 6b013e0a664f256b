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

// frame is one event, encoded for both transports. It is immutable once it is in
// a ring.
type frame struct {
	seq    uint64 // place in its ring, which is how many there were up to it
	weight uint64 // how many of them it stands for
	beside uint64 // place of the newest frame of the other ring before it
	kind   string // type of the event
	head   string
	region string
	models []string
	admin  string // admin state of the head that it is about, "" if it does not say
	sse    []byte
	ws     []byte
}

// frameOf encodes an event. The numbers of the stream are the places in the ring.
func (h *Hub) frameOf(e *event.Event) *frame {
	f := &frame{seq: e.ID, weight: 1, kind: e.Type, head: e.Head, region: e.Region, models: e.ModelTypes}
	if state, ok := e.Data.(fleet.HeadState); ok {
		f.admin = state.AdminState
	}
	told := apiv1.EventOf(h.o.Instance, e)
	f.encode(api.MessageEvent, told.ID, told)
	return f
}

// encode writes the frame's bytes: as message over WebSocket, and by the type of
// the event as SSE.
func (f *frame) encode(message, id string, v any) {
	data, err := json.Marshal(v)
	if err != nil { // api types do not fail
		data = []byte("{}")
	}
	if id != "" {
		f.sse = append(append(append(f.sse, "id: "...), id...), '\n')
	}
	f.sse = append(append(append(f.sse, "event: "...), f.kind...), "\ndata: "...)
	f.sse = append(append(f.sse, data...), "\n\n"...)
	f.ws = appendText(nil, envelope(nil, nil, message, data))
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

// The types of events that are made here, of decisions.
const (
	decisionMade  = "decision.made"
	decisionEnded = "decision.ended"
	decisionAll   = "decision.*"
)

// knownTypes are those that can be asked for.
var knownTypes = append(event.Types(), decisionMade, decisionEnded)

// filter is a subscription, checked.
type filter struct {
	api.Subscription
	key       string // the same for filters that keep the same
	decisions bool
}

// newFilter checks a subscription. The places of faults are names of fields.
func newFilter(s api.Subscription) (filter, []api.Fault) {
	f := filter{Subscription: s}
	var faults []api.Fault
	for _, pattern := range s.Types {
		if !slices.ContainsFunc(knownTypes, func(kind string) bool { return event.Matches(pattern, kind) }) {
			faults = append(faults, api.Fault{Pointer: "types", Reason: "no event has such a type; there are " + strings.Join(knownTypes, ", ") + ", and patterns as head.*"})
			break
		}
		f.decisions = f.decisions || event.Matches(pattern, decisionMade) || event.Matches(pattern, decisionEnded)
	}
	if len(s.Types) > len(knownTypes) {
		faults = append(faults, api.Fault{Pointer: "types", Reason: "has more types than there are"})
	}
	longest := map[string]int{"head": fleet.MaxNameLength, "model_type": fleet.MaxModelTypeLength, "region": fleet.MaxNameLength, "last_event_id": 128}
	for name, value := range map[string]string{"head": s.Head, "model_type": s.ModelType, "region": s.Region, "last_event_id": s.LastEventID} {
		if len(value) > longest[name] {
			faults = append(faults, api.Fault{Pointer: name, Reason: "has more than " + strconv.Itoa(longest[name]) + " bytes"})
		}
	}
	f.LastEventID = ""
	f.key = strings.Join(s.Types, ",") + "\x00" + s.Head + "\x00" + s.ModelType + "\x00" + s.Region
	return f, faults
}

// keeps reports whether the frame is wanted. What concerns no head, region or
// model type in particular concerns all.
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

// batch is what a subscriber gets next. Those who want the same share it.
type batch struct {
	b             []byte
	next          place
	lost          uint64 // events; a snapshot is to follow instead of b
	lostDecisions uint64 // what is told of these is in b
}

type batchKey struct {
	filter    string
	transport string
	from      place
}

// batches are made once for each beat.
type batches struct {
	mu   sync.Mutex
	made map[batchKey]*batch
}

func (c *batches) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.made)
}

// maxBatches bounds what is kept of a beat; more are made for each who asks.
const maxBatches = 256

// take returns what f keeps of what came after a place.
func (h *Hub) take(f *filter, transport string, from place) *batch {
	key := batchKey{f.key, transport, from}
	h.batches.mu.Lock()
	defer h.batches.mu.Unlock()
	if b := h.batches.made[key]; b != nil {
		return b
	}
	b := h.newBatch(f, transport, from)
	if len(h.batches.made) < maxBatches {
		if h.batches.made == nil {
			h.batches.made = map[batchKey]*batch{}
		}
		h.batches.made[key] = b
	}
	return b
}

// newBatch has events and decisions in the order in which they were told, so
// that whoever has one of them has all before it.
func (h *Hub) newBatch(f *filter, transport string, from place) *batch {
	b := &batch{next: from}
	put := func(fr *frame) {
		if !f.keeps(fr) {
			return
		}
		if fr.kind == api.MessageLost {
			b.lostDecisions += fr.weight
		}
		if transport == overSSE {
			b.b = append(b.b, fr.sse...)
		} else {
			b.b = append(b.b, fr.ws...)
		}
	}
	r := &h.rings
	r.mu.RLock()
	defer r.mu.RUnlock()
	if !f.decisions {
		b.next.event, b.lost = r.events.after(from.event, put)
		return b
	}
	var decisions []*frame
	var missed uint64
	b.next.decision, missed = r.decisions.after(from.decision, func(fr *frame) { decisions = append(decisions, fr) })
	if missed > 0 {
		b.lostDecisions = missed
		put(lostDecisions(missed, lostSlow))
	}
	b.next.event, b.lost = r.events.after(from.event, func(fr *frame) {
		for len(decisions) > 0 && decisions[0].seq <= fr.beside {
			put(decisions[0])
			decisions = decisions[1:]
		}
		put(fr)
	})
	for _, fr := range decisions {
		put(fr)
	}
	return b
}
