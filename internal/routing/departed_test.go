package routing_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/routing"
	"headway/internal/strategy"
)

// A model type whose last head left comes back after a restart: it is known for ten
// minutes, and then no more. One that no head ever served is not.
func TestAModelThatLeftIsKnownForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.head("a", "us", nil)
		time.Sleep(time.Second)
		check(t, w.fleet.Deregister(t.Context(), "a"))
		for _, after := range []time.Duration{0, time.Second, 9 * time.Minute} {
			time.Sleep(after)
			if f := w.refused(strategy.Request{}); f != routing.FailNoHeads {
				t.Errorf("%s later: %s", after, f)
			}
		}
		if f := w.refused(strategy.Request{ModelType: "other"}); f != routing.FailUnknownModel {
			t.Errorf("a model that never was: %s", f)
		}
		w.head("a", "us", nil)
		w.decide(strategy.Request{})
		time.Sleep(time.Second)
		check(t, w.fleet.Deregister(t.Context(), "a"))
		time.Sleep(9 * time.Minute)
		if f := w.refused(strategy.Request{}); f != routing.FailNoHeads {
			t.Errorf("after it left again: %s", f)
		}
		time.Sleep(2 * time.Minute)
		if f := w.refused(strategy.Request{}); f != routing.FailUnknownModel {
			t.Errorf("long after it left: %s", f)
		}
	})
}

// lines is a log that is read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// A pause is logged once when it begins and once when it is over, though it is asked
// for again meanwhile.
func TestAPauseIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lines
		w := newWorld(t, func(o *routing.Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
		w.head("a", "us", nil)
		w.head("b", "us", nil)
		for range 5 {
			w.live("a").StayAway(time.Now().Add(4 * time.Second))
			time.Sleep(6 * time.Second)
		}
		synctest.Wait()
		if n := strings.Count(log.String(), "asked for a pause"); n != 1 {
			t.Errorf("%d lines: %s", n, log.String())
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if n := strings.Count(log.String(), "is over"); n != 1 || strings.Count(log.String(), "\n") != 2 || strings.Contains(log.String(), "head=b") {
			t.Errorf("at the end: %s", log.String())
		}
	})
}
