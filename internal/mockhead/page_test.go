package mockhead

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// The page of the demo names each kind of fault, each form and each field.
func TestThePageNamesEachFault(t *testing.T) {
	text, err := os.ReadFile("../../docs/demo.md")
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Concat(framings, usageForms)
	for _, k := range kinds {
		want = append(want, string(k))
	}
	for f := range reflect.TypeFor[Fault]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "kind" { // it is the head of the column
			want = append(want, name)
		}
	}
	for _, name := range want {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("docs/demo.md does not name %s", name)
		}
	}
}
