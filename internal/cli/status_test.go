package cli

import (
	"strings"
	"testing"

	"headway/api"
)

// summaryOf is what status says of heads.
func summaryOf(t *testing.T, heads ...api.Head) string {
	t.Helper()
	s := newSummary()
	for i := range heads {
		s.add(&heads[i])
	}
	var out strings.Builder
	if err := s.print(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func listOf(t *testing.T, heads ...api.Head) string {
	t.Helper()
	var list strings.Builder
	if err := headTable(heads).Write(&list, false); err != nil {
		t.Fatal(err)
	}
	return list.String()
}

// What the policy's pools allow of a model stands beside what it has in flight.
func TestStatusShowsTheBoundOfAModel(t *testing.T) {
	s := newSummary()
	s.add(&api.Head{ID: "a", Status: "active", Routable: true, ModelTypes: []string{"bound", "free"}, InFlight: 2})
	if err := s.bound([]byte(`{"default_strategy":"random","pools":{"bound":{"max_in_flight":3},"none":{"max_in_flight":5}}}`)); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := s.print(&out); err != nil {
		t.Fatal(err)
	}
	has(t, out.String(), "model bound  1      1              2 of at most 3", "model free   1      1              2 ")
}

// How many requests wait stands beside a model, unless the metrics cannot be read, and
// the places of a head beside what it has in flight.
func TestStatusShowsWhatWaits(t *testing.T) {
	s := newSummary()
	h := api.Head{ID: "a", Status: "active", Routable: true, ModelTypes: []string{"busy", "free", "new"}, InFlight: 2, Region: "us", Capacity: &api.Capacity{MaxInFlight: 3}}
	s.add(&h)
	s.wait(map[string]float64{`headway_admission_waiting_by_model{model_type="busy"}`: 7, `headway_admission_waiting_by_model{model_type="free"}`: 0})
	var out strings.Builder
	if err := s.print(&out); err != nil {
		t.Fatal(err)
	}
	has(t, out.String(), "IN FLIGHT  WAITING\n", "model busy  1      1              2          7\n", "model free  1      1              2          0\n",
		"model new   1      1              2          -\n", "region us   1      1              2          -\n")
	has(t, listOf(t, h), "  2 of 3  ")
}

// What a strategy refused stands beside what it placed.
func TestStatusShowsWhatAStrategyRefused(t *testing.T) {
	s := newSummary()
	s.Strategy = []api.Strategy{{Name: "slo", Results: api.StrategyResults{Decisions: 4, OK: 3, Expired: 1, Refused: 17}}}
	var out strings.Builder
	if err := s.print(&out); err != nil {
		t.Fatal(err)
	}
	has(t, out.String(), "EXPIRED  REFUSED  MEAN TTFT\n", "slo       4          3   0       0          1        17       -\n")
}

// Heads that only the guard holds count as they do in the service's readiness
// and in active_heads.
func TestStatusNamesHeldHeads(t *testing.T) {
	held := api.Head{ID: "a", Status: "active", Routable: true, Health: api.Health{State: "held"}}
	fresh := api.Head{ID: "b", Status: "active", Routable: true, Health: api.Health{State: "fresh"}}
	has(t, summaryOf(t, held, fresh), "heads    2, of which 1 takes requests (2 active)", "of the others 1 is silent and gets requests only because of the mass-expiry guard")
}

// Why heads take no requests is in the default views: by head in the list, by
// number in the status.
func TestStatusNamesHeadsOutOfRotation(t *testing.T) {
	head := func(id, admin, health string) api.Head {
		return api.Head{ID: id, Status: "active", AdminState: admin, Routable: admin == "enabled" && health == "fresh", Health: api.Health{State: health}}
	}
	heads := []api.Head{
		head("a", "enabled", "fresh"), head("b", "enabled", "ejected"), head("c", "enabled", "stale"),
		head("d", "draining", "fresh"), head("e", "maintenance", "stale"),
	}
	has(t, listOf(t, heads...), "HEALTH   ROUTABLE", "ejected  no", "stale    no")
	has(t, summaryOf(t, heads...), "out of rotation: 1 ejected, 1 silent, 2 drained\n")
}

// A head whose requests fail, and which is not ejected for being the last, is no
// head like the others.
func TestStatusNamesFailingHeads(t *testing.T) {
	failing := api.Head{ID: "a", Status: "active", AdminState: "enabled", Routable: true, Health: api.Health{State: "failing", Reason: "errors in a row: 5"}}
	fresh := api.Head{ID: "b", Status: "active", AdminState: "enabled", Routable: true, Health: api.Health{State: "fresh"}}
	has(t, listOf(t, failing, fresh), "failing  yes", "fresh    yes")
	has(t, summaryOf(t, failing, failing, fresh), "of which 3 take requests (3 active)", "2 of them fail their requests and are not ejected, since too few others are left\n")
}

// What the status says of heads adds up.
func TestStatusNamesWhyHeadsTakeNoRequests(t *testing.T) {
	head := func(status, health string, routable bool) api.Head {
		return api.Head{ID: status + health, Status: status, AdminState: "enabled", Routable: routable, Health: api.Health{State: health}, Region: "us"}
	}
	paused := head("active", "paused", true)
	has(t, summaryOf(t, head("active", "fresh", true), paused, paused, paused),
		"heads    4, of which 1 takes requests (4 active); 0 in flight\n         of the others 3 asked for a pause and get nothing of the data plane until it is over\npolicy",
		"region us  4      1  ")
	has(t, summaryOf(t, head("draining", "fresh", false), head("offline", "fresh", false), head("offline", "pending", false), head("unknown", "pending", false), head("active", "pending", false)),
		"heads    5, of which 0 take requests (1 active, 1 draining, 2 offline, 1 unknown); 0 in flight\n         not ready: 1 draining, 2 offline, 2 pending\npolicy")
	has(t, summaryOf(t), "heads    0, of which 0 take requests; 0 in flight\n         none is registered\npolicy")
}
