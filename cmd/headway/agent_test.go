package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"headway/api"
	"headway/internal/mockhead"
)

// An engine that knows nothing of Headway is a head while headway agent runs,
// over a restart of the service, and none after it.
func TestAnUnmodifiedEngineBecomesAHead(t *testing.T) {
	var running atomic.Int64
	running.Store(2)
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer engine-s3cret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch r.URL.Path {
		case "/health":
		case "/v1/models":
			fmt.Fprint(w, `{"object":"list","data":[{"id":"llama"},{"id":"sql-lora","parent":"llama"}]}`)
		case "/metrics":
			fmt.Fprintf(w, "vllm:num_requests_running{engine=\"0\"} %d\nvllm:num_requests_waiting{engine=\"0\"} 1\nvllm:kv_cache_usage_perc{engine=\"0\"} 0.5\n", running.Load())
		default:
			http.NotFound(w, r)
		}
	}))
	defer engine.Close()
	dir := t.TempDir()
	p := serve(t, dir)
	key := filepath.Join(dir, "engine.key")
	if err := os.WriteFile(key, []byte("engine-s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var stdout, stderr bytes.Buffer
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{
			"agent", "--engine", "vllm", "--url", engine.URL, "--region", "eu-west", "--engine-key-file", key,
			"--interval", "100ms", "--data-dir", dir,
		}, &stdout, &stderr)
	}()
	id := strings.TrimPrefix(engine.URL, "http://")
	routable := func(p *process) func() error {
		return func() error {
			var h api.Head
			status, body, err := p.do(http.MethodGet, "/api/v1/heads/"+id, "")
			if err != nil || status != http.StatusOK || json.Unmarshal(body, &h) != nil || !h.Routable || h.Load == nil || h.Load.InFlight == nil { // the first report follows the registration
				return fmt.Errorf("head %s: %d %s %w", id, status, body, errors.Join(err, errors.ErrUnsupported))
			}
			if h.Engine != "vllm" || h.Region != "eu-west" || h.Endpoint != engine.URL || !slices.Equal(h.ModelTypes, []string{"llama", "sql-lora"}) ||
				*h.Load.InFlight != 2 || *h.Load.Queued != 1 || *h.Load.KVCacheUsage != 0.5 {
				t.Errorf("head %s", body)
			}
			return nil
		}
	}
	eventually(t, time.Minute, "the head is there", routable(p))
	p.must(http.StatusOK, http.MethodPost, "/api/v1/decisions", `{"model_type":"sql-lora","region":"eu-west"}`)
	p.stop()
	p = serve(t, dir)
	eventually(t, time.Minute, "the head is there again", routable(p))
	running.Store(0)
	stop()
	eventually(t, time.Minute, "the agent still waits for a request in its queue", func() error {
		_, body, err := p.do(http.MethodGet, "/api/v1/heads/"+id, "")
		if err != nil || !strings.Contains(string(body), `"draining"`) {
			return fmt.Errorf("%s %w", body, errors.Join(err, errors.ErrUnsupported))
		}
		return nil
	})
	engine.Close() // there is nothing to wait for
	if code := <-done; code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if status, body, err := p.do(http.MethodGet, "/api/v1/heads/"+id, ""); err != nil || status != http.StatusNotFound {
		t.Errorf("after the agent: %d %s %v", status, body, err)
	}
	if stdout.Len() > 0 || strings.Contains(stderr.String(), "s3cret") {
		t.Errorf("printed %s\n%s", &stdout, &stderr)
	}
	p.stop()
}

// One agent keeps several engines registered, and says of each that it did.
func TestOneAgentOfSeveralEngines(t *testing.T) {
	dir := t.TempDir()
	p := serve(t, dir)
	args := []string{"agent", "--engine", "vllm", "--data-dir", dir}
	var ids []string
	for range 2 {
		head, err := mockhead.Start(t.Context(), mockhead.Options{Models: []string{"llama"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(head.Close)
		args = append(args, "--url", head.URL())
		ids = append(ids, strings.TrimPrefix(head.URL(), "http://"))
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var stdout, stderr bytes.Buffer
	done := make(chan int, 1)
	go func() { done <- run(ctx, args, &stdout, &stderr) }()
	eventually(t, time.Minute, "both are there", func() error {
		_, list, errs := here(t, "heads", "list", "-o", "wide", "--data-dir", dir)
		for _, id := range ids {
			if !regexp.MustCompile(`(?m)^` + id + ` .* active .* http://` + id + ` +vllm +agent `).MatchString(list) {
				return fmt.Errorf("%s%s %w", list, errs, errors.ErrUnsupported)
			}
		}
		return nil
	})
	stop()
	if code := <-done; code != exitOK {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
	for _, id := range ids {
		if status, _, err := p.do(http.MethodGet, "/api/v1/heads/"+id, ""); err != nil || status != http.StatusNotFound {
			t.Errorf("%s after the agent: %d %v", id, status, err)
		}
	}
	p.stop()
}

// Flags that no engine can be registered with are wrong usage.
func TestWrongUseOfTheAgent(t *testing.T) {
	ok := []string{"agent", "--engine", "vllm", "--url", "http://127.0.0.1:1"}
	for _, more := range [][]string{
		{"--engine", "gpt"},
		{"--url", "127.0.0.1:1"},
		{"--url", "http://127.0.0.1:1/v1"},
		{"--url", "http://169.254.169.254"},
		{"--interval", "1ms"},
		{"--drain-timeout", "0s"},
		{"--id", "a b"},
		{"--region", "a/b"},
		{"--model-type", "a b"},
		{"--url", "http://127.0.0.1:1"},
		{"--url", "http://127.0.0.1:2", "--id", "a"},
		{"--url", "http://127.0.0.1:2", "--endpoint", "http://a:1"},
		{"--metrics-url", "x"},
		{"--endpoint", "http://u:p@a"},
		{"--weight", "0"},
		{"--max-in-flight", "0"},
		{"--label", "a\n=b"},
	} {
		if code, _, stderr := here(t, append(ok, more...)...); code != exitUsage {
			t.Errorf("%q: exit code %d, %s", more, code, stderr)
		}
	}
	for _, args := range [][]string{{"agent"}, {"agent", "--engine", "vllm"}, {"agent", "--url", "http://127.0.0.1:1"}} {
		if code, _, stderr := here(t, args...); code != exitUsage {
			t.Errorf("%q: exit code %d, %s", args, code, stderr)
		}
	}
	t.Setenv("HEADWAY_AGENT_ENGINE_KEY", "two words")
	if code, _, stderr := here(t, ok...); code == exitOK || strings.Contains(stderr, "two words") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}
