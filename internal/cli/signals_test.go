package cli

import (
	"os"
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
		go func() {
			if awaitSecond(signals) {
				second <- time.Now()
			}
		}()
		signals <- syscall.SIGTERM
		time.Sleep(Together - time.Millisecond)
		signals <- syscall.SIGTERM
		synctest.Wait()
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
	if awaitSecond(signals) {
		t.Error("a signal that never came counts")
	}
}
