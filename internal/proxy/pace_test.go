package proxy

import (
	"context"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestGarbageBesideLargeBodiesIsAPartOfAllElse(t *testing.T) {
	for _, c := range []struct {
		usual       int
		bodies, all int64 // MiB
		want        int
	}{
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

func TestAHeapIsCollectedAfter48MiBOfGarbageOr80(t *testing.T) {
	for _, c := range []struct {
		usual int
		live  int64 // MiB
		want  int
	}{
		{100, 0, 1200},
		{100, 4, 1200},
		{100, 8, 600},
		{100, 24, 200},
		{100, 48, 100},
		{100, 80, 100},
		{100, 100, 80},
		{100, 160, 50},
		{100, 400, 50},
		{300, 24, 300},
		{300, 40, 200},
		{40, 100, 48},
		{40, 400, 20},
	} {
		if got := percentOf(c.usual, c.live<<20); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

func TestThePaceOfTheCollectorIsGivenBack(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(120))
	p := newPace()
	p.given = true
	for range 3 {
		p.hold(40 << 20)
	}
	if got := percentSet(); got >= 60 {
		t.Errorf("%d %% beside 120 MiB", got)
	}
	for range 3 {
		p.hold(-40 << 20)
	}
	if got := percentSet(); got != 120 {
		t.Errorf("%d %% afterwards", got)
	}
	debug.SetGCPercent(-1) // off by GOGC
	p = newPace()
	p.hold(1 << 30)
	if got := percentSet(); got != -1 {
		t.Errorf("it was off, and is %d %%", got)
	}
}

// The heap grows from a few MiB to 120, and back.
func TestThePaceFollowsWhatLives(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	p := newPace()
	p.given = false
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { p.follow(ctx); close(ended) }()
	defer func() {
		stop()
		if <-ended; percentSet() != 100 {
			t.Errorf("%d %% afterwards", percentSet())
		}
	}()
	var much []byte
	for _, c := range []struct {
		what     string
		of       int
		follows  func(percent int) bool
		followed string
	}{
		{"little lives", 1, func(percent int) bool { return percent > 100 }, "above 100"},
		{"120 MiB live", 120 << 20, func(percent int) bool { return percent < 80 && percent >= 50 }, "50 to 80"},
		{"little lives again", 1, func(percent int) bool { return percent > 100 }, "above 100"},
	} {
		much = make([]byte, c.of)
		for until := time.Now().Add(time.Minute); !c.follows(percentSet()); {
			if time.Now().After(until) {
				t.Fatalf("%s: %d %%, want %s", c.what, percentSet(), c.followed)
			}
			runtime.GC()
			runtime.Gosched()
		}
		runtime.KeepAlive(much)
	}
}
