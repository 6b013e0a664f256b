package main

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// A head behind TLS and a key, reached by the data plane's own listener while the
// environment names a proxy: the head sees its own name and its own key, and neither
// the caller, the log nor a file of the service has the key.
func TestAHeadWithAKeyBehindTLS(t *testing.T) {
	const key, prompt = "key-of-the-engine-0123456789", "what no other reads"
	var mu sync.Mutex
	var hosts, names, authorizations []string
	engine := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		mu.Lock()
		defer mu.Unlock()
		hosts, authorizations = append(hosts, r.Host), append(authorizations, strings.Join(r.Header["Authorization"], "|"))
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Echo", r.Header.Get("Authorization"))
		if strings.HasSuffix(r.URL.Path, "/embeddings") {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"error":{"message":"no embeddings for %s"}}`, r.Header.Get("Authorization"))
			return
		}
		fmt.Fprint(w, `{"model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}`)
	}))
	engine.TLS = &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		mu.Lock()
		defer mu.Unlock()
		names = append(names, hello.ServerName)
		return nil, nil //nolint:nilnil // that of the server
	}}
	engine.StartTLS()
	t.Cleanup(engine.Close)
	var proxied atomic.Bool
	recorder := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { proxied.Store(true) }))
	t.Cleanup(recorder.Close)

	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca := file("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: engine.Certificate().Raw})))
	endpoint := engine.URL // by an address, which the certificate of httptest has
	data := filepath.Join(dir, "data")
	cmd := command(t, "serve", "--listen", "127.0.0.1:0", "--data-dir", data, "--redis-mode", "off", "--log-level", "debug",
		"--proxy-listen", "127.0.0.1:0", "--proxy-ca-file", ca, "--proxy-head-keys", endpoint+"="+file("key", key+"\n"))
	cmd.Env = append(cmd.Env, "HTTPS_PROXY="+recorder.URL, "HTTP_PROXY="+recorder.URL, "ALL_PROXY="+recorder.URL, "NO_PROXY=")
	p := start(t, data, cmd)
	var log bytes.Buffer
	own := ""
	for line := range p.lines {
		fmt.Fprintln(&log, line)
		if m := regexp.MustCompile(`msg="the data plane listens" addr=(\S+)`).FindStringSubmatch(line); m != nil {
			own = "http://" + m[1]
			break
		}
	}
	p.must(http.StatusCreated, http.MethodPost, "/api/v1/heads", `{"id":"a","endpoint":"`+endpoint+`","model_types":["m"],"region":"us","status":"active"}`)
	p.must(http.StatusCreated, http.MethodPost, "/api/v1/heads", `{"id":"b","endpoint":"http://127.0.0.1:1","model_types":["other"],"region":"us","status":"active"}`)
	ask := func(base, path, body string) (int, http.Header, string) {
		t.Helper()
		res, err := p.client.Post(base+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res.StatusCode, res.Header, string(b)
	}
	status, header, answer := ask(own, "/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"`+prompt+`"}]}`)
	if status != http.StatusOK || header.Get("X-Echo") != "" || strings.Contains(fmt.Sprint(header), key) {
		t.Errorf("%d %v %s", status, header, answer)
	}
	decision := header.Get("X-Headway-Decision-Id")
	if status, _, answer := ask(own, "/v1/embeddings", `{"model":"m","input":"a"}`); status != http.StatusBadRequest || strings.Contains(answer, key) || !strings.Contains(answer, "***") {
		t.Errorf("an error of the head: %d %s", status, answer)
	}
	if status, _, answer := ask(p.url, "/v1/chat/completions", `{"model":"m"}`); status != http.StatusNotFound || !strings.Contains(answer, "urn:headway:problem") {
		t.Errorf("/v1 at the main listener: %d %s", status, answer)
	}
	for _, path := range []string{"/api/v1/heads", "/metrics", "/readyz", "/"} {
		if res, err := p.client.Get(own + path); err != nil || res.StatusCode != http.StatusNotFound {
			t.Errorf("%s at the listener of the data plane: %v %v", path, res, err)
		} else {
			res.Body.Close()
		}
	}
	mu.Lock()
	host := strings.TrimPrefix(endpoint, "https://")
	if len(hosts) != 2 || hosts[0] != host || authorizations[0] != "Bearer "+key || authorizations[1] != "Bearer "+key {
		t.Errorf("the head saw the hosts %q, names %q, keys %q", hosts, names, authorizations)
	}
	mu.Unlock()
	if proxied.Load() {
		t.Error("the proxy of the environment was used")
	}
	shown := string(p.must(http.StatusOK, http.MethodGet, "/api/v1/decisions/"+decision, "")) +
		string(p.must(http.StatusOK, http.MethodGet, "/api/v1/heads", "")) + string(p.must(http.StatusOK, http.MethodGet, "/metrics", "")) +
		string(p.must(http.StatusOK, http.MethodGet, "/api/v1/state/export", ""))
	p.stop()
	for line := range p.lines {
		fmt.Fprintln(&log, line)
	}
	for what, text := range map[string]string{"the API": shown, "the log": log.String()} {
		if strings.Contains(text, key) || strings.Contains(text, prompt) {
			t.Errorf("%s has the key or the prompt", what)
		}
	}
	err := filepath.WalkDir(data, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte(key)) || bytes.Contains(text, []byte(prompt)) {
			t.Errorf("%s has the key or the prompt", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
