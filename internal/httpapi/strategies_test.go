package httpapi_test

import (
	"net/http"
	"testing"
	"time"

	"headway/api"
	"headway/internal/routing"
	"headway/internal/strategy"
)

// A strategy is listed with what its placements led to, null what is not known, by
// model type where one is asked for.
func TestStrategiesHaveWhatTheyLeadTo(t *testing.T) {
	w := newWorld(t)
	w.register("gpu-1")
	w.must(http.StatusOK, "PUT", "/api/v1/policy", `{"default_strategy":"random","shadow":["round_robin"],"shadow_share":0.05,"caller_may":["strategy"]}`, "If-Match", "*")
	report := func(query string) (of api.StrategyEffectiveness, list api.StrategyList) {
		t.Helper()
		list = into[api.StrategyList](t, w.must(http.StatusOK, "GET", "/api/v1/strategies"+query, ""))
		for _, s := range list.Data {
			if s.Name == "random" {
				return s.Effectiveness, list
			}
		}
		t.Fatal("random is not listed")
		return of, list
	}
	if e, list := report(""); e.Decisions != 0 || e.TTFTMs != nil || e.RegretMs != nil || e.CalibrationError != nil || e.PrefixPromised != nil || e.Imbalance != nil || list.WindowSeconds != 900 {
		t.Errorf("before any decision: %+v, within %d s", e, list.WindowSeconds)
	}
	for i := range 3 {
		d, err := w.router.Decide(&strategy.Request{ModelType: "llama-3.1-8b", Strategy: "random", InputTokens: 100})
		if err != nil {
			t.Fatal(err)
		}
		w.router.End(d, routing.Outcome{Result: routing.ResultOK, TTFT: 100 + 2000*float64(i), CachedTokens: 7})
	}
	e, list := report("?window=1h&model_type=llama-3.1-8b")
	if e.Decisions != 3 || *e.TTFTMs != 2100 || *e.PrefixPromised != 0 || *e.PrefixDelivered != 21 || *e.PrefixKept != 0 || e.ObjectiveMet != 1 || e.ObjectiveMissed != 2 || e.RegretReliable {
		t.Errorf("%+v", e)
	}
	if list.WindowSeconds != int64(time.Hour/time.Second) {
		t.Errorf("within %d s", list.WindowSeconds)
	}
	if len(list.Shadow) != 1 || list.Shadow[0].Shadow != "round_robin" || list.Shadow[0].Decisions == 0 || list.Shadow[0].Agreement != 1 || list.Shadow[0].RegretMs != nil {
		t.Errorf("the shadows are %+v; want one that agrees, of the first decision at least", list.Shadow)
	}
	if e, list := report("?model_type=another"); e.Decisions != 0 || list.Shadow == nil || len(list.Shadow) != 0 {
		t.Errorf("of another model type: %+v, shadows %v", e, list.Shadow)
	}
}
