package mockhead_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"headway/internal/engine"
	"headway/internal/mockhead"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startHead runs a head a thousand times faster than real.
func startHead(t *testing.T, change func(*mockhead.Options)) *mockhead.Head {
	t.Helper()
	o := mockhead.Options{Models: []string{"llama-3.1-8b"}, Speed: 1000}
	if change != nil {
		change(&o)
	}
	h, err := mockhead.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// client is an HTTP client whose connections end with the test.
func client(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestBadRequestsAreRefusedByName(t *testing.T) {
	h := startHead(t, func(o *mockhead.Options) { o.MaxBody = 1 << 20 })
	c := client(t)
	const msg = `"messages":[{"role":"user","content":"hi"}]`
	for name, tc := range map[string]struct {
		body, kind, encoding string
		status               int
		param                string
	}{
		"not JSON":             {body: `{"model":`, status: 400},
		"no model":             {body: `{` + msg + `}`, status: 400, param: "model"},
		"duplicate member":     {body: `{"model":"a","model":"llama-3.1-8b",` + msg + `}`, status: 400, param: "model"},
		"wrong type":           {body: `{"model":"llama-3.1-8b","stream":"yes",` + msg + `}`, status: 400, param: "stream"},
		"invalid UTF-8":        {body: "{\"model\":\"llama-3.1-8b\xff\"," + msg + `}`, status: 400},
		"two documents":        {body: `{"model":"llama-3.1-8b",` + msg + `}{}`, status: 400},
		"no messages":          {body: `{"model":"llama-3.1-8b","messages":[]}`, status: 400, param: "messages"},
		"unknown role":         {body: `{"model":"llama-3.1-8b","messages":[{"role":"king","content":""}]}`, status: 400, param: "messages/0/role"},
		"a number as content":  {body: `{"model":"llama-3.1-8b","messages":[{"role":"user","content":1}]}`, status: 400, param: "messages/0/content"},
		"a smell":              {body: `{"model":"llama-3.1-8b","messages":[{"role":"user","content":[{"type":"smell"}]}]}`, status: 400, param: "messages/0/content/0/type"},
		"no tokens":            {body: `{"model":"llama-3.1-8b","max_tokens":0,` + msg + `}`, status: 400, param: "max_tokens"},
		"no choices":           {body: `{"model":"llama-3.1-8b","n":0,` + msg + `}`, status: 400, param: "n"},
		"options of no stream": {body: `{"model":"llama-3.1-8b","stream_options":{},` + msg + `}`, status: 400, param: "stream_options"},
		"a form":               {body: `model=a`, kind: "application/x-www-form-urlencoded", status: 415},
		"compressed":           {body: `{}`, encoding: "gzip", status: 415},
		"too large":            {body: strings.Repeat(" ", 1<<20+1), status: 413},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.URL()+"/v1/chat/completions", strings.NewReader(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			if tc.kind != "" {
				req.Header.Set("Content-Type", tc.kind)
			}
			if tc.encoding != "" {
				req.Header.Set("Content-Encoding", tc.encoding)
			}
			resp, body := do(t, c, req)
			if resp.StatusCode != tc.status || !strings.Contains(body, `"error":{"message":`) {
				t.Errorf("%d %s, want %d and an error object", resp.StatusCode, body, tc.status)
			}
			if tc.param != "" && !strings.Contains(body, `"param":"`+tc.param+`"`) {
				t.Errorf("%s does not name %s", body, tc.param)
			}
		})
	}
}

func do(t *testing.T, c *http.Client, req *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func get(t *testing.T, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return do(t, c, req)
}

func TestPathsAndMethods(t *testing.T) {
	h := startHead(t, nil)
	c := client(t)
	for path, want := range map[string]int{
		"/health": 200, "/v1/models": 200, "/metrics": 200, "/": 404, "/v1/nothing": 404, "/v1/completions": 405,
	} {
		if resp, body := get(t, c, h.URL()+path); resp.StatusCode != want {
			t.Errorf("GET %s: %d %s, want %d", path, resp.StatusCode, body, want)
		}
	}
}

// slow is a head that needs about a minute for an answer of 2,000 tokens.
func slow(o *mockhead.Options) { o.Speed = 0.2 }

func TestAClientThatLeavesFreesItsSequence(t *testing.T) {
	for _, streaming := range []bool{false, true} {
		t.Run(fmt.Sprintf("streaming %v", streaming), func(t *testing.T) {
			h := startHead(t, slow)
			ctx, leave := context.WithCancel(t.Context())
			resp := make(chan *http.Response, 1)
			go func() { resp <- post(ctx, client(t), h, 2000, streaming) }()
			await(t, func() bool { return h.Load().Running == 1 })
			leave()
			if r := <-resp; r != nil {
				_ = r.Body.Close()
			}
			await(t, func() bool { l := h.Load(); return l.Running == 0 && l.KVUsage == 0 })
			if got := h.Counters().Canceled; got != 1 {
				t.Errorf("%d canceled, want 1", got)
			}
		})
	}
}

// post asks for an answer of exactly tokens; nil when the connection fails.
func post(ctx context.Context, c *http.Client, h *mockhead.Head, tokens int, streaming bool) *http.Response {
	body := fmt.Sprintf(`{"model":"llama-3.1-8b","messages":[{"role":"user","content":"run"}],"max_tokens":%d,"ignore_eos":true,"stream":%v}`,
		tokens, streaming)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL()+"/v1/chat/completions", bytes.NewReader([]byte(body)))
	if err != nil {
		return nil
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return nil
	}
	return resp
}

func TestTheQueueIsBounded(t *testing.T) {
	h := startHead(t, func(o *mockhead.Options) {
		slow(o)
		o.MaxWaiting = 1
		o.Profile = engine.ProfileForModel("llama-3.1-8b")
		o.Profile.MaxSequences = 1
	})
	c := client(t)
	ctx, leave := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	ask := func() {
		wg.Go(func() {
			if r := post(ctx, c, h, 4000, true); r != nil {
				_ = r.Body.Close()
			}
		})
	}
	ask()
	await(t, func() bool { return h.Load().Running == 1 })
	ask()
	await(t, func() bool { return h.Load().Waiting == 1 })
	r := post(t.Context(), c, h, 10, false)
	if r == nil || r.StatusCode != http.StatusTooManyRequests || r.Header.Get("Retry-After") == "" {
		t.Errorf("one more than may wait: %+v, want 429 with Retry-After", r)
	}
	if r != nil {
		_ = r.Body.Close()
	}
	leave()
	wg.Wait()
}

func TestAHeadThatDiesCutsItsStreams(t *testing.T) {
	h := startHead(t, slow)
	r := post(t.Context(), client(t), h, 2000, true)
	if r == nil {
		t.Fatal("no answer")
	}
	defer func() { _ = r.Body.Close() }()
	h.Close()
	text, err := io.ReadAll(r.Body)
	if err == nil {
		t.Errorf("the stream ended as if it were whole: %q", text)
	}
	if bytes.Contains(text, []byte("[DONE]")) {
		t.Error("the cut stream says [DONE]")
	}
}

func TestShutdownLetsRequestsFinish(t *testing.T) {
	h := startHead(t, func(o *mockhead.Options) { o.Speed = 20 })
	r := post(t.Context(), client(t), h, 200, true)
	if r == nil {
		t.Fatal("no answer")
	}
	defer func() { _ = r.Body.Close() }()
	stopped := make(chan error, 1)
	go func() { stopped <- h.Shutdown(t.Context()) }()
	text, err := io.ReadAll(r.Body)
	if err != nil || !bytes.HasSuffix(text, []byte("data: [DONE]\n\n")) {
		t.Errorf("the answer was cut: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

func TestStartRefusesWhatCannotWork(t *testing.T) {
	for name, o := range map[string]mockhead.Options{
		"no model":       {},
		"nameless model": {Models: []string{""}},
		"negative speed": {Models: []string{"m"}, Speed: -1},
		"bad interval":   {Models: []string{"m"}, StreamInterval: -1},
		"bad queue":      {Models: []string{"m"}, MaxWaiting: -1},
		"bad address":    {Models: []string{"m"}, Addr: "nowhere"},
	} {
		if h, err := mockhead.Start(t.Context(), o); err == nil {
			h.Close()
			t.Errorf("%s: started", name)
		}
	}
}

// await polls a condition of a running server for up to 20 s.
func await(t *testing.T, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it did not come true within 20 s")
		}
	}
}
