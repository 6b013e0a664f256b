package mockhead_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"

	"headway/api"
	sdk "headway/client"
	"headway/internal/mockhead"
)

// What an agent does in its life is the client's to prove; here it speaks for a
// real head.
func TestAnAgentSpeaksForItsHead(t *testing.T) {
	h := startHead(t, nil)
	registered, reports := make(chan api.Registration, 1), make(chan map[string]any, 1)
	router := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		const lease = `"lease":{"epoch":7,"ttl_seconds":30,"heartbeat_interval_seconds":10}}`
		switch r.Method {
		case http.MethodPost:
			var in api.Registration
			if err := json.Unmarshal(text, &in); err != nil {
				t.Error(err)
			}
			registered <- in
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, `{"head":{},`+lease)
		case http.MethodPut:
			var in map[string]any
			if err := json.Unmarshal(text, &in); err != nil {
				t.Error(err)
			}
			reports <- in
			_, _ = io.WriteString(w, `{`+lease)
		}
	}))
	t.Cleanup(router.Close)
	c, err := sdk.New(router.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	agent, err := h.NewAgent(c, mockhead.Place{ID: "h1", Region: "us-east", Zone: "a", Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { agent.Run(ctx) })
	defer running.Wait()
	defer stop()
	want := api.Registration{
		ID: "h1", Endpoint: h.URL(), ModelTypes: h.Models(), Region: "us-east", Zone: "a", Version: "test", Engine: "vllm",
		Capacity: &api.Capacity{MaxInFlight: int64(h.MaxInFlight())}, Status: "active",
	}
	if got := <-registered; !reflect.DeepEqual(got, want) {
		t.Errorf("registration %+v, want %+v", got, want)
	}
	report := <-reports
	load, _ := report["load"].(map[string]any)
	for _, name := range []string{
		"in_flight", "queued", "pending_prompt_tokens", "kv_cache_usage", "kv_capacity_tokens", "utilization", "tokens_per_second",
	} {
		if _, ok := load[name].(float64); !ok {
			t.Errorf("the report has no %s: %v", name, report)
		}
	}
	if fmt.Sprint(report["epoch"], " ", report["status"]) != "7 active" {
		t.Errorf("report %v", report)
	}
	<-agent.Ready()
	if _, err := h.NewAgent(c, mockhead.Place{}); err == nil {
		t.Error("a head without an id has an agent")
	}
}
