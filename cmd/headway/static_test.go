package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"headway/internal/mockhead"
)

// Engines that the configuration names are heads; SIGHUP reads the list again,
// and a faulty one changes nothing.
func TestStaticHeadsFollowTheConfiguration(t *testing.T) {
	engine := func(model string) *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/health":
			case "/v1/models":
				fmt.Fprintf(w, `{"data":[{"id":%q}]}`, model)
			case "/metrics":
				fmt.Fprint(w, "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n")
			}
		}))
		t.Cleanup(s.Close)
		return s
	}
	one, two := engine("m1"), engine("m2")
	dir := t.TempDir()
	file := filepath.Join(dir, "headway.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("heads: [{endpoint: '" + one.URL + "', engine: vllm, id: one, region: eu}]\n")
	p := serve(t, dir, "--config", file, "--log-level", "info") // which the file does not change
	has := p.has
	has("one", `"routable":true`)
	write("log: {level: debug}\nheads:\n  max: 100\n  static:\n  - {endpoint: '" + two.URL + "', engine: vllm, id: two, region: us, model_types: [mine], max_in_flight: 4, labels: {rack: r1}}\n")
	p.signal(syscall.SIGHUP)
	has("two", `"mine"`)
	has("one", "")
	p.logs("reloaded", "policy_revision=0", "heads.listed=1 heads.added=1 heads.removed=1 heads.changed=0", "discovery.listed=0", "waits_for_start=heads.max")
	write("heads: [{endpoint: nowhere, engine: gpt}, {endpoint: 'http://a:1', engine: vllm, key_file: /none, region: a/b}, {endpoint: 'http://a:1', engine: tgi}]\n")
	p.signal(syscall.SIGHUP)
	faults := []string{"heads.0.endpoint", "heads.0.engine", "heads.1.key_file", "heads.1.region", "heads.2.id"}
	p.logs("reload failed", faults...)
	has("two", `"routable":true`)
	code, _, stderr := here(t, "serve", "--config", file, "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0", "--log-level", "loud")
	for _, want := range append(faults, "log.level (flag --log-level)", "configuration: 6 faults", file+":1)") {
		if code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("exit code %d, no %s in %s", code, want, stderr)
		}
	}
	if code, _, stderr := here(t, "config", "print", "--config", file); code != exitUsage || strings.Contains(stderr, "key_file") || !strings.Contains(stderr, "4 faults") {
		t.Errorf("a print, which reads no key: exit code %d, %s", code, stderr)
	}
	write("heads: [{endpoint: 'http://a:1', engine: vllm, regoin: eu}, 5]\n")
	if code, _, stderr := here(t, "config", "print", "--config", file); code != exitUsage || !strings.Contains(stderr, "heads.0.regoin") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
	write("heads: [{endpoint: 'http://a:1', engine: vllm, labels: {a: b}}]\n")
	_, printed, _ := here(t, "config", "print", "--config", file)
	write(printed)
	if _, again, stderr := here(t, "config", "print", "--config", file); stderr != "" || !strings.Contains(again, `static: [{"endpoint":"http://a:1","engine":"vllm","labels":{"a":"b"}}]  # `+file+":") {
		t.Errorf("printed %s%s", again, stderr)
	}
	p.stop()
}

// A head that left the list between two starts is removed at the second one. One that
// something else registered stays.
func TestAHeadThatLeftTheListBetweenTwoStarts(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "headway.yaml")
	var list []string
	for _, id := range []string{"one", "two"} {
		head, err := mockhead.Start(t.Context(), mockhead.Options{Models: []string{"llama"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(head.Close)
		list = append(list, "- {endpoint: '"+head.URL()+"', engine: vllm, id: "+id+"}\n")
	}
	listed := func(heads ...string) {
		if err := os.WriteFile(file, []byte("heads:\n"+strings.Join(heads, "")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	listed(list...)
	p := serve(t, dir, "--config", file)
	for _, id := range []string{"one", "two"} {
		p.has(id, `"routable":true`)
	}
	for id, source := range map[string]string{"agents": "agent", "own": "mine"} {
		body := `{"id":"` + id + `","endpoint":"http://192.0.2.1:8000","model_types":["llama"],"region":"eu","labels":{"headway-source":"` + source + `"}}`
		if status, answer, err := p.do(http.MethodPost, "/api/v1/heads", body); status != http.StatusCreated {
			t.Fatalf("%d %s %v", status, answer, err)
		}
	}
	p.stop()

	listed(list[0])
	p = serve(t, dir, "--config", file)
	p.has("two", "")
	p.logs("lists of an earlier start", "heads.removed=1")
	p.has("one", `"routable":true`)
	p.has("agents", `"headway-source":"agent"`)
	p.has("own", `"headway-source":"mine"`)
	p.stop()
}

// has waits until a head has the text in its description; "": until there is no such head.
func (p *process) has(id, text string) {
	p.Helper()
	eventually(p, time.Minute, id+" "+text, func() error {
		status, body, err := p.do(http.MethodGet, "/api/v1/heads/"+id, "")
		if text == "" && status == http.StatusNotFound || text != "" && status == http.StatusOK && strings.Contains(string(body), text) {
			return nil
		}
		return fmt.Errorf("%d %s %w", status, body, errors.Join(err, errors.ErrUnsupported))
	})
}

// logs waits for a line of the log with the text, and reports what it lacks.
func (p *process) logs(text string, want ...string) {
	p.Helper()
	for line := range p.lines {
		if !strings.Contains(line, text) {
			continue
		}
		for _, w := range want {
			if !strings.Contains(line, w) {
				p.Errorf("no %s in %s", w, line)
			}
		}
		return
	}
	p.Errorf("the log has ended without a line with %s", text)
}

// A head of the configuration behind TLS and a key is probed and sent requests with
// them: the key of its key_file, and the authority of proxy.ca_file. headway agent
// has both as flags.
func TestAStaticHeadWithAKeyBehindTLS(t *testing.T) {
	var faults atomic.Int64
	engine := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer engine-s3cret" {
			faults.Add(1)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/v1/models":
			fmt.Fprint(w, `{"data":[{"id":"m"}]}`)
		case "/v1/chat/completions":
			fmt.Fprint(w, `{"object":"chat.completion","model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}`)
		}
	}))
	defer engine.Close()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca := file("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: engine.Certificate().Raw})))
	key := file("engine.key", "engine-s3cret\n")
	chat := func(p *process) {
		t.Helper()
		eventually(t, time.Minute, "the head answers", func() error {
			status, body, err := p.do(http.MethodPost, "/v1/chat/completions", `{"model":"m","messages":[]}`)
			if err != nil || status != http.StatusOK {
				return fmt.Errorf("%d %s %w", status, body, errors.Join(err, errors.ErrUnsupported))
			}
			return nil
		})
	}
	p := serve(t, dir, "--config", file("headway.yaml", "proxy: {ca_file: "+ca+"}\nheads: [{endpoint: '"+engine.URL+"', engine: openai, key_file: "+key+"}]\n"))
	chat(p)
	p.stop()

	dir = t.TempDir()
	p = serve(t, dir, "--proxy-ca-file", ca, "--proxy-head-keys", engine.URL+"="+key)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var stdout, stderr bytes.Buffer
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"agent", "--engine", "openai", "--url", engine.URL, "--engine-ca-file", ca, "--engine-key-file", key, "--drain-timeout", "1ms", "--data-dir", dir}, &stdout, &stderr)
	}()
	chat(p)
	stop()
	if code := <-done; code != exitOK {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
	p.stop()
	if n := faults.Load(); n > 0 {
		t.Errorf("%d requests without the key", n)
	}
}
