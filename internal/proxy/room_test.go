package proxy

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// One caller gets its share of the room for large bodies and no more, and leaves
// nothing behind.
func TestACallerHasItsShareOfTheRoom(t *testing.T) {
	r := newRoom(&Limits{MaxBody: 4, MaxBodies: 32})
	var places [4]place
	for i := range places {
		if got, want := r.enter(&places[i], 4, "a"), i < 3; got != want {
			t.Errorf("body %d of a caller: %v", i, got)
		}
	}
	var other, open place
	if !r.enter(&other, 4, "b") || !r.enter(&open, 4, "") || !r.enter(&place{}, 4, "c") {
		t.Error("others have no room")
	}
	if r.more(&other, 8) || !r.more(&other, 0) {
		t.Error("more is taken than there is")
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if r.await(ctx, &places[3], 4, "a") {
			t.Error("a caller that waits gets more than its share")
		}
	})
	for i := range places {
		r.leave(&places[i])
	}
	r.leave(&other)
	r.leave(&open)
	if len(r.shares) != 1 || r.shares["c"] == nil {
		t.Errorf("left behind: %v", r.shares)
	}
	if !r.rest.TryAcquire(20) || r.rest.TryAcquire(1) {
		t.Error("not all room is given back")
	}
}

// A body of unknown length takes what it needs, and does not wait for more while it
// holds some.
func TestABodyOfUnknownLengthTakesRoomAsItComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := Limits{MaxBody: 16 << 20, MaxBodies: 64 << 20}
		limits.complete()
		b := newBodies(&limits, prometheus.NewRegistry())
		in := func() *incoming {
			r := httptest.NewRequestWithContext(t.Context(), "POST", "/", strings.NewReader(""))
			r.ContentLength = -1
			return &incoming{bodies: b, body: &body{}, r: r}
		}
		var all []*incoming
		for range 24 {
			x := in()
			for cap(x.b) < 2<<20 {
				if err := x.grow(); err != nil {
					t.Fatalf("after %d: %v", len(all), err)
				}
				x.b = x.b[:cap(x.b)]
			}
			all = append(all, x)
		}
		began := time.Now()
		if err := all[0].grow(); err != errNoRoom || time.Since(began) != 0 { //nolint:errorlint // it comes as it is
			t.Errorf("%v after %s", err, time.Since(began))
		}
		b.free(all[23].body)
		if err := all[0].grow(); err != nil {
			t.Error(err)
		}
		for _, x := range all {
			b.free(x.body)
		}
		if !b.rest.TryAcquire(48<<20) || !b.small.TryAcquire(16<<20) {
			t.Error("not all room is given back")
		}
	})
}
