package httpapi

import (
	"testing"
)

// FuzzCursor reads cursors that no list has returned.
func FuzzCursor(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		for _, kind := range []cursorKind{headCursor, decisionCursor} {
			q := query{values: map[string]string{"cursor": text}}
			place := cursor(&q, kind, "", idPlace)
			if (place == "") != (text == "" || len(q.faults) == 1) {
				t.Fatalf("place %q with the faults %v", place, q.faults)
			}
			if place != "" && kind.encode(place) != text {
				t.Fatalf("%q leads to %q, which is %q", text, place, kind.encode(place))
			}
		}
	})
}
