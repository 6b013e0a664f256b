package registry_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/fleet"
	"headway/internal/memstore"
	"headway/internal/registry"
)

// gauges are the values of a metric by the value of its one label.
func gauges(t testing.TB, reg *prometheus.Registry, name string) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	must(t, err)
	all := map[string]float64{}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			all[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
		}
	}
	return all
}

// headOf is a head of one model type in one region.
func headOf(id, model, region string) fleet.Spec {
	s := spec(id)
	s.ModelTypes, s.Region = []string{model}, region
	return s
}

// A fleet of 50 model types in 20 regions is shown in full, and nothing
// overflows though there are more heads than have series of their own.
func TestEveryModelAndRegionHasItsSeries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // its clock stands: no lease ends however long this takes
		w := start(t, memstore.New(), nil)
		for i := range 1000 {
			w.register(headOf(fmt.Sprintf("h%d", i), fmt.Sprintf("model-%d", i/20), fmt.Sprintf("region-%d", i%20)), active())
		}
		for name, want := range map[string]struct {
			series int
			value  float64
		}{
			"headway_model_registered_heads": {50, 20}, "headway_model_routable_heads": {50, 20},
			"headway_region_registered_heads": {20, 50}, "headway_region_routable_heads": {20, 50},
		} {
			got := gauges(t, w.metrics, name)
			if len(got) != want.series {
				t.Errorf("%s has %d series; want %d", name, len(got), want.series)
			}
			for label, value := range got {
				if value != want.value {
					t.Errorf("%s of %s is %v; want %v", name, label, value, want.value)
				}
			}
		}
		if n := series(t, w.metrics, "headway_heads"); n != 1000 {
			t.Errorf("headway_heads has %d series; want 1,000", n)
		}
		overflow := gauges(t, w.metrics, "headway_label_overflow")
		if len(overflow) != 3 {
			t.Errorf("overflow is shown for %v", overflow)
		}
		for metric, n := range overflow {
			if n != 0 {
				t.Errorf("%v values of %s are said to be summed as other", n, metric)
			}
		}
	})
}

// Who has a series keeps it: what comes later is summed under any name, and
// gets a series once there is room.
func TestANameThatHasASeriesKeepsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, memstore.New(), func(o *registry.Options) { o.MaxModelTypes = 2000 })
		for i := range 1000 {
			name := fmt.Sprintf("n-%d", i)
			w.register(headOf(name, name, name), active())
		}
		look := func(what string) {
			t.Helper()
			for _, by := range []string{"model", "region"} {
				if got := gauges(t, w.metrics, "headway_"+by+"_routable_heads"); got["n-17"] != 1 {
					t.Errorf("%s: n-17 has %v routable heads by %s", what, got["n-17"], by)
				}
			}
		}
		look("at first")
		w.register(headOf("aaa", "aaa", "aaa"), active())
		look("after another came")
		for _, by := range []string{"model", "region"} {
			got := gauges(t, w.metrics, "headway_"+by+"_routable_heads")
			if _, has := got["aaa"]; has || got["other"] != 1 || len(got) != 1001 {
				t.Errorf("by %s there are %d series, %v heads of others, and aaa has one: %v", by, len(got), got["other"], has)
			}
			if n := gauges(t, w.metrics, "headway_label_overflow")["headway_"+by+"_routable_heads"]; n != 1 {
				t.Errorf("%v values of headway_%s_routable_heads are said to be summed", n, by)
			}
		}
		must(t, w.Deregister(t.Context(), "n-17"))
		registered := gauges(t, w.metrics, "headway_model_registered_heads")
		if _, has := registered["n-17"]; has {
			t.Error("n-17 has a series after its last head was deregistered")
		}
		if registered["aaa"] != 1 {
			t.Error("aaa has no series though there is room")
		}
	})
}

// Pairs beyond 1,000 are summed, with a pair that is called as their sum is, by
// the state of their heads.
func TestPairsBeyondTheRoomAreSummed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, memstore.New(), func(o *registry.Options) { o.MaxModelTypes = 2000 })
		w.register(headOf("own", "other", "other"), active())
		if got := gauges(t, w.metrics, "headway_heads"); len(got) != 1 || got["other"] != 1 {
			t.Errorf("a fleet of one pair is %v", got)
		}
		for i := range 1002 {
			name := fmt.Sprintf("n-%04d", i)
			w.register(headOf(name, name, name), active())
		}
		got := gauges(t, w.metrics, "headway_heads")
		if len(got) != 1000 || got["other"] != 4 || got["n-0998"] != 1 {
			t.Errorf("there are %d pairs, %v heads of others, and %v of n-0998", len(got), got["other"], got["n-0998"])
		}
		draining := fleet.AdminDraining
		_, err := w.Patch(t.Context(), "n-1001", registry.Patch{State: &draining})
		must(t, err)
		if n := series(t, w.metrics, "headway_heads"); n != 1001 {
			t.Errorf("with a head of others that drains there are %d series", n)
		}
		if got := gauges(t, w.metrics, "headway_heads"); got["other"] != 1 { // the last of the name: draining
			t.Errorf("%v heads of others drain", got["other"])
		}
	})
}

// A head of several model types counts in each of them and once in its region;
// one in maintenance is registered and takes no requests.
func TestRoutableHeadsAreCounted(t *testing.T) {
	w := start(t, memstore.New(), lasting)
	two := headOf("two", "m", "eu")
	two.ModelTypes = []string{"m", "n"}
	w.register(two, active())
	w.register(headOf("drained", "m", "eu"), active())
	maintenance := fleet.AdminMaintenance
	_, err := w.Patch(t.Context(), "drained", registry.Patch{State: &maintenance})
	must(t, err)
	for name, want := range map[string]map[string]float64{
		"headway_model_registered_heads":  {"m": 2, "n": 1},
		"headway_model_routable_heads":    {"m": 1, "n": 1},
		"headway_region_registered_heads": {"eu": 2},
		"headway_region_routable_heads":   {"eu": 1},
	} {
		if got := gauges(t, w.metrics, name); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v; want %v", name, got, want)
		}
	}
}
