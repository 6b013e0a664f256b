package app_test

import (
	"bytes"
	"encoding/base64"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"headway/internal/app"
	"headway/internal/config"
	"headway/internal/freeport"
)

// calls are those that external_service_calls_total has for a service.
func calls(t *testing.T, url, service string) (success, failed float64) {
	t.Helper()
	for _, m := range scrape(t, url)["external_service_calls_total"].GetMetric() {
		labels := map[string]string{}
		for _, l := range m.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		switch {
		case labels["service"] != service:
		case labels["status"] == "success":
			success = m.GetCounter().GetValue()
		default:
			failed = m.GetCounter().GetValue()
		}
	}
	return success, failed
}

// token is a token whose signature no key has made, and which no key is known
// for.
func token() string {
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"ES256","kid":"1"}`)) + "." + part([]byte(`{"sub":"a"}`)) + "." + part(bytes.Repeat([]byte{1}, 64))
}

// What is asked of the issuer and of an external message queue is counted,
// whether it succeeds or not.
func TestCallsThatLeaveTheProcessAreCounted(t *testing.T) {
	t.Run("oidc", func(t *testing.T) {
		var issuer *httptest.Server
		issuer = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/.well-known/openid-configuration" {
				http.Error(w, "away", http.StatusServiceUnavailable)
				return
			}
			_, _ = w.Write([]byte(`{"issuer":"` + issuer.URL + `","jwks_uri":"` + issuer.URL + `/keys"}`))
		}))
		defer issuer.Close()
		url, stop := run(t, func(c *config.Config) {
			c.Access.OIDC.Issuer, c.Access.OIDC.Audience = issuer.URL, "headway"
		})
		defer func() { done(t, stop()) }()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/api/v1/heads", http.NoBody)
		done(t, err)
		r.Header.Set("Authorization", "Bearer "+token())
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		answer, err := client.Do(r)
		done(t, err)
		_ = answer.Body.Close()
		if success, failed := calls(t, url, "oidc"); success != 1 || failed != 1 {
			t.Errorf("counted %v successes and %v errors, want discovery and keys", success, failed)
		}
	})
	t.Run("redis", func(t *testing.T) {
		url, stop := run(t, func(c *config.Config) {
			c.Redis.Mode, c.Redis.URL = "external", "redis://"+freeport.Address(t)
		})
		defer func() { done(t, stop()) }()
		eventually(t, "a failed call", func() bool { _, failed := calls(t, url, "redis"); return failed > 0 })
	})
	t.Run("nats", func(t *testing.T) {
		url, stop := run(t, func(c *config.Config) {
			c.Queue.Mode, c.Queue.URL = "external", "nats://"+freeport.Address(t)
		})
		defer func() { done(t, stop()) }()
		eventually(t, "a failed connection", func() bool { _, failed := calls(t, url, "nats"); return failed > 0 })
	})
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); <-time.After(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("gave up waiting for %s", what)
		}
	}
}

func done(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// The servers of the message queue and of Redis, the receivers of alerts and the
// authority of certificates may be anywhere, but no server
// of that kind has a link-local or a metadata address, in any
// form: neither in the setting nor where a server leads on to.
func TestServersThatMustNotBeCalled(t *testing.T) {
	for _, host := range []string{"169.254.169.254", "[::ffff:169.254.169.254]", "[::a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]", "[fe80::1]", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "metadata.google.internal", "0.0.0.0"} {
		for setting, change := range map[string]func(*config.Config){
			"queue.url": func(c *config.Config) {
				c.Redis.Mode, c.Queue.Mode, c.Queue.URL = "off", "external", "nats://127.0.0.1:1, nats://"+host+":4222"
			},
			"redis.url": func(c *config.Config) {
				c.Queue.Mode, c.Redis.Mode, c.Redis.URL = "off", "external", "redis://"+host+":6379"
			},
			"monitor.alertmanagers": func(c *config.Config) {
				c.Monitor.Alertmanagers = []string{"http://127.0.0.1:1", "http://" + host + ":9093"}
			},
			"monitor.alert_webhooks": func(c *config.Config) {
				c.Monitor.AlertWebhooks = []string{"http://127.0.0.1:1", "https://" + host + "/alerts"}
			},
			"tls.acme_directory": func(c *config.Config) {
				c.TLS.ACMEHosts, c.TLS.ACMEDirectory = []string{"a.example"}, "https://"+host+"/directory"
			},
		} {
			c := defaults(t)
			c.Listen, c.DataDir, c.Audit.File = "127.0.0.1:0", filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "audit.log")
			change(&c)
			if _, err := app.New(t.Context(), app.Options{Config: c, Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), setting) {
				t.Errorf("%s with %s: %v", setting, host, err)
			}
		}
	}
}
