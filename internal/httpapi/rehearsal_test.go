package httpapi_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"headway/api"
	"headway/internal/httpapi"
)

const rehearsal = "/api/v1/heads/a/drain-rehearsal"

// decided is a world of three heads whose log has so many requests.
func decided(t *testing.T, requests int) *world {
	w := newWorld(t)
	for _, id := range []string{"a", "b", "c"} {
		w.register(id)
	}
	for i := range requests {
		d := w.decide(fmt.Sprintf(`{"model_type":"llama-3.1-8b","session_key":"s","input_tokens":%d}`, 100+100*(i%29)))
		w.must(http.StatusNoContent, http.MethodPost, "/api/v1/decisions/"+d.DecisionID+"/outcome", `{"result":"ok","ttft_ms":50,"output_tokens":9}`)
	}
	eventually(t, func() bool {
		return len(logged(t, w.must(http.StatusOK, http.MethodGet, "/api/v1/decision-log", ""))) == requests
	})
	return w
}

// A rehearsal plays what the log has, with the heads that take requests, and changes
// nothing.
func TestADrainIsRehearsed(t *testing.T) {
	w := decided(t, 60)
	begins := logged(t, w.must(http.StatusOK, http.MethodGet, "/api/v1/decision-log?order=first", ""))[0].At
	r := newRequest(t, http.MethodPost, rehearsal+"?last=1h", "")
	a := w.ask(r)
	theContract(t).answer(t, r, a)
	got := into[api.DrainRehearsal](t, a)
	if a.status != http.StatusOK || got.Head != "a" || !got.Since.Equal(begins) || len(got.ModelTypes) != 1 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if p := got.ModelTypes[0]; p.HeadsLeft != 2 || p.Before.Requests != 60 || p.After.Requests != 60 || p.After.P50TTFTMs == nil || *p.After.P50TTFTMs <= 0 || *p.After.P95TTFTMs < *p.After.P50TTFTMs || p.After.HitRate == nil || !p.CarriesLoad || p.Assumed == nil {
		t.Errorf("%+v", p)
	}
	w.must(http.StatusOK, http.MethodPatch, "/api/v1/heads/b", `{"admin_state":"draining"}`)
	if p := into[api.DrainRehearsal](t, w.must(http.StatusOK, http.MethodPost, rehearsal, "")).ModelTypes[0]; p.HeadsLeft != 1 {
		t.Errorf("with another head that is drained: %+v", p)
	}
	w.must(http.StatusOK, http.MethodPatch, "/api/v1/heads/c", `{"admin_state":"draining"}`)
	alone := w.ask(r)
	theContract(t).answer(t, r, alone)
	if p := into[api.DrainRehearsal](t, alone).ModelTypes[0]; p.HeadsLeft != 0 || p.Before.P50TTFTMs == nil || p.After.Failed != 60 || p.After.P50TTFTMs != nil || p.After.P95TTFTMs != nil || p.After.HitRate != nil || strings.Contains(string(alone.body), "null") {
		t.Errorf("where no other takes requests: %s", alone.body)
	}
	w.must(http.StatusOK, http.MethodPatch, "/api/v1/heads/c", `{"admin_state":"enabled"}`)
	w.must(http.StatusOK, http.MethodPatch, "/api/v1/heads/b", `{"admin_state":"enabled"}`)
	w.must(http.StatusOK, http.MethodPatch, "/api/v1/heads/a", `{"admin_state":"draining"}`)
	if p := into[api.DrainRehearsal](t, w.must(http.StatusOK, http.MethodPost, rehearsal, "")).ModelTypes[0]; !slices.Contains(p.Assumed, "before has a take requests, which it does not now") {
		t.Errorf("of a head that is draining already: %+v", p)
	}
	w.must(http.StatusOK, http.MethodPatch, "/api/v1/heads/a", `{"admin_state":"enabled"}`)
	if h := into[api.Head](t, w.must(http.StatusOK, http.MethodGet, "/api/v1/heads/a", "")); h.AdminState != "enabled" || h.InFlight != 0 {
		t.Errorf("the head was changed: %+v", h)
	}
}

func TestARehearsalIsRefused(t *testing.T) {
	w := decided(t, 60)
	for _, bad := range []string{"last=soon", "last=0s", "last=999ms", "last=1h1s", "first=1h"} {
		p := w.problem(http.StatusUnprocessableEntity, api.CodeInvalid, w.do(http.MethodPost, rehearsal+"?"+bad, ""))
		if name, _, _ := strings.Cut(bad, "="); len(p.Errors) != 1 || p.Errors[0].Parameter != name {
			t.Errorf("%s: %+v", bad, p.Errors)
		}
	}
	w.problem(http.StatusNotFound, api.CodeHeadNotFound, w.do(http.MethodPost, "/api/v1/heads/none/drain-rehearsal", ""))
	w.register("d")
	few := w.problem(http.StatusConflict, api.CodeTooFewRequests, w.do(http.MethodPost, "/api/v1/heads/d/drain-rehearsal", ""))
	if want := "Of the last 10m0s the decision log has fewer than 50 requests that had d to choose from."; few.Detail != want {
		t.Errorf("%q, want %q", few.Detail, want)
	}
	end := w.server.ReadLog()
	if a := w.do(http.MethodPost, rehearsal, ""); a.header.Get("Retry-After") != "1" {
		t.Errorf("while the log is read: %d %v", a.status, a.header)
	} else {
		w.problem(http.StatusTooManyRequests, api.CodeRateLimited, a)
	}
	end()
	w.server.Rehearse(time.Nanosecond)
	if p := w.problem(http.StatusGatewayTimeout, api.CodeTimeout, w.do(http.MethodPost, rehearsal, "")); !strings.Contains(p.Detail, "Ask for a shorter time") {
		t.Errorf("one that takes too long: %q", p.Detail)
	}
	none := newWorld(t, func(o *httpapi.Options) { o.DecisionLog = nil })
	none.register("a")
	none.problem(http.StatusNotFound, api.CodeNotFound, none.do(http.MethodPost, rehearsal, ""))
}

// A rehearsal ends when its caller leaves, and leaves the log to others.
func TestARehearsalEndsWithItsCaller(t *testing.T) {
	w := decided(t, 60)
	left, leave := context.WithCancel(t.Context())
	leave()
	if a := w.ask(newRequest(t, http.MethodPost, rehearsal, "").WithContext(left)); a.status != 0 || len(a.body) > 0 {
		t.Errorf("a caller that has left is answered %d %s", a.status, a.body)
	}
	w.must(http.StatusOK, http.MethodPost, rehearsal, "")
}

// The answer of a rehearsal may be taken for as long as a rehearsal and an answer may
// take together, and no longer.
func TestARehearsalLeavesTimeForItsAnswer(t *testing.T) {
	fakeTime(t, func(t *testing.T) {
		w := decided(t, 60)
		p := newPipes()
		served := make(chan error, 1)
		go func() { served <- w.server.Serve(p) }()
		for _, c := range []struct { // 30 s each
			after time.Duration
			whole bool
		}{{0, true}, {59 * time.Second, true}, {62 * time.Second, false}} {
			client, server := net.Pipe()
			p.conns <- server
			fmt.Fprintf(client, "POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", rehearsal)
			time.Sleep(c.after)
			got, _ := io.ReadAll(client)
			if whole := strings.HasPrefix(string(got), "HTTP/1.1 200 ") && strings.HasSuffix(string(got), "}\n"); whole != c.whole {
				t.Errorf("of the answer that is read %s after it was asked for there is %.300q", c.after, got)
			}
			_ = client.Close()
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // no lame duck
		_ = w.server.Drain(ctx)
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}
