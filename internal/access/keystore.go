package access

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"headway/internal/feed"
)

// KeyStore keeps keys durably. Implementations are safe for concurrent use;
// what they return is the caller's to keep, but for what WatchKeys brings.
type KeyStore interface {
	// Keys returns the stored keys with these ids, without any all keys, ordered
	// by id, and the revision of the store with the last change of any key that
	// they show. It sees every change that was answered before.
	Keys(ctx context.Context, ids ...string) (keys []Key, revision uint64, err error)
	// SaveKeys applies all changes or none, and returns when they are durable.
	// It sets the Revision of each change and of each key. A change whose Expect
	// is not the stored revision fails the whole call with an error that wraps
	// feed.ErrConflict. Every change takes a higher revision than all before.
	SaveKeys(ctx context.Context, changes []feed.Change[Key]) error
	// WatchKeys returns the changes after a revision as fleet.Store's Watch does.
	WatchKeys(ctx context.Context, after uint64) (feed.Changes[Key], error)
}

// Identity implements feed.Item.
func (k *Key) Identity() (id string, revision *uint64) { return k.ID, &k.Revision }

// Clone copies the key, what it points to included.
func (k *Key) Clone() *Key {
	c := *k
	c.Scopes, c.Heads, c.Regions, c.Hash = slices.Clone(c.Scopes), slices.Clone(c.Heads), slices.Clone(c.Regions), slices.Clone(c.Hash)
	return &c
}

// Load reads the keys of the store, and notifies those who wait for a change.
func (k *Keys) Load(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.read(ctx)
}

// Run puts what others write to the store into force, until ctx ends.
func (k *Keys) Run(ctx context.Context, log *slog.Logger) error {
	k.mu.Lock()
	after := k.revision
	k.mu.Unlock()
	feed.Follow(ctx, after, k.o.Store.WatchKeys, func(c feed.Changes[Key]) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.apply(c)
	}, func(err error) {
		log.Warn("the keys that others write are not seen; the watch is tried again", "error", err)
	})
	return nil
}

// read puts what is stored into force: of the ids, or without any all of it.
// k.mu must be held.
func (k *Keys) read(ctx context.Context, ids ...string) error {
	keys, revision, err := k.o.Store.Keys(ctx, ids...)
	if err != nil {
		return fmt.Errorf("read the keys: %w", err)
	}
	k.apply(feed.Read(ids, keys, revision))
	return nil
}

// apply puts changes into force, those that were written here and what others
// wrote; what is known already is passed over. k.mu must be held.
func (k *Keys) apply(c feed.Changes[Key]) {
	keys, news := maps.Clone(k.all()), false
	stored := map[string]bool{}
	for _, change := range c.List {
		stored[change.ID] = true
		switch e := keys[change.ID]; {
		case e == nil && change.Value == nil, e != nil && change.Revision <= e.key.Revision:
			continue
		case change.Value == nil:
			delete(keys, change.ID)
		default:
			fresh := k.entry(*change.Value)
			if e != nil {
				fresh.used.Store(e.used.Load())
			}
			keys[change.ID] = fresh
		}
		news = true
	}
	if c.Whole {
		before := len(keys)
		maps.DeleteFunc(keys, func(id string, e *entry) bool { return !stored[id] && e.key.Revision <= c.Revision })
		news = news || len(keys) < before
	}
	k.revision = max(k.revision, c.Revision)
	if news {
		k.put(keys)
	}
}

// decision says what is to be written, given the keys.
type decision func(map[string]*entry) ([]feed.Change[Key], error)

// conflictTries is how often is decided, each time on what is stored by then.
const conflictTries = 10

// save stores what decide says and puts it into force. When another process was
// faster, its change is put into force first, and decide is called again. k.mu must
// be held.
func (k *Keys) save(ctx context.Context, decide decision) error {
	for try := 1; ; try++ {
		changes, err := decide(k.all())
		if err != nil || len(changes) == 0 {
			return err
		}
		if err = k.o.Store.SaveKeys(ctx, changes); err == nil {
			k.apply(feed.Changes[Key]{List: changes})
			return nil
		}
		if !errors.Is(err, feed.ErrConflict) || try == conflictTries {
			return err
		}
		if err := k.read(ctx, feed.IDs(changes)...); err != nil {
			return err
		}
	}
}
