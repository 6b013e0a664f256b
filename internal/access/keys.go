package access

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"headway/internal/audit"
	"headway/internal/feed"
	"headway/internal/strict"
)

// Key is an API key as it is stored: of the secret only a hash.
type Key struct {
	ID      string       `json:"id"`
	Name    string       `json:"name"`
	Role    Role         `json:"role"`
	Scopes  []Permission `json:"scopes,omitempty"`
	Heads   []string     `json:"heads,omitempty"`
	Regions []string     `json:"regions,omitempty"`
	Hash    []byte       `json:"hash"` // SHA-256 of the whole key; it has 256 random bits, so that no slow hash is needed
	Limits
	CreatedAt time.Time `json:"created_at"`
	CreatedBy string    `json:"created_by"`
	ExpiresAt time.Time `json:"expires_at,omitzero"` // zero: never
	RevokedAt time.Time `json:"revoked_at,omitzero"` // zero: it was not
	Revision  uint64    `json:"-"`                   // the store's, for compare-and-swap; 0: never stored
}

// Request says what a new key is to be.
type Request struct {
	Name      string
	Role      string
	Scopes    []string
	Heads     []string
	Regions   []string
	ExpiresIn time.Duration // 0: never
	Limits
}

// Bounds of keys.
const (
	MaxKeys     = 10_000
	maxName     = 100
	maxPatterns = 100
	maxPattern  = 128
	minLife     = time.Minute
	maxLife     = 10 * 365 * 24 * time.Hour
	keepEnded   = 90 * 24 * time.Hour // keys that were revoked or have expired are listed so long
)

// keyPrefix begins every key, so that one is recognised where none belongs.
const keyPrefix = "hw_"

// Keys are the API keys. To look one up takes no lock; all methods are safe for
// concurrent use.
type Keys struct {
	o KeysOptions

	byID    atomic.Pointer[map[string]*entry] // never changed, but replaced
	changed atomic.Pointer[chan struct{}]     // closed by the next change

	mu       sync.Mutex // one change at a time
	revision uint64     // of the store, when it was last read or watched
}

// entry is a key that can be used, or could.
type entry struct {
	key       Key
	principal *Principal
	used      atomic.Int64 // Unix seconds of the last use
}

// KeysOptions are what Keys are made of.
type KeysOptions struct {
	Store KeyStore         // required
	Audit audit.Recorder   // required
	Now   func() time.Time // required
	Rate  float64          // requests a second of each key; 0: no limit
}

// OpenKeys reads the keys of the store and forgets those that ended more than 90
// days ago.
func OpenKeys(ctx context.Context, o KeysOptions) (*Keys, error) {
	if o.Store == nil || o.Audit == nil || o.Now == nil {
		return nil, errors.New("access: Store, Audit and Now are required")
	}
	k := &Keys{o: o}
	k.put(map[string]*entry{})
	if err := k.Load(ctx); err != nil {
		return nil, err
	}
	_ = k.forget(ctx) // where it fails, it is tried again once there are MaxKeys
	return k, nil
}

// all returns the keys by id.
func (k *Keys) all() map[string]*entry { return *k.byID.Load() }

// put puts keys into force, and then notifies.
func (k *Keys) put(byID map[string]*entry) {
	k.byID.Store(&byID)
	k.notify()
}

// notify wakes all who wait for a change.
func (k *Keys) notify() {
	if before := k.changed.Swap(new(make(chan struct{}))); before != nil {
		close(*before)
	}
}

// count is how many keys there are of which is holds.
func (k *Keys) count(is func(*Key) bool) (n int) {
	for _, e := range k.all() {
		if is(&e.key) {
			n++
		}
	}
	return n
}

// forget removes the keys that ended more than 90 days ago.
func (k *Keys) forget(ctx context.Context) error {
	return k.save(ctx, func(keys map[string]*entry) (changes []feed.Change[Key], _ error) {
		for _, id := range forgettable(keys, k.o.Now().Add(-keepEnded)) {
			changes = append(changes, feed.Change[Key]{ID: id, Expect: keys[id].key.Revision})
		}
		return changes, nil
	})
}

// forgettable are the keys that ended before a time. Of those that were not
// revoked the one that lasts longest stays: a service without any is open, and
// time alone must not open it.
func forgettable(keys map[string]*entry, before time.Time) (ids []string) {
	var last *Key
	for id, e := range keys {
		if e.key.RevokedAt.IsZero() && (last == nil || e.key.outlasts(last)) {
			last = &e.key
		}
		if e.key.endedBefore(before) {
			ids = append(ids, id)
		}
	}
	return slices.DeleteFunc(ids, func(id string) bool { return last != nil && id == last.ID })
}

func (k *Key) endedBefore(t time.Time) bool {
	return !k.RevokedAt.IsZero() && k.RevokedAt.Before(t) || !k.ExpiresAt.IsZero() && k.ExpiresAt.Before(t)
}

// outlasts reports whether a key expires later than another.
func (k *Key) outlasts(other *Key) bool {
	return !other.ExpiresAt.IsZero() && (k.ExpiresAt.IsZero() || k.ExpiresAt.After(other.ExpiresAt))
}

func (k *Keys) entry(key Key) *entry {
	return &entry{key: key, principal: &Principal{
		Type: "key", ID: key.ID, Name: key.Name, Role: key.Role, Scopes: key.Scopes,
		Heads: key.Heads, Regions: key.Regions, Expires: key.ExpiresAt, Limits: key.Limits, rate: newBucket(k.o.Rate),
	}}
}

// Any reports whether there is a key that was not revoked.
func (k *Keys) Any() bool {
	for _, e := range k.all() { // by hand: Closed asks it for each request
		if e.key.RevokedAt.IsZero() {
			return true
		}
	}
	return false
}

// valid reports whether there is a key with the id that was not revoked.
func (k *Keys) valid(id string) bool {
	e := k.all()[id]
	return e != nil && e.key.RevokedAt.IsZero()
}

// Look finds the principal of a key. The errors are ErrUnknown, ErrExpired and
// ErrRevoked.
func (k *Keys) Look(secret string) (*Principal, error) {
	id, _, ok := strings.Cut(strings.TrimPrefix(secret, keyPrefix), "_")
	e := k.all()[id]
	if !ok || e == nil {
		return nil, ErrUnknown
	}
	var text [128]byte // keys are shorter: no allocation
	hash := sha256.Sum256(append(text[:0], secret...))
	if subtle.ConstantTimeCompare(hash[:], e.key.Hash) != 1 {
		return nil, ErrUnknown
	}
	now := k.o.Now()
	switch {
	case !e.key.RevokedAt.IsZero():
		return nil, ErrRevoked
	case !e.key.ExpiresAt.IsZero() && !now.Before(e.key.ExpiresAt):
		return nil, ErrExpired
	}
	if seconds := now.Unix(); e.used.Load() != seconds {
		e.used.Store(seconds)
	}
	return e.principal, nil
}

// Listed is a key as it is shown.
type Listed struct {
	Key
	LastUsed time.Time // since the start of the process, to the second; zero: not yet
}

func (e *entry) listed() Listed {
	l := Listed{Key: e.key}
	if s := e.used.Load(); s != 0 {
		l.LastUsed = time.Unix(s, 0).UTC()
	}
	return l
}

// List returns all keys, the newest first.
func (k *Keys) List() []Listed {
	keys := k.all()
	list := make([]Listed, 0, len(keys))
	for _, e := range keys {
		list = append(list, e.listed())
	}
	slices.SortFunc(list, func(a, b Listed) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// KeyRefusedError refuses a new key that is wider than its maker; it wraps
// *strict.InvalidError.
type KeyRefusedError struct{ error }

func (e *KeyRefusedError) Unwrap() error { return e.error }

// Create makes a key and returns it with its secret, which is not kept. by may
// give only permissions that it has itself. The errors are *KeyRefusedError,
// *strict.InvalidError, the audit trail's and the store's; after each there is no
// such key.
func (k *Keys) Create(ctx context.Context, by *Principal, r Request) (Key, string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.all()) >= MaxKeys {
		if err := k.forget(ctx); err != nil {
			return Key{}, "", err
		}
	}
	key, faults := k.check(by, r)
	wider := checkWidth(by, &key)
	if err := strict.Invalid(append(faults, wider...)); len(wider) > 0 {
		return Key{}, "", &KeyRefusedError{err}
	} else if err != nil {
		return Key{}, "", err
	}
	var id [6]byte
	var secret [32]byte
	_, _ = rand.Read(id[:]) // never fails
	_, _ = rand.Read(secret[:])
	key.ID = fmt.Sprintf("%x", id)
	text := keyPrefix + key.ID + "_" + base64.RawURLEncoding.EncodeToString(secret[:])
	hash := sha256.Sum256([]byte(text))
	key.Hash = hash[:]
	err := k.change(ctx, "key.create", func(map[string]*entry) ([]feed.Change[Key], error) {
		return []feed.Change[Key]{{ID: key.ID, Value: &key}}, nil
	})
	if err != nil {
		return Key{}, "", err
	}
	return key, text, nil
}

// check makes the key, and finds what is wrong with the request. A first key must
// be one that can make others.
func (k *Keys) check(by *Principal, r Request) (Key, []strict.Fault) {
	var faults strict.Faults
	fault := faults.Add
	key := Key{
		Name: r.Name, Role: Role(r.Role), Heads: r.Heads, Regions: r.Regions, Limits: r.Limits,
		CreatedAt: k.o.Now().UTC().Truncate(time.Millisecond), CreatedBy: by.Type,
	}
	if by.ID != "" {
		key.CreatedBy = by.Type + ":" + by.ID
	}
	if n := len(r.Name); n == 0 || n > maxName || !strict.Printable(r.Name) {
		fault("/name", "is required: 1 to %d bytes of characters that can be seen, and spaces", maxName)
	}
	if !slices.Contains(Roles(), key.Role) {
		fault("/role", "want one of viewer, operator, admin, head, client")
	}
	for i, s := range r.Scopes {
		p := Permission(s)
		switch at := fmt.Sprintf("/scopes/%d", i); {
		case !slices.Contains(Permissions(), p):
			fault(at, "want one of read, operate, decide, head, admin")
		case !key.Role.Allows(p):
			fault(at, "the role %s does not have it; scopes only narrow", key.Role)
		case slices.Contains(key.Scopes, p):
			fault(at, "is there twice")
		}
		key.Scopes = append(key.Scopes, p)
	}
	faults = append(faults, key.Limits.check()...)
	faults = append(faults, checkPatterns("/heads", r.Heads)...)
	faults = append(faults, checkPatterns("/regions", r.Regions)...)
	switch {
	case key.Role == RoleHead && len(r.Heads) == 0:
		fault("/heads", "is required of the role head: the ids that it may register, such as gpu-*")
	case key.Role != RoleHead && len(r.Heads)+len(r.Regions) > 0:
		fault("/heads", "only keys of the role head have heads and regions")
	}
	if r.ExpiresIn != 0 {
		if r.ExpiresIn < minLife || r.ExpiresIn > maxLife {
			fault("/expires_in_seconds", "want 60 to %d", int64(maxLife/time.Second))
		}
		key.ExpiresAt = key.CreatedAt.Add(r.ExpiresIn)
	}
	if !k.Any() && (key.Role != RoleAdmin || len(key.Scopes) > 0) {
		fault("/role", "the first key must be of the role admin: from then on every caller needs a key, you too")
	}
	if len(k.all()) >= MaxKeys {
		fault("", "there are %d keys already; those that were revoked or have expired count for 90 days more", MaxKeys)
	}
	return key, faults
}

// checkWidth refuses a key that is wider than its maker.
func checkWidth(by *Principal, key *Key) (faults strict.Faults) {
	for _, p := range allows[key.Role] {
		if (len(key.Scopes) == 0 || slices.Contains(key.Scopes, p)) && !by.May(p) {
			faults.Add("/role", "a key that may %s can only be made by who may %s", p, p)
		}
	}
	if by.Role == RoleHead && (!covers(by.Heads, key.Heads) || len(by.Regions) > 0 && (len(key.Regions) == 0 || !covers(by.Regions, key.Regions))) {
		faults.Add("/heads", "are more than those of the key that makes it")
	}
	if !by.Expires.IsZero() && (key.ExpiresAt.IsZero() || key.ExpiresAt.After(by.Expires)) {
		faults.Add("/expires_in_seconds", "a key cannot outlive the one that makes it, which expires at %s", by.Expires.UTC().Format(time.RFC3339))
	}
	return faults
}

func checkPatterns(at string, list []string) (faults strict.Faults) {
	if len(list) > maxPatterns {
		faults.Add(at, "has more than %d entries", maxPatterns)
		return faults
	}
	for i, p := range list {
		if p == "" || len(p) > maxPattern || strings.ContainsFunc(p, func(r rune) bool {
			return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-*", r)
		}) {
			faults.Add(fmt.Sprintf("%s/%d", at, i), "want 1 to %d letters, digits, . _ : - and *", maxPattern)
		}
	}
	return faults
}

// Revoke ends a key at once and for ever. The errors are ErrKeyNotFound,
// ErrLastAdmin, the audit trail's and the store's.
func (k *Keys) Revoke(ctx context.Context, id string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.o.Now().UTC().Truncate(time.Millisecond)
	return k.change(ctx, "key.revoke", func(keys map[string]*entry) ([]feed.Change[Key], error) {
		e := keys[id]
		switch {
		case e == nil:
			return nil, ErrKeyNotFound
		case !e.key.RevokedAt.IsZero():
			return nil, nil
		case k.administers(&e.key):
			others := k.count(func(other *Key) bool { return other.ID != id && other.RevokedAt.IsZero() })
			if others > 0 && k.count(func(other *Key) bool { return other.ID != id && k.administers(other) }) == 0 {
				return nil, ErrLastAdmin
			}
		}
		revoked := e.key
		revoked.RevokedAt = now
		return []feed.Change[Key]{{ID: id, Expect: e.key.Revision, Value: &revoked}}, nil
	})
}

// SetLimits changes the limits of a key by set, from the next request on, and returns
// the key. The errors are ErrKeyNotFound, *strict.InvalidError, the audit trail's and
// the store's.
func (k *Keys) SetLimits(ctx context.Context, id string, set func(*Limits)) (Listed, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.change(ctx, "key.patch", func(keys map[string]*entry) ([]feed.Change[Key], error) {
		e := keys[id]
		if e == nil {
			return nil, ErrKeyNotFound
		}
		changed := e.key
		set(&changed.Limits)
		if err := strict.Invalid(changed.Limits.check()); err != nil || changed.Limits == e.key.Limits {
			return nil, err
		}
		return []feed.Change[Key]{{ID: id, Expect: e.key.Revision, Value: &changed}}, nil
	})
	if err != nil {
		return Listed{}, err
	}
	return k.all()[id].listed(), nil
}

// usable reports whether a key is neither revoked nor expired.
func (k *Key) usable(now time.Time) bool {
	return k.RevokedAt.IsZero() && (k.ExpiresAt.IsZero() || now.Before(k.ExpiresAt))
}

// administers reports whether a key may administer now.
func (k *Keys) administers(key *Key) bool {
	return key.Role == RoleAdmin && key.usable(k.o.Now()) && (len(key.Scopes) == 0 || slices.Contains(key.Scopes, Admin))
}

// audited are the fields of a key that the audit trail shows.
type audited struct {
	Name    string       `json:"name"`
	Role    Role         `json:"role"`
	Scopes  []Permission `json:"scopes,omitempty"`
	Heads   []string     `json:"heads,omitempty"`
	Regions []string     `json:"regions,omitempty"`
	Limits
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	RevokedAt time.Time `json:"revoked_at,omitzero"`
}

func fields(k *Key) json.RawMessage {
	if k == nil {
		return nil
	}
	b, err := json.Marshal(audited{k.Name, k.Role, k.Scopes, k.Heads, k.Regions, k.Limits, k.ExpiresAt, k.RevokedAt})
	if err != nil {
		return nil // text that was checked always encodes
	}
	return b
}

// change records the intent, stores what decide says, puts it into force, and
// records the outcome. k.mu must be held.
func (k *Keys) change(ctx context.Context, action string, decide decision) error {
	keys := k.all()
	changes, err := decide(keys)
	if err != nil || len(changes) == 0 {
		return err
	}
	c := changes[0]
	var before *Key
	if e := keys[c.ID]; e != nil {
		before = &e.key
	}
	return audit.Do(ctx, k.o.Audit, audit.Entry{
		Category: audit.Admin, Action: action, Target: audit.Target{Type: "key", ID: c.ID},
		Before: fields(before), After: fields(c.Value),
	}, func() error { return k.save(ctx, decide) })
}
