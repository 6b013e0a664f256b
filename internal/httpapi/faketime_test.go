package httpapi_test

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
)

// bubbles are the tests on fake time that run.
var bubbles struct {
	mu         sync.Mutex
	n          int
	processors int // that there are without them
}

// fakeTime is synctest.Test on one processor. Where timers of one bubble run on two,
// the race detector breaks its own state, and the process ends with it
// (golang/go#78156, open as of Go 1.26).
func fakeTime(t *testing.T, test func(*testing.T)) {
	t.Helper()
	bubbles.mu.Lock()
	if bubbles.n++; bubbles.n == 1 {
		bubbles.processors = runtime.GOMAXPROCS(1)
	}
	bubbles.mu.Unlock()
	defer func() {
		bubbles.mu.Lock()
		defer bubbles.mu.Unlock()
		if bubbles.n--; bubbles.n == 0 {
			runtime.GOMAXPROCS(bubbles.processors)
		}
	}()
	synctest.Test(t, test)
}
