package engine

import (
	"math"
	"testing"
	"time"
)

// Steps that take half of the time give half of a utilization, soon after the
// start as well as later; without steps the rates fade with the window.
func TestRatesFollowTheWork(t *testing.T) {
	m := meter{window: 2}
	if tokens, busy := m.rates(0); tokens != 0 || busy != 0 {
		t.Errorf("at the start: %v tokens a second, %v busy", tokens, busy)
	}
	const every = 100 * time.Millisecond
	for at := every; at <= time.Minute; at += every {
		m.add(at, every/2, 10)
		if tokens, busy := m.rates(at); !(math.Abs(tokens/100-1) <= 0.06) || !(math.Abs(busy/0.5-1) <= 0.06) {
			t.Fatalf("after %v: %v tokens a second, %v busy; want 100 and 0.5", at, tokens, busy)
		}
	}
	if _, busy := m.rates(time.Minute + 2*time.Second); !(math.Abs(busy/(0.5/math.E)-1) <= 0.06) {
		t.Errorf("%v busy after a window without work, want 0.5/e", busy)
	}
}
