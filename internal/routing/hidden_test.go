package routing_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"headway/internal/fleet"
	"headway/internal/policy"
	"headway/internal/routing"
)

func TestAnAliasOverAServedModelTypeIsWarnedOf(t *testing.T) {
	var log bytes.Buffer
	w := newWorld(t, func(o *routing.Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	w.head("a", "us", func(s *fleet.Spec) { s.ModelTypes = []string{"org/m", "plain"} })
	doc := policy.Default().Document
	doc.Aliases = map[string]string{"org/m": "other", "free": "plain"}
	next, faults := policy.Compile(doc)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	hidden := w.router.HiddenBy(next)
	if len(hidden) != 1 || hidden[0].Pointer != "/aliases/org~1m" || !strings.Contains(hidden[0].Reason, "go to \"other\"") {
		t.Errorf("warned of %+v", hidden)
	}
	if got := w.router.Registered("a", []string{"org/m"}, true); got != nil {
		t.Errorf("before the policy is in force: %+v", got)
	}
	if _, err := w.router.Apply(t.Context(), routing.Change{Make: routing.To(next), Source: policy.SourceAPI}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "an alias of the policy hides a model type"); n != 1 {
		t.Errorf("the change of the policy is logged %d times:\n%s", n, log.String())
	}
	for _, created := range []bool{true, false} {
		if got := w.router.Registered("b", []string{"plain", "org/m"}, created); len(got) != 1 {
			t.Errorf("a registration is warned of %+v", got)
		}
	}
	if n := strings.Count(log.String(), "head=b"); n != 1 {
		t.Errorf("registrations are logged %d times:\n%s", n, log.String())
	}
	if got := w.router.Registered("c", []string{"plain"}, true); got != nil {
		t.Errorf("warned of %+v", got)
	}
}
