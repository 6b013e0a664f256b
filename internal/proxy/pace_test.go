package proxy

import (
	"runtime/debug"
	"testing"
)

func TestGarbageBesideLargeBodiesIsAPartOfAllElse(t *testing.T) {
	for _, c := range []struct {
		usual       int
		bodies, all int64 // MiB
		want        int
	}{
		{100, 0, 100, 100},
		{100, 63, 100, 100},
		{100, 400, 500, 10},
		{200, 400, 500, 20},
		{100, 1000, 3000, 33},
		{100, 400, 400, leastPace}, // the objects were counted before the bodies came
		{100, 8000, 8100, leastPace},
	} {
		if got := percentBeside(c.usual, c.bodies<<20, c.all<<20); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

func TestThePaceOfTheCollectorIsGivenBack(t *testing.T) {
	percent := func() int {
		now := debug.SetGCPercent(100)
		debug.SetGCPercent(now)
		return now
	}
	defer debug.SetGCPercent(debug.SetGCPercent(120))
	p := newPace()
	for range 3 {
		p.hold(40 << 20)
	}
	if got := percent(); got >= 60 {
		t.Errorf("%d %% beside 120 MiB", got)
	}
	for range 3 {
		p.hold(-40 << 20)
	}
	if got := percent(); got != 120 {
		t.Errorf("%d %% afterwards", got)
	}
	debug.SetGCPercent(-1) // off by GOGC
	p = newPace()
	p.hold(1 << 30)
	if got := percent(); got != -1 {
		t.Errorf("it was off, and is %d %%", got)
	}
}
