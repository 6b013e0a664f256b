package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/nats-io/nats.go"
)

// happenings are everything that the dashboards show, made to happen again and again
// until the test ends.
type happenings struct {
	*process
	ctx   context.Context
	queue *nats.Conn
	plane *plane
}

// driven is a service in which everything that the dashboards show happens: heads
// come and go, decisions succeed and fail, streams and WebSockets open and close,
// messages and webhooks arrive or do not.
func driven(t *testing.T) *process {
	t.Helper()
	var posts atomic.Int64
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if posts.Add(1)%5 == 0 {
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	t.Cleanup(hook.Close)
	heads := newPlane(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "secret"), "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")
	write(t, filepath.Join(dir, "webhooks.yaml"), "endpoints: [{name: pager, url: "+hook.URL+", secret_file: secret, types: [head.*, policy.*]}]")
	// Where the machine stands still for a moment all heads fall silent at once, and
	// the mass-expiry guard would keep leases from running out for a minute.
	p := serve(t, t.TempDir(), "--lease-base-interval", "200ms", "--lease-guard-min-heads", "1000", "--redis-mode", "embedded", "--redis-listen", "127.0.0.1:0",
		"--queue-listen", "127.0.0.1:0", "--webhooks-file", filepath.Join(dir, "webhooks.yaml"), "--monitor-interval", "1s",
		"--tracing-otlp-endpoint", heads.collector.URL, "--admission-max-wait", "500ms", "--eject-base-time", "1s", "--eject-max-time", "2s")
	queue, err := nats.Connect(p.announced().QueueURL)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	h := &happenings{p, ctx, queue, heads}
	var running sync.WaitGroup
	for _, again := range []func(int){h.heads, h.decisions, h.rejected, h.events, h.sockets, h.messages, h.proxied, h.crowd, h.crowd, h.crowd, h.crowd} {
		running.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				again(i)
				select {
				case <-ctx.Done():
				case <-time.After(50 * time.Millisecond):
				}
			}
		})
	}
	t.Cleanup(func() { stop(); running.Wait(); queue.Close() })
	return p
}

func (h *happenings) heads(i int) {
	head := func(id, model, region string) {
		_, answer, _ := h.do("POST", "/api/v1/heads", fmt.Sprintf(
			`{"id":%q,"endpoint":"http://127.0.0.1:9","model_types":[%q],"region":%q,"status":"active","load":{"in_flight":2,"queued":1}}`, id, model, region))
		var known struct{ Lease struct{ Epoch uint64 } }
		if json.Unmarshal(answer, &known) == nil {
			_, _, _ = h.do("PUT", "/api/v1/heads/"+id+"/status", fmt.Sprintf(`{"epoch":%d,"status":"active","load":{"in_flight":2}}`, known.Lease.Epoch))
		}
	}
	head("a", "llama", "eu")
	head("b", "llama", "us")
	head("c", "qwen", "eu")
	if i%10 == 0 {
		head(fmt.Sprintf("gone-%d", i/10%3), "qwen", "us") // and never reports: its lease runs out
		_, _, _ = h.do("PATCH", "/api/v1/heads/c", fmt.Sprintf(`{"weight":%d}`, 1+i%7))
		h.patchPolicy(fmt.Sprintf(`{"aliases":{"round":"m%d"}}`, i))
	}
}

func (h *happenings) decisions(int) {
	for n, body := range []string{
		`{"model_type":"llama","region":"eu","strategy":"round_robin"}`, `{"model_type":"llama","strategy":"least_loaded"}`,
		`{"model_type":"chat","strategy":"round_robin","input_tokens":5000}`, `{"model_type":"qwen","strategy":"random","session_key":"s"}`, `{"model_type":"llama","region":"asia","region_mode":"require"}`,
		`{"model_type":"unknown"}`, `{"model_type":`,
	} {
		_, answer, _ := h.do("POST", "/api/v1/decisions", body)
		var d struct {
			DecisionID string `json:"decision_id"`
		}
		if json.Unmarshal(answer, &d) == nil && d.DecisionID != "" && n < 3 {
			_, _, _ = h.do("POST", "/api/v1/decisions/"+d.DecisionID+"/outcome", `{"result":"`+[]string{"ok", "error", "cancelled"}[n]+`"}`)
		}
	}
}

// rejected asks too often from one address, with a key that does not exist.
func (h *happenings) rejected(int) {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext,
	}}
	for range 2 {
		req, _ := http.NewRequestWithContext(h.ctx, http.MethodGet, h.url+"/api/v1/heads", nil)
		req.Header.Set("Authorization", "Bearer hw_nobody")
		if res, err := client.Do(req); err == nil {
			_ = res.Body.Close()
		}
	}
}

// patient is a client for streams: it sets no limit to the whole answer.
func (h *happenings) patient() *http.Client { return &http.Client{Transport: h.client.Transport} }

// events listens for a moment.
func (h *happenings) events(int) {
	ctx, leave := context.WithTimeout(h.ctx, 400*time.Millisecond)
	defer leave()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, h.url+"/api/v1/events", nil)
	if res, err := h.patient().Do(req); err == nil {
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
}

// sockets decides over a WebSocket for a moment.
func (h *happenings) sockets(int) {
	ctx, leave := context.WithTimeout(h.ctx, 400*time.Millisecond)
	defer leave()
	conn, _, err := websocket.Dial(ctx, h.url+"/api/v1/ws", nil)
	if err != nil {
		return
	}
	defer func() { _ = conn.CloseNow() }()
	for id := 1; ctx.Err() == nil; id++ {
		_ = conn.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"id":%d,"type":"decide","data":{"model_type":"llama"}}`, id))
		_, _, _ = conn.Read(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// messages asks and tells by the queue, and sends what can never be carried out.
func (h *happenings) messages(int) {
	ctx, late := context.WithTimeout(h.ctx, time.Second)
	defer late()
	_, _ = h.queue.RequestWithContext(ctx, "headway.v1.decisions.request", []byte(`{"model_type":"llama"}`))
	_, _ = h.queue.RequestWithContext(ctx, "headway.v1.decisions.outcome", []byte(`{"decision_id":"x","result":"ok"}`))
}
