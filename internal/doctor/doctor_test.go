package doctor

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"headway/api"
)

func headsFinding(heads ...api.Head) Finding {
	var f findings
	f.heads(heads)
	return f[0]
}

// Heads that only the guard holds count as they do in the service's readiness
// and in active_heads.
func TestHeldHeadsAreNamed(t *testing.T) {
	held := api.Head{ID: "a", Status: "active", Routable: true, Health: api.Health{State: "held"}}
	f := headsFinding(held, held)
	if f.State != warning || !strings.HasPrefix(f.Detail, "2 heads, 0 take requests; 2 are silent and get requests only because") || f.Fix == "" {
		t.Errorf("%+v", f)
	}
}

// A record takes a moment to Redis; that alone is no trouble.
func TestOnlyOldRecordsAreBehind(t *testing.T) {
	for late, want := range map[float64]string{0.4: fine, 11: warning} {
		var found findings
		found.metrics(map[string]float64{`headway_audit_ship_lag_records{sink="redis"}`: 1, `headway_audit_ship_lag_seconds{sink="redis"}`: late}, time.Now())
		for _, f := range found {
			if f.Check == "audit on Redis" && f.State != want {
				t.Errorf("%v s: %+v", late, f)
			}
		}
	}
}

func TestTheDoctorFindsAnAliasOverAServedModelType(t *testing.T) {
	heads := []api.Head{{ID: "a", ModelTypes: []string{"m"}}, {ID: "b", ModelTypes: []string{"m", "n"}}}
	var found findings
	found.aliases(heads, []byte(`{"default_strategy":"random","aliases":{"m":"other","free":"n"}}`))
	if len(found) != 1 || found[0].State != warning || found[0].Check != "policy /aliases/m" || found[0].Fix == "" {
		t.Errorf("found %+v", found)
	}
	found = nil
	if found.aliases(heads, []byte(`{"default_strategy":"random","aliases":{"free":"n"}}`)); len(found) != 0 {
		t.Errorf("found %+v", found)
	}
}

// A server that is registered twice is named once, and only while both get requests.
func TestTheDoctorFindsAServerThatIsRegisteredTwice(t *testing.T) {
	head := func(id, endpoint string, routable bool, models ...string) api.Head {
		return api.Head{ID: id, Endpoint: endpoint, Routable: routable, ModelTypes: models}
	}
	var found findings
	found.twins([]api.Head{
		head("a", "http://one:8000", true, "m", "n"), head("b", "http://one:8000", true, "n", "m"),
		head("c", "http://two:8000", true, "m"), head("d", "http://two:8000", true, "other"),
		head("e", "http://two:8000", false, "m"),
	})
	want := "a and b serve n at http://one:8000, so that it gets the requests of both"
	if len(found) != 1 || found[0].State != warning || found[0].Check != "heads at one endpoint" || found[0].Detail != want || found[0].Fix == "" {
		t.Errorf("found %+v", found)
	}
	found = nil
	var many []api.Head // more than a screen could name
	for i := range 1000 {
		many = append(many, head(fmt.Sprint("h", i), fmt.Sprint("http://", i/2), true, "m"))
	}
	if found.twins(many); len(found) != 1 || !strings.HasSuffix(found[0].Detail, "of both; the same is so at 499 endpoints more") {
		t.Errorf("found %+v", found)
	}
}

// Why heads take no requests is said by number.
func TestHeadsOutOfRotationAreNamed(t *testing.T) {
	head := func(id, admin, health string) api.Head {
		return api.Head{ID: id, Status: "active", AdminState: admin, Routable: admin == "enabled" && health == "fresh", Health: api.Health{State: health}}
	}
	heads := []api.Head{
		head("a", "enabled", "fresh"), head("b", "enabled", "ejected"), head("c", "enabled", "stale"),
		head("d", "draining", "fresh"), head("e", "maintenance", "stale"),
	}
	f := headsFinding(heads...)
	if f.State != warning || f.Detail != "5 heads, 1 takes requests; out of rotation: 1 ejected, 1 silent, 2 drained" || f.Fix == "" {
		t.Errorf("%+v", f)
	}
	if f := headsFinding(heads[0], heads[3]); f.State != fine {
		t.Errorf("a head that an operator drained is no trouble: %+v", f)
	}
}

// A head whose requests fail, and which is not ejected for being the last, is no
// head like the others.
func TestFailingHeadsAreNamed(t *testing.T) {
	failing := api.Head{ID: "a", Status: "active", AdminState: "enabled", Routable: true, Health: api.Health{State: "failing", Reason: "errors in a row: 5"}}
	fresh := api.Head{ID: "b", Status: "active", AdminState: "enabled", Routable: true, Health: api.Health{State: "fresh"}}
	f := headsFinding(failing, fresh)
	if f.State != warning || f.Detail != "2 heads, 2 take requests; 1 of them fails its requests and is not ejected, since too few others are left" || f.Fix == "" {
		t.Errorf("%+v", f)
	}
}

// Heads that pause, and those that say themselves that they take none, are named; a
// fleet that takes no requests is trouble.
func TestHeadsThatTakeNoneAreNamed(t *testing.T) {
	paused := api.Head{ID: "a", Status: "active", AdminState: "enabled", Routable: true, Health: api.Health{State: "paused"}}
	offline := api.Head{ID: "b", Status: "offline", AdminState: "enabled", Health: api.Health{State: "fresh"}}
	f := headsFinding(paused, offline)
	if f.State != warning || f.Detail != "2 heads, 0 take requests; not ready: 1 offline; 1 asked for a pause and gets nothing of the data plane until it is over" || f.Fix == "" {
		t.Errorf("%+v", f)
	}
}
