package apiv1

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"

	"headway/api"
	"headway/internal/event"
	"headway/internal/fleet"
	"headway/internal/memstore"
	"headway/internal/routing"
)

// still is a fleet that does not change.
type still struct{ snapshot *fleet.Snapshot }

func (s still) Snapshot() *fleet.Snapshot { return s.snapshot }

// newDesk makes a verbs for decisions among the heads a and b, which serve m.
func newDesk(t testing.TB) *Verbs {
	t.Helper()
	reg := prometheus.NewRegistry()
	events := event.New(reg)
	var joined []fleet.Step
	for i, id := range []string{"a", "b"} {
		joined = append(joined, fleet.Step{Next: &fleet.Head{
			Spec:   fleet.Spec{ID: id, Endpoint: "http://127.0.0.1:1", ModelTypes: []string{"m"}, Region: "r", Weight: 1},
			Status: fleet.StatusActive, Health: fleet.HealthFresh, Instance: uint64(i + 1), Live: new(fleet.Live),
		}})
	}
	heads, _ := new(fleet.Snapshot).With(joined)
	router, err := routing.New(routing.Options{
		Fleet:  still{heads},
		Events: events, Metrics: reg, Log: slog.New(slog.DiscardHandler), Policies: memstore.New(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return &Verbs{router: router}
}

// However unusual a request is, its answer is a decision or an
// error.
func TestExcludedHeadsAreNotTaken(t *testing.T) {
	d := newDesk(t)
	for _, body := range []string{
		`{"model_type":"m","exclude":["a"]}`,
		`{"model_type":"m","exclude":["a","absent"],"session_key":"s"}`,
		`{"model_type":"m","exclude":["a"],"strategy":"round_robin","explain":true}`,
		`{"model_type":"m","exclude":["a"],"labels":{}}`, // read by the other reader
	} {
		for range 20 {
			answer, err := d.Decide(nil, []byte(body), nil)
			if err != nil {
				t.Fatalf("%s: %v", body, err)
			}
			var decision api.Decision
			if err := json.Unmarshal(answer, &decision); err != nil {
				t.Fatalf("%s: %q: %v", body, answer, err)
			}
			if decision.Head.ID != "b" || len(decision.Alternatives) > 0 {
				t.Fatalf("%s: %s", body, answer)
			}
		}
	}
	answer, err := d.Decide(nil, []byte(`{"model_type":"m","exclude":["a"],"strategy":"random"}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	var decision api.Decision
	if err := json.Unmarshal(answer, &decision); err != nil || decision.Reason != "random, of 1 candidate" {
		t.Errorf("%v: reason %q", err, decision.Reason)
	}
	_, err = d.Decide(nil, []byte(`{"model_type":"m","exclude":["a","b"]}`), nil)
	if none, ok := errors.AsType[*routing.NoHeadError](err); !ok || none.Failure != routing.FailExcluded {
		t.Errorf("with all heads excluded: %v", err)
	}
}
