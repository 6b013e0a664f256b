package access_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"headway/internal/access"
	"headway/internal/feed"
	"headway/internal/fleet"
	"headway/internal/memstore"
	"headway/internal/strict"
)

const day = 24 * time.Hour

// A store that is full of keys that no one can use any more takes new ones when
// those have been kept for as long as the error says.
func TestRevokedAndExpiredKeysAreForgottenAfter90Days(t *testing.T) {
	d := open(t, access.Options{})
	admin := d.key(access.Request{Name: "me", Role: "admin"})
	var changes []feed.Change[access.Key]
	for i := range access.MaxKeys - 1 {
		key := access.Key{ID: fmt.Sprintf("%012x", i), Name: "old", Role: access.RoleViewer, CreatedAt: d.now}
		if i%2 == 0 {
			key.RevokedAt = d.now
		} else {
			key.ExpiresAt = d.now
		}
		changes = append(changes, feed.Change[access.Key]{ID: key.ID, Value: &key})
	}
	if err := d.store.SaveKeys(t.Context(), changes); err != nil {
		t.Fatal(err)
	}
	d.load(access.Options{}, 0)
	want := access.Request{Name: "new", Role: "viewer"}

	d.now = d.now.Add(90 * day)
	_, _, err := d.keys.Create(t.Context(), owner, want)
	if invalid, ok := errors.AsType[*strict.InvalidError](err); !ok || !strings.Contains(invalid.Error(), "90 days") {
		t.Fatalf("the book is full, and %v", err)
	}
	d.now = d.now.Add(time.Second)
	d.store.Inject(memstore.Full)
	if _, _, err := d.keys.Create(t.Context(), owner, want); !errors.Is(err, fleet.ErrStoreUnavailable) || len(d.keys.List()) != access.MaxKeys {
		t.Errorf("nothing can be forgotten, and %v; %d keys", err, len(d.keys.List()))
	}
	d.store.Inject(memstore.Fault{})
	d.key(want)
	if n, stored := len(d.keys.List()), len(d.stored()); n != 2 || stored != 2 {
		t.Errorf("%d keys in the book and %d in the store; want 2", n, stored)
	}
	if _, err := d.keys.Look(admin); err != nil {
		t.Errorf("the key in use: %v", err)
	}
}

func TestKeysAreForgottenAtTheStart(t *testing.T) {
	d := open(t, access.Options{})
	d.key(access.Request{Name: "me", Role: "admin"})
	revoked := d.key(access.Request{Name: "revoked", Role: "viewer"})
	d.key(access.Request{Name: "expired", Role: "viewer", ExpiresIn: time.Hour})
	if err := d.keys.Revoke(t.Context(), strings.Split(revoked, "_")[1]); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		later time.Duration
		keys  int
		err   error
	}{{90 * day, 3, access.ErrRevoked}, {time.Second, 2, access.ErrUnknown}, {time.Hour, 1, access.ErrUnknown}} {
		d.now = d.now.Add(step.later)
		d.load(access.Options{}, 0)
		if n := len(d.keys.List()); n != step.keys || len(d.stored()) != step.keys {
			t.Errorf("%v later: %d keys, %d stored; want %d", step.later, n, len(d.stored()), step.keys)
		}
		if _, err := d.keys.Look(revoked); !errors.Is(err, step.err) {
			t.Errorf("%v later: the revoked key: %v; want %v", step.later, err, step.err)
		}
	}

	// A store that cannot write does not keep the service from starting.
	d.key(access.Request{Name: "expired", Role: "viewer", ExpiresIn: time.Hour})
	d.now = d.now.Add(91 * day)
	d.store.Inject(memstore.Full)
	keys, err := access.OpenKeys(t.Context(), access.KeysOptions{Store: d.store, Audit: d, Now: d.clock})
	if err != nil || len(keys.List()) != 2 {
		t.Errorf("%v; %d keys", err, len(keys.List()))
	}
}

// Keys end by themselves, and a service whose keys have all ended must not open
// itself to every caller on loopback for that.
func TestTimeAloneDoesNotOpenTheService(t *testing.T) {
	d := open(t, access.Options{})
	d.key(access.Request{Name: "short", Role: "admin", ExpiresIn: time.Hour})
	long := d.key(access.Request{Name: "long", Role: "admin", ExpiresIn: 2 * time.Hour})
	d.now = d.now.Add(1000 * day)
	d.load(access.Options{}, 0)
	if list := d.keys.List(); len(list) != 1 || list[0].Name != "long" {
		t.Errorf("there are %+v", list)
	}
	if _, err := d.keys.Look(long); !errors.Is(err, access.ErrExpired) {
		t.Errorf("the key: %v", err)
	}
	if _, err := d.guard.Authenticate(ask(near)); !errors.Is(err, access.ErrNoCredential) {
		t.Errorf("without a key: %v", err)
	}
}

// A name is shown on terminals and beside other names.
func TestNamesOfKeysAreWhatTheyLookLike(t *testing.T) {
	d := open(t, access.Options{})
	d.key(access.Request{Name: "Büro 7, 東京 – chat", Role: "admin"})
	for _, name := range []string{"a\x1b[31mb", "a\u009b31mb", "a\u0085b", "a\u202eb", "a\u2066b", "a\u200bb", "a\ufeffb", "a\u2028b", "a\x7fb", "a\x9bb", "a\u00a0b"} {
		_, _, err := d.keys.Create(t.Context(), owner, access.Request{Name: name, Role: "viewer"})
		if invalid, ok := errors.AsType[*strict.InvalidError](err); !ok || invalid.Faults[0].Pointer != "/name" {
			t.Errorf("the name %q: %v", name, err)
		}
	}
}
