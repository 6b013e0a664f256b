package proxy

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"testing"

	"headway/internal/routing"
	"headway/internal/upstream"
)

// An outcome has one spelling for a caller that left, in its result and in its fault.
func TestACallerThatLeftIsSpeltInOneWay(t *testing.T) {
	if got, want := string(upstream.Canceled), routing.ResultCancelled.String(); got != want {
		t.Errorf("the fault is %q, the result %q", got, want)
	}
}

// The manual lists the code of each failure of a head, with its status and what the
// message says.
func TestTheManualListsTheFailuresOfHeads(t *testing.T) {
	manual, err := os.ReadFile("../../docs/data-plane.md")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"| 502 `head_unauthorized` | it did not accept the service's credential for it |",
		"| 502 `head_gone` | it broke off its work |",
		"| 502 `head_redirected` | it answered with a redirect, which is not followed |",
	}
	for _, k := range upstream.Kinds() {
		if k != upstream.Canceled { // that caller has left
			e := headError(k)
			want = append(want, fmt.Sprintf("| %d `%s` | %s |", e.Status, e.Code, explain(k)))
		}
	}
	got := regexp.MustCompile("(?m)^\\| [0-9]+ `head_.*$").FindAllString(string(manual), -1)
	for _, row := range want {
		if !slices.Contains(got, row) {
			t.Errorf("a row is missing: %s", row)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d rows, want %d: %q", len(got), len(want), got)
	}
}
