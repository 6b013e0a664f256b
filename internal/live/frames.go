package live

import (
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"

	"headway/api"
	"headway/internal/calls"
	"headway/internal/event"
	"headway/internal/fleet"
)

// frame is one event, encoded for both transports. It is immutable once it is in
// a ring.
type frame struct {
	seq    uint64 // place in its ring
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
	f := &frame{seq: e.ID, kind: e.Type, head: e.Head, region: e.Region, models: e.ModelTypes}
	if state, ok := e.Data.(fleet.HeadState); ok {
		f.admin = state.AdminState
	}
	told := calls.EventOf(h.o.Instance, e)
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

// id is what a subscriber resumes after.
func (h *Hub) id(seq uint64) string { return calls.EventID(h.o.Instance, seq) }

// ring keeps the last frames by their place.
type ring struct {
	mu     sync.RWMutex
	frames []*frame
	last   uint64 // place of the newest
	first  uint64 // place of the oldest that was put without a gap; 0: none was
}

func newRing(size int) *ring { return &ring{frames: make([]*frame, size)} }

func (r *ring) put(f *frame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.seq != r.last+1 || r.first == 0 {
		r.first = f.seq // what lies between was lost to us as well
	}
	r.frames[f.seq%uint64(len(r.frames))] = f
	r.last = f.seq
}

// newest is the place of the newest frame.
func (r *ring) newest() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.last
}

// after calls see for each frame after the place and returns the newest one's
// place, and how many frames after the given place are gone.
func (r *ring) after(place uint64, see func(*frame)) (newest, lost uint64) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if place >= r.last {
		return place, 0
	}
	oldest := r.first
	if size := uint64(len(r.frames)); r.last > size {
		oldest = max(oldest, r.last-size+1)
	}
	if place+1 < oldest {
		lost = oldest - place - 1
		place = oldest - 1
	}
	for n := place + 1; n <= r.last; n++ {
		see(r.frames[n%uint64(len(r.frames))])
	}
	return r.last, lost
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

// place is how far a subscriber has read.
type place struct{ event, decision uint64 }

// batch is what a subscriber gets next. Those who want the same share it.
type batch struct {
	b             []byte
	next          place
	lost          uint64 // events; a snapshot is to follow
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
	b := &batch{next: from}
	see := func(fr *frame) {
		if !f.keeps(fr) {
			return
		}
		if transport == overSSE {
			b.b = append(b.b, fr.sse...)
		} else {
			b.b = append(b.b, fr.ws...)
		}
	}
	b.next.event, b.lost = h.events.after(from.event, see)
	if f.decisions {
		events := len(b.b)
		b.next.decision, b.lostDecisions = h.decisions.after(from.decision, see)
		if b.lostDecisions > 0 {
			fr := &frame{kind: api.MessageLost}
			fr.encode(api.MessageLost, "", api.Lost{Count: b.lostDecisions, Reason: lostSlow, Types: decisionAll})
			told := fr.sse
			if transport == overWebSocket {
				told = fr.ws
			}
			b.b = slices.Insert(b.b, events, told...)
		}
	}
	if len(h.batches.made) < maxBatches {
		if h.batches.made == nil {
			h.batches.made = map[batchKey]*batch{}
		}
		h.batches.made[key] = b
	}
	return b
}
