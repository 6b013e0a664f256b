package strategy

import (
	"slices"
	"strings"
	"sync/atomic"

	"headway/internal/fleet"
)

// sessionSlots bounds the sessions that are remembered; a power of two.
const sessionSlots = 1 << 16

// Sessions is the memory of which head served a session last. It is a fixed table
// that forgets the older of two sessions in one slot.
//
// A slot is two words that are written one after the other without a lock.
// The key is stored combined with the head's instance, so that a reader that
// sees one word of each of two writers finds no match (the lockless hashing
// of chess programs: Hyatt and Mann, ICGA Journal 25(1), 2002).
type Sessions struct {
	Evictions atomic.Uint64 // sessions that another took the slot of

	slots []sessionSlot
	count atomic.Int64
}

type sessionSlot struct {
	key  atomic.Uint64
	head atomic.Pointer[fleet.Head]
	at   atomic.Int64 // where the head last stood among the candidates: a hint
}

// NewSessions makes an empty table.
func NewSessions() *Sessions {
	return &Sessions{slots: make([]sessionSlot, sessionSlots)}
}

// recall finds the head of the session if the tier has it in the same epoch.
func (t *Sessions) recall(in *Input) {
	in.Recalled.Asked, in.Recalled.Head = true, t.lookup(in.session, in.Heads())
	in.Recalled.Found = in.Recalled.Found || in.Recalled.Head != nil
}

// lookup returns the head of the session among heads, which are ordered by id.
func (t *Sessions) lookup(session uint64, heads []*fleet.Head) *fleet.Head {
	slot := &t.slots[session&(sessionSlots-1)]
	old := slot.head.Load()
	if old == nil || slot.key.Load()^old.Instance != session {
		return nil
	}
	if at := slot.at.Load(); at < int64(len(heads)) && heads[at].Instance == old.Instance {
		return heads[at]
	}
	at, found := slices.BinarySearchFunc(heads, old.ID, func(h *fleet.Head, id string) int { return strings.Compare(h.ID, id) })
	if !found || heads[at].Instance != old.Instance {
		return nil
	}
	slot.at.Store(int64(at))
	return heads[at]
}

// placed notes that head serves the session, if the strategy asked for it. What is
// known is not written again: a busy session moves no cache lines.
func (t *Sessions) placed(in *Input, head *fleet.Head) {
	if !in.Recalled.Asked {
		return
	}
	session := in.session
	slot := &t.slots[session&(sessionSlots-1)]
	old := slot.head.Load()
	known := old != nil && slot.key.Load()^old.Instance == session
	switch {
	case known && old == head:
		return
	case old == nil:
		t.count.Add(1)
	case !known:
		t.Evictions.Add(1)
	}
	slot.head.Store(head)
	slot.key.Store(session ^ head.Instance)
}

// Len is the number of sessions that are remembered.
func (t *Sessions) Len() int { return int(t.count.Load()) }

// SessionHash is FNV-1a over the model and the key, 0 for no key. A blank key is
// none, or all who send it would share a session. It is the same on every router,
// so that routers agree on a session's head.
func SessionHash(key, model string) uint64 {
	if strings.TrimSpace(key) == "" {
		return 0
	}
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for i := range len(model) {
		h = (h ^ uint64(model[i])) * prime
	}
	h *= prime
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * prime
	}
	return max(Mix(h, 0), 1)
}
