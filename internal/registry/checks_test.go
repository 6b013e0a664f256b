package registry_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"headway/internal/fleet"
	"headway/internal/memstore"
	"headway/internal/registry"
)

func TestAHeadThatFailsItsChecksIsOutUntilItIsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startEjecting(t, nil, "a", "b")
		endpoint := spec("a").Endpoint
		if !w.Checked("a", endpoint, "") || !w.Checked("a", endpoint, "GET /health: status 503") {
			t.Fatal("a is not known")
		}
		if got := w.routable(); !slices.Equal(got, []string{"b"}) {
			t.Fatalf("routable are %v", got)
		}
		time.Sleep(10 * time.Minute) // no trial is sent there, however long it lasts
		w.Checked("a", endpoint, "GET /health: status 503")
		v, err := w.Head("a")
		must(t, err)
		if v.Head.Trial || !v.Ejected || !strings.Contains(v.HealthReason, "status 503") || !v.HealthUntil.IsZero() {
			t.Errorf("a is %+v, %q until %v", v.Head, v.HealthReason, v.HealthUntil)
		}
		// It comes back counted as loaded as the others are.
		for range 10 {
			published(w, "b").Live.TryAcquire(0, fleet.Work{})
		}
		w.Checked("a", endpoint, "")
		if got := w.routable(); !slices.Equal(got, []string{"a", "b"}) {
			t.Fatalf("once well, routable are %v", got)
		}
		if slow := published(w, "a").Live.SlowStart(time.Now()); slow < 9 {
			t.Errorf("it starts with %v requests more, want about 10", slow)
		}
		if v, err = w.Head("a"); err != nil || !strings.Contains(v.HealthReason, "slowly: counts as having 10.0 requests") || !v.HealthUntil.Equal(time.Now().Add(30*time.Second)) {
			t.Errorf("it is shown as %q until %v, %v", v.HealthReason, v.HealthUntil, err)
		}
		time.Sleep(30 * time.Second)
		if slow := published(w, "a").Live.SlowStart(time.Now()); slow != 0 {
			t.Errorf("after its slow start %v requests more count", slow)
		}
	})
}

func TestChecksAndFailedRequestsAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startEjecting(t, nil, "a", "b")
		endpoint := spec("a").Endpoint
		w.end("a", fleet.EndedBadly, 5)
		w.Checked("a", endpoint, "") // a check that finds it well proves nothing of requests
		if got := w.routable(); !slices.Equal(got, []string{"b"}) {
			t.Fatalf("ejected for requests, and well: routable are %v", got)
		}
		w.Checked("a", endpoint, "the connection is refused")
		w.Checked("a", endpoint, "")
		if got := w.routable(); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("it was down and is up: routable are %v", got)
		}
	})
}

func TestChecksKeepHalfOfAModelType(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startEjecting(t, nil, "a", "b")
		w.Checked("a", spec("a").Endpoint, "down")
		w.Checked("b", spec("b").Endpoint, "down")
		v, err := w.Head("b")
		must(t, err)
		if got := w.routable(); !slices.Equal(got, []string{"b"}) || v.Head.Health != fleet.HealthFailing || !strings.HasPrefix(v.HealthReason, "down;") {
			t.Errorf("routable are %v, b is %s: %s", got, v.Head.Health, v.HealthReason)
		}
		time.Sleep(time.Minute) // it stays at fault as long as its checks fail
		if v, err = w.Head("b"); err != nil || v.Head.Health != fleet.HealthFailing {
			t.Errorf("b is %s, %v", v.Head.Health, err)
		}
		w.Checked("b", spec("b").Endpoint, "")
		time.Sleep(10 * time.Second)
		if v, err = w.Head("b"); err != nil || v.Head.Health != fleet.HealthFresh {
			t.Errorf("b is %s, %v", v.Head.Health, err)
		}
	})
}

func TestOnlyHeadsAtTheirEndpointAreChecked(t *testing.T) {
	w := start(t, memstore.New(), func(o *registry.Options) { o.Eject.Enabled = true })
	w.register(spec("a"), active())
	if w.Checked("a", "http://10.9.9.9:1", "down") || w.Checked("gone", spec("a").Endpoint, "down") {
		t.Error("a head that is elsewhere, or not there, is known")
	}
	if got := w.routable(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("routable are %v", got)
	}
}

func TestAHeadThatIsTheServiceItselfIsRefused(t *testing.T) {
	w := start(t, memstore.New(), func(o *registry.Options) {
		o.Itself = func(_ context.Context, endpoint string) bool { return endpoint == spec("self").Endpoint }
	})
	_, err := w.Register(t.Context(), spec("self"), nil)
	if err == nil || !strings.Contains(err.Error(), "/endpoint") || !strings.Contains(err.Error(), "this service itself") {
		t.Errorf("registered: %v", err)
	}
}
