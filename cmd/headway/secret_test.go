package main

import (
	"encoding/base64"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hidden is in each value that nothing must repeat.
const hidden = "hunter2"

// No message of a command repeats a secret, at any place of its arguments.
func TestNoCommandRepeatsASecret(t *testing.T) {
	const url = "redis://user:" + hidden + "@localhost:1"
	file := filepath.Join(t.TempDir(), "headway.yaml")
	if err := os.WriteFile(file, []byte("redis:\n  url: "+url+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"config", "print", "--redis-url", url},
		{"config", "print", "--config", file},
		{"config", "print", "--monitor-alert-webhooks", "htp://hooks.example.com/" + hidden},
		{"serve", "--redis-url", url},
		{"serve", "-redis-url=" + url},
		{"serve", "--redis-uurl=" + url},
		{"serve", url},
		{"serve", "--queue-url", "nats://a:" + hidden + "@localhost:1"},
		{"serve", "--listen", url},
		{"serve", "--oidc-issuer", "https://a:" + hidden + "@localhost"},
		{"doctor", "--redis-url", url, "--data-dir", t.TempDir()},
		{"doctor", "--config", file},
		{url},
		{"--server", url},
		{"status", "--server", "http://a:" + hidden + "@127.0.0.1:1"},
		{"status", "--server", url},
		{"heads", "list", "--server", "http://a:" + hidden + "@127.0.0.1:1"},
	} {
		code, stdout, stderr := here(t, args...)
		if code == exitOK || strings.Contains(stdout+stderr, hidden) {
			t.Errorf("%v: %d\n%s%s", args, code, stdout, stderr)
		}
	}
	code, stdout, _ := here(t, "config", "print", "--monitor-alert-webhooks", "https://hooks.example.com/"+hidden, "--redis-url", "redis://"+hidden+"@redis.internal:6379/0")
	if code != exitOK || strings.Contains(stdout, hidden) || !strings.Contains(stdout, "redis.internal:6379/0") || !strings.Contains(stdout, "https://hooks.example.com/") {
		t.Errorf("%d: %s", code, stdout)
	}
}

// A service with a secret in each setting that may hold one repeats it nowhere:
// neither in its log nor in its answers, metrics and trail, though nothing that
// it reaches out to is there.
func TestAServiceRepeatsNoSecretOfItsSettings(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret := "whsec_" + base64.StdEncoding.EncodeToString([]byte(hidden+hidden+hidden+hidden))
	write("secret", secret)
	hooks := write("hooks.yaml", "endpoints: [{name: pager, url: 'http://127.0.0.1:1/"+hidden+"?t="+hidden+"', secret_file: secret}]")
	p := serve(t, filepath.Join(dir, "data"), "--log-level", "debug",
		"--redis-mode", "external", "--redis-url", "redis://"+hidden+"@127.0.0.1:1/0", "--redis-password-file", write("password", hidden),
		"--queue-mode", "external", "--queue-url", "nats://"+hidden+"@127.0.0.1:1", "--queue-token-file", write("token", hidden),
		"--monitor-interval", "1s", "--monitor-alertmanagers", "http://"+hidden+"@127.0.0.1:1/?t="+hidden, "--monitor-alert-webhooks", "http://127.0.0.1:1/"+hidden+"?t="+hidden,
		"--oidc-issuer", "http://"+hidden+"@127.0.0.1:1/x?t="+hidden, "--oidc-audience", "headway", "--webhooks-file", hooks,
		"--tracing-otlp-endpoint", "http://"+hidden+"@127.0.0.1:1/"+hidden+"?t="+hidden, "--tracing-otlp-headers-file", write("otlp", "Authorization: Bearer "+hidden),
	)
	said := ""
	ask := func(path, token string) string {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		a, err := p.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		text := new(strings.Builder)
		_ = a.Header.Write(text)
		_, _ = io.Copy(text, a.Body)
		return text.String()
	}
	local, err := os.ReadFile(filepath.Join(dir, "data", "local.token"))
	if err != nil {
		t.Fatal(err)
	}
	token := strings.TrimSpace(string(local))
	said += ask("/api/v1/heads", "eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.e30.AAAA")
	// Everything has failed at least once by then.
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for end := time.Now().Add(time.Minute); ; <-again.C {
		page := ask("/metrics", "")
		failed := 0
		for _, service := range []string{"redis", "alertmanager", "webhook"} {
			for line := range strings.SplitSeq(page, "\n") {
				if strings.HasPrefix(line, "external_service_calls_total{") && strings.Contains(line, `"`+service+`"`) && strings.Contains(line, `"error"`) && !strings.HasSuffix(line, " 0") {
					failed++
					break
				}
			}
		}
		if failed == 3 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("only %d of the services were tried:\n%s", failed, page)
		}
	}
	for _, path := range []string{"/", "/livez", "/readyz", "/metrics", "/openapi.json", "/api/v1/audit", "/api/v1/policy", "/prometheus/api/v1/alerts", "/prometheus/api/v1/rules", "/prometheus/api/v1/status/config", "/prometheus/api/v1/alertmanagers"} {
		said += ask(path, token)
	}
	for _, args := range [][]string{{"status"}, {"doctor"}, {"audit", "search"}} {
		_, stdout, stderr := here(t, append(args, "--data-dir", filepath.Join(dir, "data"))...)
		said += stdout + stderr
	}
	p.signal(syscall.SIGTERM)
	for line := range p.lines {
		said += line + "\n"
	}
	trail, err := os.ReadFile(filepath.Join(dir, "data", "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(said + string(trail)) {
		if strings.Contains(line, hidden) || strings.Contains(line, secret[6:]) {
			t.Errorf("%.1000s", line)
		}
	}
	if !strings.Contains(string(trail), "redis.url") {
		t.Error("the trail does not have the settings")
	}
}
