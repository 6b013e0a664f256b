package upstream

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// A call that waits for a connection says so as often as it asks, and ends where
// that fails.
func TestADialIsNotSilent(t *testing.T) {
	for _, leaves := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := newHeads(t, func(o *Options) {
				o.Limits.Connect = 10 * time.Second
				o.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				}
			})
			start := time.Now()
			said := 0
			call := post(endpoint)
			call.Silence = func() (time.Time, error) {
				if time.Since(start) >= 3*time.Second {
					if said++; leaves && said == 2 {
						return time.Time{}, errors.New("the caller left")
					}
					return time.Now().Add(3 * time.Second), nil
				}
				return start.Add(3 * time.Second), nil
			}
			_, _, err := do(t.Context(), h, call)
			want, wantSaid, took := ConnectTimeout, 3, 10*time.Second
			if leaves {
				want, wantSaid, took = Canceled, 2, 6*time.Second
			}
			if kindOf(err) != want || said != wantSaid || time.Since(start) != took {
				t.Errorf("%v after %s, said %d times", err, time.Since(start), said)
			}
		})
	}
}
