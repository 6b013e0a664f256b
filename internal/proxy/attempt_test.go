package proxy

import (
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
