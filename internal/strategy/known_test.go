package strategy

import "testing"

// What is known of a model type lasts as long as heads serve it.
func TestModelTypesThatLeaveAreForgotten(t *testing.T) {
	k := NewKnown(KnownOptions{Blocks: 1})
	kept := k.Pace("stays")
	k.Pace("leaves")
	k.Keep(func(model string) bool { return model == "stays" })
	if paces := k.Paces(); len(paces) != 1 || paces["stays"] != kept {
		t.Errorf("%v are known, want stays alone", paces)
	}
}
