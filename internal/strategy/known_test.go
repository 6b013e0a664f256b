package strategy

import (
	"fmt"
	"slices"
	"testing"

	"headway/internal/fleet"
)

// What is known of a model type lasts as long as heads serve it.
func TestModelTypesThatLeaveAreForgotten(t *testing.T) {
	k := NewKnown(KnownOptions{Blocks: 1})
	kept := k.Pace("stays")
	k.Pace("leaves")
	k.Keep(func(model string) []*fleet.Head {
		if model == "stays" {
			return []*fleet.Head{{Live: new(fleet.Live)}}
		}
		return nil
	})
	if paces := k.Paces(); len(paces) != 1 || paces["stays"] != kept {
		t.Errorf("%v are known, want stays alone", paces)
	}
}

// A head that has the number of a slow one is not taken for slow itself.
// Equal text has other keys for another model type, another scope and another process, and
// no key is what the text alone would give.
func TestKeysAreOfOneModelTypeScopeAndProcess(t *testing.T) {
	hashes := []uint64{0, 1, 1 << 60}
	seen := map[uint64]string{0: "a hash", 1: "a hash", 1 << 60: "a hash"}
	for _, secret := range [][16]byte{{}, {1}, {15: 1}} {
		k := NewKnown(KnownOptions{Secret: secret})
		for _, model := range []string{"", "m", "n"} {
			for _, scope := range []uint64{0, 1, 1 << 63} {
				of := fmt.Sprintf("%q in the scope %d by %v", model, scope, secret)
				keys, again := slices.Clone(hashes), slices.Clone(hashes)
				k.Keys(keys, model, scope)
				for i, key := range keys {
					if other, found := seen[key]; found {
						t.Errorf("number %d of %s is that of %s", i, of, other)
					}
					seen[key] = of
				}
				if k.Keys(again, model, scope); !slices.Equal(again, keys) {
					t.Errorf("%s has two sets of keys", of)
				}
			}
		}
	}
}

func TestSpeedsAreThoseOfAHeadNotOfItsNumber(t *testing.T) {
	e := newEngineLike(1, 1, 4)
	e.play(600)
	k := NewKnown(KnownOptions{Blocks: 1})
	k.paces.Store(&map[string]*Pace{"m": e.pace})
	if s := e.pace.Slower(e.heads[2]); s < 2 {
		t.Fatalf("the slow head is taken to be %.2f times as slow", s)
	}
	keep := func(heads ...*fleet.Head) { k.Keep(func(string) []*fleet.Head { return heads }) }
	if keep(e.heads...); e.pace.Slower(e.heads[2]) < 2 {
		t.Error("the speed of a head that is still there is forgotten")
	}
	next := &fleet.Head{Number: 2, Instance: 9, Live: new(fleet.Live)}
	if keep(e.heads[0], e.heads[1], next); e.pace.Slower(next) != 1 {
		t.Errorf("a new head is taken to be %.2f times as slow, as the one before it", e.pace.Slower(next))
	}
}
