package cli

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"headway/api"
)

// effects answers every request with the strategies, and notes the last query.
func effects(t *testing.T, query *string, list ...api.Strategy) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*query = r.URL.RawQuery
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(api.StrategyList{Data: list, WindowSeconds: 900, Shadow: []api.StrategyShadow{{Strategy: "worse", Shadow: "adaptive", Decisions: 77, Agreement: 0.25, RegretMs: new(80.), ShadowRegretMs: new(1.5)}}})
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// The least regret comes first, what is not reliable is marked and said why, and
// strategies that did not decide are left out.
func TestStrategiesAreComparedByRegret(t *testing.T) {
	of := func(name string, e api.StrategyEffectiveness) api.Strategy {
		return api.Strategy{Name: name, Effectiveness: e}
	}
	query := ""
	url := effects(t, &query,
		of("idle", api.StrategyEffectiveness{}),
		of("unmeasured", api.StrategyEffectiveness{Decisions: 4}),
		of("worse", api.StrategyEffectiveness{Decisions: 40, RegretMs: new(80.), RegretReliable: true, CalibrationError: new(0.2), Predictions: 40, TTFTMs: new(300.), ObjectiveMet: 39, ObjectiveMissed: 1, PrefixPromised: new(int64(1000)), PrefixKept: new(int64(250)), Imbalance: new(0.125)}),
		of("doubtful", api.StrategyEffectiveness{Decisions: 50, RegretMs: new(5.), CalibrationError: new(0.9), Predictions: 50}),
		of("stern", api.StrategyEffectiveness{Refused: 12345}),
		of("new", api.StrategyEffectiveness{Decisions: 1, RegretMs: new(9.)}))
	code, out, errs := here(t, "strategies", "compare", "--window", "5m", "--model-type", "llama", "--server", url)
	if code != exitOK || query != "model_type=llama&window=5m0s" {
		t.Fatalf("exit %d, asked %q: %s", code, query, errs)
	}
	var first []string
	for line := range strings.Lines(out) {
		if line == "\n" {
			break // the shadows follow
		}
		first = append(first, strings.Fields(line)[0])
	}
	if got := strings.Join(first, " "); got != "STRATEGY doubtful new worse unmeasured stern" {
		t.Errorf("the order is %s:\n%s", got, out)
	}
	has(t, out, "worse       40         0        80.0 ms", "300 ms", "20%", "97.5%", "25.0%", "12%", "5.0 ms ?", "9.0 ms ?", "stern       0          12345    -",
		"worse     adaptive  77     25%        80.0 ms  1.5 ms")
	has(t, errs, "the regret of doubtful is not reliable: what was expected was off by 90%", "the regret of new is not reliable yet")
	if strings.Contains(errs, "worse") {
		t.Errorf("said %q", errs)
	}
	if _, out, _ := here(t, "strategies", "compare", "--server", url, "--json"); !strings.Contains(out, `"window_seconds"`) || strings.Contains(out, "idle") {
		t.Errorf("as JSON: %s", out)
	}
	if code, _, errs := here(t, "strategies", "show", "worst", "--server", url); code != exitNotFound || !strings.Contains(errs, `unknown strategy "worst"`) {
		t.Errorf("exit %d: %s", code, errs)
	}
	none := effects(t, &query, of("idle", api.StrategyEffectiveness{}))
	if _, out, _ := here(t, "strategies", "compare", "--server", none); !strings.Contains(out, "no decision ended within 15m") {
		t.Errorf("without decisions: %s", out)
	}
	empty := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"data":[]}`)) // of strategies and of heads
	}))
	t.Cleanup(empty.Close)
	if code, _, errs := here(t, "strategies", "compare", "--model-type", "nope", "--server", empty.URL); code != exitNotFound || !strings.Contains(errs, `no head serves the model type "nope"`) {
		t.Errorf("a model type that no head serves: exit %d: %s", code, errs)
	}
}

// A window that the service does not keep is wrong use, whether the service is there or
// not.
func TestAWindowIsOfWholeMinutes(t *testing.T) {
	for _, window := range []string{"0s", "-5m", "30s", "90s", "2h", "1h1m"} {
		for _, args := range []string{"compare", "show adaptive"} {
			code, out, errs := here(t, append(strings.Fields("strategies "+args+" --server http://127.0.0.1:1 --window"), window)...)
			if code != exitUsage || out != "" || !strings.Contains(errs, "--window ") || !strings.Contains(errs, "want 1m to 1h in whole minutes") {
				t.Errorf("%s of %s: exit %d: %s%s", args, window, code, out, errs)
			}
		}
	}
}
