package access_test

import (
	"errors"
	"strings"
	"testing"

	"headway/internal/access"
	"headway/internal/strict"
)

// The rates of addresses and keys are those of the API. Of the data plane they bound
// requests without a good credential alone.
func TestRatesDoNotBoundTheDataPlane(t *testing.T) {
	d := open(t, access.Options{})
	d.load(access.Options{PerAddress: 1, Failures: 1000}, 1)
	secret := d.key(access.Request{Name: "first", Role: "admin"})
	for range 100 {
		if _, err := d.guard.AuthenticateClient(ask(far, "Authorization", "Bearer "+secret)); err != nil {
			t.Fatal(err)
		}
	}
	unknown := 0
	for range 100 {
		_, err := d.guard.AuthenticateClient(ask(far, "Authorization", "Bearer hw_x_y"))
		if _, limited := errors.AsType[*access.LimitedError](err); !limited {
			unknown++
		}
	}
	if unknown != 5 {
		t.Errorf("%d requests with a wrong key were not limited, want the 5 of the address", unknown)
	}
	if _, err := d.guard.AuthenticateClient(ask(far, "X-Api-Key", secret)); err != nil {
		t.Errorf("a good key of that address: %v", err)
	}
}

func TestAKeyKeepsItsLimits(t *testing.T) {
	d := open(t, access.Options{})
	d.key(access.Request{Name: "first", Role: "admin"})
	limits := access.Limits{RequestsPerMinute: 60, TokensPerMinute: -1, Weight: 5}
	secret := d.key(access.Request{Name: "limited", Role: "client", Limits: limits})
	for range 2 { // as it was made, and as it is read from the store
		p, err := d.guard.Authenticate(ask(far, "Authorization", "Bearer "+secret))
		if err != nil || p.Limits != limits {
			t.Errorf("%+v, %v", p, err)
		}
		d.load(access.Options{}, 0)
	}
	id := strings.Split(secret, "_")[1]
	changed, err := d.keys.SetLimits(t.Context(), id, func(l *access.Limits) { l.TokensPerMinute = 100 })
	limits.TokensPerMinute = 100
	if p, _ := d.guard.Authenticate(ask(far, "Authorization", "Bearer "+secret)); err != nil || changed.Limits != limits || p == nil || p.Limits != limits {
		t.Errorf("changed to %+v, %v; the principal is %+v", changed.Limits, err, p)
	}
	if last := d.trail[len(d.trail)-1]; last != "key.patch success" {
		t.Errorf("the trail ends with %q", last)
	}
	if _, err := d.keys.SetLimits(t.Context(), "absent", func(*access.Limits) {}); !errors.Is(err, access.ErrKeyNotFound) {
		t.Errorf("an unknown key: %v", err)
	}
	if _, err := d.keys.SetLimits(t.Context(), id, func(l *access.Limits) { l.Weight = 1001 }); err == nil {
		t.Error("a weight of 1001 is taken")
	}
	_, _, err = d.keys.Create(t.Context(), &access.Principal{Type: "local", Role: access.RoleAdmin}, access.Request{
		Name: "wrong", Role: "client", Limits: access.Limits{RequestsPerMinute: -2, TokensPerMinute: access.MaxPerMinute + 1, Weight: -1},
	})
	invalid, _ := errors.AsType[*strict.InvalidError](err)
	if invalid == nil || len(invalid.Faults) != 3 {
		t.Fatalf("limits out of bounds: %v", err)
	}
	for i, want := range []string{"/requests_per_minute", "/tokens_per_minute", "/weight"} {
		if f := invalid.Faults[i]; f.Pointer != want || !strings.HasPrefix(f.Reason, "want 1 to ") {
			t.Errorf("fault %d is %v", i, f)
		}
	}
}
