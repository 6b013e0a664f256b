package access

import "sync/atomic"

// book is the keys by id: one pointer that requests read, and a signal for
// those who must look again when somebody may have lost what they had. The first
// Store makes the signal.
type book struct {
	keys   atomic.Pointer[map[string]*entry]
	signal atomic.Pointer[chan struct{}] // closed by the next change
}

// Load returns the keys, which nobody changes.
func (b *book) Load() *map[string]*entry { return b.keys.Load() }

// Store puts keys into force, and then tells of it.
func (b *book) Store(keys *map[string]*entry) {
	b.keys.Store(keys)
	b.tell()
}

// tell wakes all who wait for a change.
func (b *book) tell() {
	if before := b.signal.Swap(new(make(chan struct{}))); before != nil {
		close(*before)
	}
}

// Changed returns a channel that is closed when somebody who was let in may have
// lost that: a key was made or revoked, or other authorities sign the
// certificates of clients. Whoever must not miss a change takes the channel
// first, asks Ended then, and waits last.
func (g *Guard) Changed() <-chan struct{} { return *g.o.Keys.book.signal.Load() }

// AuthoritiesChanged has all who wait for a change look again, since other
// authorities may sign the certificates of clients now.
func (g *Guard) AuthoritiesChanged() { g.o.Keys.book.tell() }
