package cli

import (
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// Signals that come together are one, as when a supervisor signals a process and its
// group.
func TestSignalsThatComeTogetherAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signals, second := make(chan os.Signal, 2), make(chan time.Time, 1)
		begin := time.Now()
		var logged atomic.Int64
		go func() {
			if awaitSecond(signals, func() { logged.Add(1) }) {
				second <- time.Now()
			}
		}()
		time.Sleep(Together - time.Millisecond)
		signals <- syscall.SIGTERM
		signals <- syscall.SIGTERM
		synctest.Wait()
		if n := logged.Load(); n != 1 {
			t.Errorf("two that came together with the first are logged %d times", n)
		}
		if len(second) != 0 {
			t.Error("two at once count as two")
		}
		time.Sleep(time.Millisecond)
		signals <- os.Interrupt
		if took := (<-second).Sub(begin); took != Together {
			t.Errorf("a second one counts after %s", took)
		}
	})
}

func TestAServiceThatEndsAwaitsNoSecondSignal(t *testing.T) {
	signals := make(chan os.Signal)
	close(signals)
	if awaitSecond(signals, func() {}) {
		t.Error("a signal that never came counts")
	}
}
