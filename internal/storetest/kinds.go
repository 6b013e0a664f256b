package storetest

import (
	"context"
	"crypto/sha256"
	"reflect"
	"slices"
	"testing"
	"time"

	"headway/internal/access"
	"headway/internal/feed"
	"headway/internal/fleet"
)

// kind is one kind of what a store keeps by id.
type kind[T any, P feed.Item[T]] struct {
	name  string
	read  func(ctx context.Context, ids ...string) ([]T, uint64, error)
	save  func(ctx context.Context, changes []feed.Change[T]) error
	watch func(ctx context.Context, after uint64) (feed.Changes[T], error)

	full  func(id string) *T      // with a value in each field
	bare  func(id string) *T      // with as few as there may be
	alter func(v *T, n int)       // gives it the nth of other values
	spoil func(v *T)              // writes to what it points to
	utc   func(v *T) []*time.Time // its times, whose representation does not count
}

type (
	headKind = kind[fleet.Record, *fleet.Record]
	keyKind  = kind[access.Key, *access.Key]
)

func heads(s Store) headKind {
	return headKind{
		name: "heads", read: s.Heads, save: s.Save, watch: s.Watch,
		full: record,
		bare: func(id string) *fleet.Record {
			return &fleet.Record{Spec: fleet.Spec{ID: id, Endpoint: "http://10.0.0.1", ModelTypes: []string{"m"}, Region: "us", Weight: 1}}
		},
		alter: func(r *fleet.Record, n int) { r.Epoch, r.Confirmed, r.Leaving = uint64(n), false, true },
		spoil: func(r *fleet.Record) {
			r.Spec.ModelTypes[0], r.Spec.Labels["gpu"], r.Admin.Labels["team"] = "spoilt", "spoilt", "spoilt"
		},
		utc: func(r *fleet.Record) []*time.Time { return []*time.Time{&r.RegisteredAt, &r.UpdatedAt} },
	}
}

func keys(s Store) keyKind {
	return keyKind{
		name: "keys", read: s.Keys, save: s.SaveKeys, watch: s.WatchKeys,
		full:  key,
		bare:  func(id string) *access.Key { return &access.Key{ID: id, Role: access.RoleAdmin, Hash: []byte{1}} },
		alter: func(k *access.Key, n int) { k.Name = string(rune('a' + n%26)) },
		spoil: func(k *access.Key) { k.Heads[0], k.Hash[0] = "spoilt", 1 },
		utc:   func(k *access.Key) []*time.Time { return []*time.Time{&k.CreatedAt, &k.ExpiresAt, &k.RevokedAt} },
	}
}

func record(id string) *fleet.Record {
	at := time.Date(2026, 7, 1, 12, 0, 0, 123e6, time.UTC)
	return &fleet.Record{
		Spec: fleet.Spec{
			ID: id, Endpoint: "https://[::1]:8443/v1", ModelTypes: []string{"llama-3.1-8b", "qwen2.5-32b"}, Region: "eu-west",
			Zone: "eu-west-1a", Version: "0.11.2", Engine: "vllm", Weight: 2.5, MaxInFlight: 64, Labels: map[string]string{"gpu": "h100"},
		},
		Admin:     fleet.Admin{State: fleet.AdminMaintenance, Weight: 0.25, Labels: map[string]string{"team": "a"}},
		Epoch:     1<<63 + 7,
		Confirmed: true, RegisteredAt: at, UpdatedAt: at.Add(time.Hour),
	}
}

func key(id string) *access.Key {
	at := time.Date(2026, 7, 1, 12, 0, 0, 123e6, time.UTC)
	hash := sha256.Sum256([]byte(id))
	return &access.Key{
		ID: id, Name: "the key " + id, Role: access.RoleHead, Scopes: []access.Permission{access.Read}, Heads: []string{"gpu-*"},
		Regions: []string{"eu-*"}, Hash: hash[:], CreatedAt: at, CreatedBy: "key:0", ExpiresAt: at.Add(time.Hour), RevokedAt: at.Add(time.Minute),
	}
}

func revision[T any, P feed.Item[T]](v P) uint64 {
	_, at := v.Identity()
	return *at
}

func (k kind[T, P]) all(t testing.TB) []T {
	t.Helper()
	list, _, err := k.read(t.Context())
	must(t, err)
	return list
}

func (k kind[T, P]) ids(t testing.TB) (ids []string) {
	t.Helper()
	for _, v := range k.all(t) {
		id, _ := P(&v).Identity()
		ids = append(ids, id)
	}
	return ids
}

// put saves a value and returns it.
func (k kind[T, P]) put(t testing.TB, expect uint64, v *T) *T {
	t.Helper()
	id, _ := P(v).Identity()
	must(t, k.save(t.Context(), []feed.Change[T]{{ID: id, Expect: expect, Value: v}}))
	return v
}

// same compares all but how times are represented.
func (k kind[T, P]) same(list []T, want ...T) bool {
	return slices.EqualFunc(list, want, func(a, b T) bool {
		for _, v := range []*T{&a, &b} {
			for _, at := range k.utc(v) {
				*at = at.UTC()
			}
		}
		return reflect.DeepEqual(a, b)
	})
}
