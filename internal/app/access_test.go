package app_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"headway/api"
	"headway/internal/access"
	"headway/internal/app"
	"headway/internal/audit"
	"headway/internal/config"
	"headway/internal/local"
	"headway/internal/pki"
)

var plainly = &http.Client{Timeout: 30 * time.Second}

// private is a configuration in directories of the test.
func private(t *testing.T) config.Config {
	t.Helper()
	c := defaults(t)
	c.Listen, c.DataDir, c.HTTP.LameDuck = "127.0.0.1:0", filepath.Join(t.TempDir(), "data"), time.Millisecond
	c.Audit.File, c.Redis.Mode = filepath.Join(t.TempDir(), "audit.log"), "off"
	return c
}

// serve runs the service until the test ends.
func serve(t *testing.T, c config.Config) *app.App {
	t.Helper()
	a, err := app.New(t.Context(), app.Options{Config: c, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("it stopped with: %v", err)
		}
	})
	return a
}

// announced is what the service tells the command line.
func announced(t *testing.T, c config.Config) (said local.Service, token string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(c.DataDir, local.File))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &said); err != nil {
		t.Fatal(err)
	}
	credential, err := os.ReadFile(said.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	return said, strings.TrimSpace(string(credential))
}

// send asks with a bearer token.
func send(t *testing.T, client *http.Client, status int, method, url, token, body string) []byte {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	r.Close = true
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != status {
		t.Fatalf("%s %s: %d %s; want %d", method, url, resp.StatusCode, answer, status)
	}
	return answer
}

// With the first key the service is closed, and a user who can read its files
// still gets in.
func TestTheFirstKeyClosesTheService(t *testing.T) {
	c := private(t)
	serve(t, c)
	said, token := announced(t, c)
	if info, err := os.Stat(said.TokenFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the local credential: %v, %v; want mode 0600", info.Mode(), err)
	}
	send(t, plainly, 200, "GET", said.URL+"/api/v1/heads", "", "")
	send(t, plainly, 422, "POST", said.URL+"/api/v1/keys", "", `{"name":"me","role":"viewer"}`) // no caller could make another
	var key api.Key
	if err := json.Unmarshal(send(t, plainly, 201, "POST", said.URL+"/api/v1/keys", "", `{"name":"me","role":"admin"}`), &key); err != nil {
		t.Fatal(err)
	}
	send(t, plainly, 401, "GET", said.URL+"/api/v1/heads", "", "")
	send(t, plainly, 200, "GET", said.URL+"/api/v1/heads", key.Secret, "")
	send(t, plainly, 200, "GET", said.URL+"/api/v1/heads", token, "")
	send(t, plainly, 200, "GET", said.URL+"/metrics", "", "") // as prometheus.yml expects
}

// Keys outlast the process; the local credential does not.
func TestKeysOutlastTheProcess(t *testing.T) {
	c := private(t)
	var key api.Key
	var old string
	t.Run("before", func(t *testing.T) {
		serve(t, c)
		said, token := announced(t, c)
		old = token
		if err := json.Unmarshal(send(t, plainly, 201, "POST", said.URL+"/api/v1/keys", "", `{"name":"me","role":"admin"}`), &key); err != nil {
			t.Fatal(err)
		}
	})
	if _, err := os.Stat(filepath.Join(c.DataDir, local.File)); err == nil {
		t.Error("the service is gone and still announced")
	}
	serve(t, c)
	said, _ := announced(t, c)
	send(t, plainly, 200, "GET", said.URL+"/api/v1/heads", key.Secret, "")
	send(t, plainly, 401, "GET", said.URL+"/api/v1/heads", old, "")
	send(t, plainly, 401, "GET", said.URL+"/api/v1/heads", "", "")
}

// Beyond loopback credentials must be asked for, and must not travel in the
// clear.
func TestListeningBeyondLoopback(t *testing.T) {
	c := private(t)
	refused := func(want string) {
		t.Helper()
		c.Listen = "0.0.0.0:0"
		a, err := app.New(t.Context(), app.Options{Config: c, Log: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("%v; want a refusal that says %q", err, want)
		}
		_ = a
	}
	refused("headway keys create")
	c.HTTP.BehindProxy = true
	refused("headway keys create")
	c.HTTP.BehindProxy, c.Listen = false, "127.0.0.1:0"
	t.Run("make a state file without a key", func(t *testing.T) { serve(t, c) })
	trail, err := os.ReadFile(c.Audit.File)
	if err != nil {
		t.Fatal(err)
	}
	refused("headway keys create")
	if now, err := os.ReadFile(c.Audit.File); err != nil || !bytes.Equal(now, trail) {
		t.Errorf("a start that is refused writes: %v", err)
	}
	c.Listen = "127.0.0.1:0"
	t.Run("make a key", func(t *testing.T) {
		serve(t, c)
		said, _ := announced(t, c)
		send(t, plainly, 201, "POST", said.URL+"/api/v1/keys", "", `{"name":"me","role":"admin"}`)
	})
	refused("headway tls init")
	c.HTTP.BehindProxy = true
	t.Run("behind a proxy", func(t *testing.T) {
		serve(t, c)
		said, token := announced(t, c)
		send(t, plainly, 200, "GET", said.URL+"/api/v1/heads", token, "")
	})
	c.HTTP.BehindProxy = false

	dir := t.TempDir()
	authority, _, err := pki.OpenAuthority(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c.TLS.CertFile, c.TLS.KeyFile = filepath.Join(dir, pki.ServerCertFile), filepath.Join(dir, pki.ServerKeyFile)
	if err := authority.Server([]string{"localhost", "127.0.0.1", "gateway.example"}, c.TLS.CertFile, c.TLS.KeyFile); err != nil {
		t.Fatal(err)
	}
	cert, key := filepath.Join(dir, "op.pem"), filepath.Join(dir, "op-key.pem")
	if err := authority.Client("ops-laptop", cert, key); err != nil {
		t.Fatal(err)
	}
	c.Access.Certificates = []string{"ops-*=viewer"}
	c.TLS.ClientCAFile = filepath.Join(dir, pki.CACertFile)
	c.Listen = "0.0.0.0:0"
	serve(t, c)
	said, token := announced(t, c)
	if !strings.HasPrefix(said.URL, "https://127.0.0.1:") || len(said.CertSHA256) != 64 {
		t.Errorf("announced as %+v", said)
	}
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(c.TLS.ClientCAFile)
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		t.Fatal("no authority:", err)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	plain := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	mutual := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}}}
	send(t, plain, 401, "GET", said.URL+"/api/v1/heads", "", "")
	send(t, plain, 200, "GET", said.URL+"/api/v1/heads", token, "")
	send(t, mutual, 200, "GET", said.URL+"/api/v1/heads", "", "")
	send(t, mutual, 403, "POST", said.URL+"/api/v1/decisions", "", `{"model_type":"x"}`)
	for host, status := range map[string]int{"gateway.example:8443": 200, "evil.example": 421} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, said.URL+"/api/v1/heads", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Host, r.Close = host, true
		resp, err := plain.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if _ = resp.Body.Close(); resp.StatusCode != status {
			t.Errorf("as %s: %d; want %d: the names of the certificate are ours", host, resp.StatusCode, status)
		}
	}
	plain.CloseIdleConnections()
	mutual.CloseIdleConnections()
}

// Without a Redis the trail is published all the same; a second service on the
// machine does without.
func TestTheTrailIsPublished(t *testing.T) {
	c := private(t)
	c.Redis.Mode, c.Redis.Listen = "embedded", "127.0.0.1:0"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	taken := l.Addr().String()
	serve(t, c)
	said, _ := announced(t, c)
	send(t, plainly, 201, "POST", said.URL+"/api/v1/keys", "", `{"name":"me","role":"admin"}`)
	for end := time.Now().Add(time.Minute); ; <-time.After(10 * time.Millisecond) {
		text := string(send(t, plainly, 200, "GET", said.URL+"/metrics", "", ""))
		if strings.Contains(text, `headway_audit_ship_lag_records{sink="redis"} 0`) && !strings.Contains(text, `headway_audit_shipped_total{sink="redis"} 0`) {
			if !strings.Contains(text, `external_service_calls_total{service="redis",status="success"} 0`) {
				t.Error("the embedded Redis counts as a service outside of the process")
			}
			break
		}
		if time.Now().After(end) {
			t.Fatalf("not published: %s", text)
		}
	}
	second := private(t)
	second.Redis.Mode, second.Redis.Listen = "embedded", taken
	serve(t, second)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	third := private(t)
	third.Redis.Mode = "external"
	if _, err := app.New(t.Context(), app.Options{Config: third, Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "redis.url") {
		t.Errorf("an external Redis that is not named: %v", err)
	}
}

// The trail is published over the queue without a gap to those who listen.
func TestTheTrailIsPublishedOverTheQueue(t *testing.T) {
	c := private(t)
	c.Queue.Listen = "127.0.0.1:0"
	listen := func(t *testing.T) func() (seq uint64, action string) {
		t.Helper()
		said, token := announced(t, c)
		nc, err := nats.Connect(said.QueueURL, nats.Token(token))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		heard, err := nc.SubscribeSync("headway.v1.audit")
		if err == nil {
			err = nc.Flush()
		}
		if err != nil {
			t.Fatal(err)
		}
		return func() (uint64, string) {
			t.Helper()
			m, err := heard.NextMsg(time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			var r struct {
				Seq    uint64 `json:"seq"`
				Action string `json:"action"`
			}
			if err := json.Unmarshal(m.Data, &r); err != nil {
				t.Fatalf("%s: %v", m.Data, err)
			}
			return r.Seq, r.Action
		}
	}
	var last uint64
	until := func(t *testing.T, next func() (uint64, string), action string) {
		t.Helper()
		for {
			seq, got := next()
			if seq == 0 { // a checkpoint
				continue
			}
			if last > 0 && seq > last+1 {
				t.Errorf("record %d follows %d", seq, last)
			}
			if last = max(last, seq); got == action {
				return
			}
		}
	}
	t.Run("the first time", func(t *testing.T) {
		serve(t, c)
		next := listen(t)
		said, token := announced(t, c)
		send(t, plainly, 201, "POST", said.URL+"/api/v1/keys", token, `{"name":"me","role":"admin"}`)
		until(t, next, "key.create")
		if text := string(send(t, plainly, 200, "GET", said.URL+"/metrics", "", "")); strings.Contains(text, `message_queue_messages_total{queue="audit",status="published"} 0`) ||
			!strings.Contains(text, `headway_audit_shipped_total{sink="nats"}`) {
			t.Error("it is not counted")
		}
	})
	serve(t, c)
	next := listen(t)
	said, token := announced(t, c)
	send(t, plainly, 201, "POST", said.URL+"/api/v1/keys", token, `{"name":"you","role":"viewer"}`)
	last = 0
	until(t, next, "key.create")
}

// Keys that are changed without the service are in its trail, which is signed as
// ever.
func TestTheTrailOfOfflineKeysIsSigned(t *testing.T) {
	public, secret, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	c := private(t)
	c.Audit.SigningKeyFile = filepath.Join(t.TempDir(), "audit.key")
	if err := os.WriteFile(c.Audit.SigningKeyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := app.OfflineKeys(t.Context(), c, func(ctx context.Context, keys *access.Keys) error {
		_, _, err := keys.Create(ctx, &access.Principal{Type: "local", ID: "me", Role: access.RoleAdmin}, access.Request{Name: "me", Role: string(access.RoleAdmin)})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	checkpoint, err := audit.NewestCheckpoint(c.Audit.File)
	if err != nil || checkpoint.Check(public) != nil {
		t.Errorf("%+v, %v; want a signed checkpoint", checkpoint, err)
	}
}
