package httpapi_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"headway/api"
	"headway/internal/access"
	"headway/internal/admission"
	"headway/internal/audit"
	"headway/internal/fleet"
	"headway/internal/proxy"
)

// engine registers a head of an engine, and returns how many requests it got.
func (p *plane) engine(id, engine string, answer http.HandlerFunc, models ...string) *atomic.Int64 {
	p.Helper()
	n := new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		n.Add(1)
		if answer != nil {
			answer(w, r)
		}
	}))
	p.Cleanup(s.Close)
	p.serves(fleet.Spec{ID: id, Endpoint: s.URL, ModelTypes: models, Engine: engine})
	return n
}

// What a client may ask of a head by /heads is a closed list of the head's engine;
// all else needs the permission operate.
func TestWhatClientsMayPassThrough(t *testing.T) {
	p := newPlane(t, func(o *proxy.Options) {
		o.ClientPaths = []proxy.ClientPath{{ModelType: "art", Path: "/sdapi/v1/*"}, {ModelType: "x*", Path: "/predict"}}
	})
	p.engine("v", "vLLM", nil, "llm")
	p.engine("t", "triton", nil, "yolo")
	p.engine("n", "", nil, "art", "x1")
	keys := p.keysOf()
	for request, client := range map[string]int{
		"POST /heads/llm/v1/load_lora_adapter": 403, "POST /heads/llm/v1/unload_lora_adapter": 403, "POST /heads/llm/v1/chat/completions": 403, "GET /heads/llm/metrics": 403,
		"POST /heads/llm/classify": 200, "GET /heads/llm/health": 200,
		"POST /heads/yolo/v2/models/yolo/infer": 200, "HEAD /heads/yolo/v2/health/ready": 200, "POST /heads/yolo/v2/models/yolo/infer?a=b": 200,
		"POST /heads/yolo/v2/repository/models/yolo/unload": 403, "POST /heads/yolo/v2/repository/models/yolo/load": 403, "POST /heads/yolo/v2/models/yolo/in%66er": 403, "POST /heads/yolo//v2/models/yolo/infer": 403,
		"POST /heads/art/sdapi/v1/txt2img": 200, "POST /heads/art/sdapi/v1/a%20b": 200, "GET /heads/art/other": 403, "POST /heads/art/predict": 403, "POST /heads/x1/predict": 200, "POST /heads/x1/sdapi/v1/a": 403,
		"POST /heads/art/sdapi/v1/a%2fb": 403, "POST /heads/art/sdapi/v1/a;b": 403, "POST /heads/art/sdapi/v1/a%3bb": 403, "POST /heads/art/sdapi/v1//b": 403, "POST /heads/art/sdapi/v1/a%253fb": 403, "GET /heads/art": 403,
	} {
		method, path, _ := strings.Cut(request, " ")
		for role, want := range map[access.Role]int{access.RoleAdmin: 200, access.RoleOperator: 200, access.RoleClient: client, access.RoleViewer: 403, access.RoleHead: 403} {
			if a := p.send(method, path, nil, "Authorization", "Bearer "+keys[role]); a.StatusCode != want {
				t.Errorf("%s by the role %s: %d %s", request, role, a.StatusCode, a.body)
			}
		}
	}
	p.settled()
}

// However a request comes to a head, its caller needs the permission for that head.
func TestPermissionIsThatOfTheHeadThatIsChosen(t *testing.T) {
	refuse := func(t *testing.T, a planeAnswer, forbidden *atomic.Int64) {
		t.Helper()
		if _, code, _ := errorOf(t, a); a.StatusCode != http.StatusForbidden || code != "insufficient_permissions" {
			t.Errorf("%d %s", a.StatusCode, a.body)
		}
		if n := forbidden.Load(); n != 0 {
			t.Errorf("the head carried out %d requests", n)
		}
	}
	t.Run("by a fallback", func(t *testing.T) {
		p := newPlane(t, func(o *proxy.Options) { o.ClientPaths = []proxy.ClientPath{{ModelType: "sdxl", Path: "/*"}} })
		forbidden := p.engine("a", "vllm", nil, "m")
		p.apply(`{"default_strategy":"random","fallbacks":[{"match":{"model_type":"sdxl"},"to":[{"model_type":"m"}]}]}`)
		client := p.keysOf()[access.RoleClient]
		refuse(t, p.send(http.MethodPost, "/heads/sdxl/v1/unload_lora_adapter", nil, "Authorization", "Bearer "+client), forbidden)
		p.settled()
	})
	t.Run("by an alias", func(t *testing.T) {
		p := newPlane(t, func(o *proxy.Options) { o.ClientPaths = []proxy.ClientPath{{ModelType: "al", Path: "/*"}} })
		forbidden := p.engine("a", "", nil, "m")
		p.apply(`{"default_strategy":"random","aliases":{"al":"m"}}`)
		client := p.keysOf()[access.RoleClient]
		refuse(t, p.send(http.MethodPost, "/heads/al/unload", nil, "Authorization", "Bearer "+client), forbidden)
		p.settled()
	})
	t.Run("by a retry", func(t *testing.T) {
		p := newPlane(t)
		p.apply(`{"default_strategy":"least_loaded"}`)
		busy := p.engine("a", "triton", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, "m")
		forbidden := p.engine("b", "", nil, "m")
		client := p.keysOf()[access.RoleClient]
		var wrong []int
		for busy.Load() < 3 { // until that one was chosen often enough
			a := p.send(http.MethodPost, "/heads/m/v2/models/m/infer", nil, "Authorization", "Bearer "+client)
			if a.StatusCode != http.StatusServiceUnavailable && a.StatusCode != http.StatusForbidden {
				wrong = append(wrong, a.StatusCode)
			}
			if len(wrong) > 0 || forbidden.Load() > 0 {
				t.Fatalf("%v, and %d requests came through", wrong, forbidden.Load())
			}
		}
		p.settled()
	})
	t.Run("by a head that joins meanwhile", func(t *testing.T) {
		var a *admission.Admission
		p := newPlane(t, func(o *proxy.Options) {
			var err error
			if a, err = admission.New(admission.Options{Metrics: o.Metrics, MaxWaiting: 2, MaxWait: time.Hour}); err != nil {
				t.Fatal(err)
			}
			o.Admission = a
		})
		p.freed = func(h *fleet.Head) { a.Freed(h.ModelTypes...) }
		held := make(chan struct{})
		s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-held }))
		t.Cleanup(s.Close)
		p.serves(fleet.Spec{ID: "a", Endpoint: s.URL, ModelTypes: []string{"m"}, Engine: "triton", MaxInFlight: 1})
		client := p.keysOf()[access.RoleClient]
		var all sync.WaitGroup
		defer all.Wait()
		defer close(held)
		infer := func() planeAnswer {
			return p.send(http.MethodPost, "/heads/m/v2/models/m/infer", nil, "Authorization", "Bearer "+client)
		}
		all.Go(func() { infer() })
		p.eventually("the place is taken", func() bool { return p.router.Open() == 1 })
		waits := make(chan planeAnswer, 1)
		all.Go(func() { waits <- infer() })
		p.waiting(1)
		forbidden := p.engine("b", "", nil, "m")
		a.Changed()
		refuse(t, <-waits, forbidden)
	})
}

// What is refused to a caller of the data plane is recorded and counted as in the API.
func TestRefusalsOfTheDataPlaneAreRecorded(t *testing.T) {
	p := newPlane(t)
	p.engine("a", "vllm", nil, "m")
	p.apply(`{"default_strategy":"random","caller_may":[]}`)
	keys := p.keysOf()
	for _, c := range []struct {
		what, method, path string
		header             []string
		status             int
		action, target     string // "": there is no record
		counted            string
	}{
		{"a path that needs operate", "POST", "/heads/m/v1/unload_lora_adapter", []string{"Authorization", "Bearer " + keys[access.RoleClient]}, 403, "head.request", "POST /heads/", api.CodeForbidden},
		{"a hint that the policy keeps", "POST", chatPath, []string{"Authorization", "Bearer " + keys[access.RoleClient], "X-Headway-Session", "s"}, 403, "access", "POST " + chatPath, api.CodeOverrideNotAllowed},
		{"a strategy that the policy keeps", "POST", chatPath, []string{"Authorization", "Bearer " + keys[access.RoleClient], "X-Headway-Strategy", "random"}, 403, "access", "POST " + chatPath, api.CodeOverrideNotAllowed},
		{"a missing role", "POST", chatPath, []string{"Authorization", "Bearer " + keys[access.RoleViewer]}, 403, "access", "POST " + chatPath, api.CodeForbidden},
		{"a missing role, x-api-key", "POST", "/v1/messages", []string{"X-Api-Key", keys[access.RoleViewer]}, 403, "access", "POST /v1/messages", api.CodeForbidden},
		{"an unknown key", "POST", chatPath, []string{"Authorization", "Bearer hw_nothing"}, 401, "access", "POST " + chatPath, ""},
		{"an unknown key", "DELETE", "/heads/m/x", []string{"Authorization", "Bearer hw_nothing"}, 401, "head.request", "DELETE /heads/", ""},
		{"no key", "POST", "/heads/m/x", nil, 401, "head.request", "POST /heads/", ""},
		{"no key, to read", "GET", "/heads/m/x", nil, 401, "", "", ""},
		{"no key, for inference", "POST", chatPath, nil, 401, "", "", ""},
		{"what is badly written", "POST", "/v1/completions", []string{"Authorization", "Bearer " + keys[access.RoleClient]}, 400, "", "", api.CodeInvalid},
		{"what is compressed", "POST", chatPath, []string{"Authorization", "Bearer " + keys[access.RoleClient], "Content-Encoding", "gzip"}, 415, "", "", api.CodeUnsupportedMedia},
	} {
		p.recorded.take()
		count := func() (n string) {
			_, rest, _ := strings.Cut(p.scrape(), fmt.Sprintf("headway_http_requests_refused_total{reason=%q} ", c.counted))
			n, _, _ = strings.Cut(rest, "\n")
			return n
		}
		before := count()
		body := ""
		if c.path == chatPath {
			body = chatBody
		}
		if a := p.send(c.method, c.path, strings.NewReader(body), c.header...); a.StatusCode != c.status {
			t.Errorf("%s: %d %s", c.what, a.StatusCode, a.body)
		}
		if c.counted != "" && before == count() {
			t.Errorf("%s is not counted", c.what)
		}
		got := p.recorded.take()
		if c.action == "" {
			if len(got) > 0 {
				t.Errorf("%s is recorded: %+v", c.what, got)
			}
			continue
		}
		if len(got) != 1 {
			t.Errorf("%s: %d records", c.what, len(got))
			continue
		}
		if e := got[0]; e.Category != audit.Auth || e.Outcome != audit.Denied || e.Action != c.action || e.Target.ID != c.target || e.Reason == "" || e.Source.IP != "127.0.0.1" ||
			(c.status == 403) != (e.Actor.Type == "key") {
			t.Errorf("%s is recorded as %+v", c.what, e)
		}
	}
	p.settled()
}

// A refusal of the head's is no refusal of ours.
func TestAHeadsOwnRefusalIsNoneOfOurs(t *testing.T) {
	p := newPlane(t)
	status := 0
	p.engine("a", "", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }, "m")
	for _, status = range []int{http.StatusForbidden, http.StatusBadRequest} {
		p.recorded.take()
		before := p.scrape()
		if a := p.answer(chatPath, chatBody); a.StatusCode != status {
			t.Errorf("%d %s", a.StatusCode, a.body)
		}
		if got := p.recorded.take(); len(got) > 0 {
			t.Errorf("%d is recorded: %+v", status, got)
		}
		refusals := func(text string) (list []string) {
			for line := range strings.Lines(text) {
				if strings.HasPrefix(line, "headway_http_requests_refused_total") {
					list = append(list, line)
				}
			}
			return list
		}
		if !slices.Equal(refusals(before), refusals(p.scrape())) {
			t.Errorf("%d is counted", status)
		}
	}
	p.settled()
}

// What an operator does at an engine is in the trail, before it is done and after.
func TestWhatIsDoneAtAnEngineIsRecorded(t *testing.T) {
	p := newPlane(t)
	answer := func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/missing":
			w.WriteHeader(http.StatusNotFound)
		case "/broken":
			w.WriteHeader(http.StatusInternalServerError)
		case "/cut":
			panic(http.ErrAbortHandler)
		case "/refused":
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
	p.engine("a", "sglang", answer, "m")
	p.engine("n", "", answer, "art")
	p.serves(fleet.Spec{ID: "d", Endpoint: "http://127.0.0.1:1", ModelTypes: []string{"dead"}, Engine: "vllm"})
	operator := p.keysOf()[access.RoleOperator]
	for _, c := range []struct {
		request string
		outcome audit.Outcome // "": it is not recorded
		reason  string
		after   string
	}{
		{"POST /heads/m/load_lora_adapter?secret=s", audit.Success, "", `{"method":"POST","path":"/load_lora_adapter"}`},
		{"GET /heads/m/flush_cache", audit.Success, "", `{"method":"GET","path":"/flush_cache"}`},
		{"POST /heads/m/missing", audit.Failure, "the head answered 404", `{"method":"POST","path":"/missing"}`},
		{"POST /heads/m/broken", audit.Unknown, "the head answered 500", `{"method":"POST","path":"/broken"}`},
		{"POST /heads/m/cut", audit.Unknown, "the head failed: it closed the connection before its answer was complete", `{"method":"POST","path":"/cut"}`},
		{"POST /heads/m/refused", audit.Failure, "the head did not accept the service's credential", `{"method":"POST","path":"/refused"}`},
		{"POST /heads/dead/sleep", audit.Failure, "the head failed: it refused the connection", `{"method":"POST","path":"/sleep"}`},
		{"POST /heads/art/free", audit.Success, "", `{"method":"POST","path":"/free"}`},
		{"POST /heads/m/generate", "", "", ""},
		{"GET /heads/m/metrics", "", "", ""},
		{"GET /heads/art/history", "", "", ""},
	} {
		p.recorded.take()
		method, path, _ := strings.Cut(c.request, " ")
		p.send(method, path, nil, "Authorization", "Bearer "+operator, "X-Request-Id", "r-1")
		p.settled()
		got := p.recorded.take()
		if c.outcome == "" {
			if len(got) > 0 {
				t.Errorf("%s is recorded: %+v", c.request, got)
			}
			continue
		}
		if len(got) != 2 {
			t.Errorf("%s: %d records", c.request, len(got))
			continue
		}
		for i, e := range got {
			if e.Category != audit.Head || e.Action != "head.request" || e.Target.Type != "head" || e.Target.ID == "" || e.Target.Region != "us" || e.Actor.Type != "key" || e.RequestID != "r-1" ||
				i == 0 && (e.Outcome != "" || string(e.After) != c.after) || i == 1 && (e.Outcome != c.outcome || e.Reason != c.reason) {
				t.Errorf("%s: record %d is %+v %s", c.request, i, e, e.After)
			}
		}
	}
	p.noTrail.Store(true)
	n := p.engine("s", "sglang", nil, "other")
	a := p.send(http.MethodPost, "/heads/other/flush_cache", nil, "Authorization", "Bearer "+operator)
	if _, code, _ := errorOf(t, a); a.StatusCode != http.StatusServiceUnavailable || code != api.CodeAuditUnavailable || n.Load() != 0 {
		t.Errorf("without a trail: %d %s, and %d requests came through", a.StatusCode, a.body, n.Load())
	}
	if a := p.send(http.MethodPost, "/heads/other/generate", nil, "Authorization", "Bearer "+operator); a.StatusCode != http.StatusOK {
		t.Errorf("inference without a trail: %d %s", a.StatusCode, a.body)
	}
	p.settled()
}

// The tokens of what passes through to a language model count for the caller's limit.
func TestWhatPassesThroughCountsForTheLimitOfTokens(t *testing.T) {
	for engine, want := range map[string]int{"tgi": http.StatusTooManyRequests, "triton": http.StatusOK} {
		p := newPlane(t, func(o *proxy.Options) {
			var err error
			if o.Admission, err = admission.New(admission.Options{Metrics: o.Metrics, Tokens: 100}); err != nil {
				t.Fatal(err)
			}
			o.ClientPaths = []proxy.ClientPath{{ModelType: "*", Path: "/generate"}}
		})
		p.engine("a", engine, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("a", 400)) }, "m")
		client := p.keysOf()[access.RoleClient]
		for i, status := range []int{http.StatusOK, want} {
			a := p.send(http.MethodPost, "/heads/m/generate", strings.NewReader(strings.Repeat("b", 80)), "Authorization", "Bearer "+client)
			if a.StatusCode != status {
				t.Errorf("%s, request %d: %d %s", engine, i, a.StatusCode, a.body)
			}
			p.settled()
			if i > 0 {
				continue
			}
			if o, _ := p.decisionOf(a.Header).Outcome(); engine == "tgi" && (o.InputTokens != 20 || o.OutputTokens != 100 || !o.Estimated) {
				t.Errorf("the outcome is %+v", o)
			}
		}
	}
}
