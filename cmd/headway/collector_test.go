package main

import (
	"fmt"
	"testing"
)

// The process has its collector wait, as docs/sizing.md says, unless GOGC is set.
func TestAServiceThatHoldsLittleCollectsLate(t *testing.T) {
	t.Setenv("GOGC", "")
	p := serve(t, t.TempDir())
	eventually(p, patience, "a later collection", func() error {
		if percent := p.metric("go_gc_gogc_percent"); percent <= 100 {
			return fmt.Errorf("the percentage is %v", percent)
		}
		return nil
	})
	p.stop()
}
