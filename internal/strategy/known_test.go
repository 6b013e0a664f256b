package strategy

import (
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
