package registry_test

import (
	"reflect"
	"testing"

	"headway/internal/fleet"
	"headway/internal/memstore"
	"headway/internal/registry"
)

// Heads that say the same share its memory, also those that register while the
// service runs, and what an operator says of one changes nothing of another.
func TestHeadsThatSayTheSameShareIt(t *testing.T) {
	w := start(t, memstore.New(), lasting)
	labelled := func(id, gpu string) fleet.Spec {
		s := spec(id)
		s.Labels = map[string]string{"gpu": gpu, "tier": "gold"}
		return s
	}
	w.register(labelled("a", "h100"), active())
	w.register(labelled("b", "h100"), active())
	w.register(labelled("c", "a100"), active())
	heads := map[string]*fleet.Head{}
	for _, h := range w.Snapshot().Pools["m"].All.Heads {
		heads[h.ID] = h
	}
	at := func(v any) uintptr { return reflect.ValueOf(v).Pointer() }
	if at(heads["a"].Labels) != at(heads["b"].Labels) || at(heads["a"].ModelTypes) != at(heads["c"].ModelTypes) {
		t.Error("equal labels or model types take memory twice")
	}
	if heads["c"].Labels["gpu"] != "a100" {
		t.Errorf("c has the labels %v", heads["c"].Labels)
	}
	labels := map[string]string{"gpu": "none"}
	if _, err := w.Patch(t.Context(), "a", registry.Patch{Labels: &labels}); err != nil {
		t.Fatal(err)
	}
	for _, h := range w.Snapshot().Pools["m"].All.Heads {
		want := map[string]string{"a": "none", "b": "h100", "c": "a100"}[h.ID]
		if h.Labels["gpu"] != want || h.Labels["tier"] != "gold" {
			t.Errorf("after a change of a, %s has the labels %v", h.ID, h.Labels)
		}
	}
}
