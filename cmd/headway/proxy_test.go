package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"go.yaml.in/yaml/v3"

	"headway/api"
	"headway/client"
	"headway/internal/freeport"
	"headway/internal/mockhead"
)

const nginxConfig = `
daemon off; pid nginx.pid; error_log stderr; worker_processes 1;
events {}
http {
  access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
  server {
    listen %s;
    location = /alive { return 200; }
    %s
  }
}
`

// manualsLocation is the block of the manual for nginx.
func manualsLocation(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(page), "\n```nginx\n")
	block, _, ended := strings.Cut(block, "\n```\n")
	if !found || !ended {
		t.Fatal("the manual has no block for nginx")
	}
	return block
}

// behindNginx is the service below /headway/ of an nginx, which takes the path
// away or leaves it, and passes the Host header on or its own.
func behindNginx(t *testing.T, strip bool) (url, origin string) {
	t.Helper()
	nginx := debian(t, "nginx", "nginx")
	front := freeport.Address(t)
	_, port, _ := strings.Cut(front, ":")
	origin = "http://gateway.test:" + port
	p := serve(t, t.TempDir(), "--external-url", origin+"/headway", "--lease-base-interval", "60s", "--monitor-interval", "1s")
	location := strings.Replace(manualsLocation(t), "http://127.0.0.1:8080;", p.url+";", 1)
	if strip {
		location = strings.NewReplacer(p.url+";", p.url+"/;", "    proxy_set_header Host $http_host;\n", "").Replace(location)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "nginx.conf"), fmt.Sprintf(nginxConfig, front, location))
	started(t, "http://"+front+"/alive", nginx, "-p", dir, "-c", filepath.Join(dir, "nginx.conf"))
	return "http://" + front + "/headway", origin
}

// Everything works below a path of a proxy: the API, streams, links, the command
// line, and pages of other origins stay out.
func TestTheServiceWorksBehindAProxysPrefix(t *testing.T) {
	for name, strip := range map[string]bool{"the proxy takes the prefix away": true, "the proxy leaves the prefix": false} {
		t.Run(name, func(t *testing.T) {
			url, origin := behindNginx(t, strip)
			ask := func(method, path, body string, headers ...string) (*http.Response, string) {
				t.Helper()
				req, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				req.Host = strings.TrimPrefix(origin, "http://")
				for i := 0; i < len(headers); i += 2 {
					req.Header.Set(headers[i], headers[i+1])
				}
				direct := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
				resp, err := direct.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				text, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				return resp, string(text)
			}
			resp, text := ask("POST", "/api/v1/heads", headBody("a"), "Origin", origin, "Content-Type", "application/json")
			if at := resp.Header.Get("Location"); resp.StatusCode != http.StatusCreated || at != "/headway/api/v1/heads/a" {
				t.Errorf("%s, Location %q: %s", resp.Status, at, text)
			}
			if resp, text = ask("POST", "/api/v1/heads", headBody("b"), "Origin", "http://evil.example"); resp.StatusCode != http.StatusForbidden {
				t.Errorf("another site's page: %s %s", resp.Status, text)
			}
			if resp, _ = ask("GET", "/console", ""); !strings.HasSuffix(resp.Header.Get("Location"), "console/") {
				t.Errorf("%s, Location %q", resp.Status, resp.Header.Get("Location"))
			}
			_, text = ask("GET", "/prometheus/api/v1/rules", "")
			if strings.Contains(text, "localhost:8080/console") || !strings.Contains(text, `"runbook_url":"`+origin+"/headway/console/runbooks#") {
				t.Errorf("rules link elsewhere: %.600s", text)
			}
			if _, text = ask("GET", "/console/dashboards/routing-service.json", ""); strings.Contains(text, "localhost:8080") || !strings.Contains(text, origin+"/headway/console") {
				t.Errorf("a dashboard links elsewhere: %.300s", text)
			}
			streams(t, url, origin)
			longPrompt(t, ask)
			for _, args := range [][]string{{"status"}, {"heads", "list"}, {"decide", "--model-type", "m"}, {"doctor"}} {
				if code, out, errs := here(t, append(args, "--server", url)...); code != exitOK && args[0] != "doctor" || !strings.Contains(out, "a") {
					t.Errorf("headway %s: exit %d: %s%s", args[0], code, out, errs)
				}
			}
			drawn(t, origin)
		})
	}
}

// longPrompt wants the answer to a prompt that is over what nginx takes by itself.
func longPrompt(t *testing.T, ask func(method, path, body string, headers ...string) (*http.Response, string)) {
	t.Helper()
	head, err := mockhead.Start(t.Context(), mockhead.Options{Models: []string{"embed"}, Speed: 1000})
	if err != nil {
		t.Fatal(err)
	}
	defer head.Close()
	if resp, text := ask("POST", "/api/v1/heads", `{"id":"embed-1","endpoint":"`+head.URL()+`","model_type":"embed","region":"us","status":"active"}`); resp.StatusCode != http.StatusCreated {
		t.Fatal(text)
	}
	prompt := strings.Repeat("A long prompt. ", 3<<20/15)
	if resp, text := ask("POST", "/v1/embeddings", `{"model":"embed","input":"`+prompt+`"}`, "Content-Type", "application/json"); resp.StatusCode != http.StatusOK || !strings.Contains(text, `"embedding"`) {
		t.Errorf("a prompt of %d bytes: %s %.300s", len(prompt), resp.Status, text)
	}
}

// streams wants an event by Server-Sent Events and an answer by WebSocket.
func streams(t *testing.T, url, origin string) {
	t.Helper()
	c, err := client.New(url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for n, err := range c.Watch(t.Context(), api.Subscription{Types: []string{"head.*"}}) {
		if err != nil {
			t.Fatal(err)
		}
		if n.Snapshot != nil { // now it is there: what happens comes at once
			state := "draining"
			if _, err := c.PatchHead(t.Context(), "a", api.HeadPatch{AdminState: &state}); err != nil {
				t.Fatal(err)
			}
		}
		if n.Event != nil && n.Event.Head == "a" {
			break
		}
	}
	state := "enabled"
	if _, err := c.PatchHead(t.Context(), "a", api.HeadPatch{AdminState: &state}); err != nil {
		t.Fatal(err)
	}
	conn, _, err := websocket.Dial(t.Context(), url+"/api/v1/ws", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {origin}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	err = conn.Write(t.Context(), websocket.MessageText, []byte(`{"id":7,"type":"ping"}`))
	if err == nil {
		_, _, err = conn.Read(t.Context())
	}
	if err != nil {
		t.Error(err)
	}
	if _, _, err := websocket.Dial(t.Context(), url+"/api/v1/ws", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"http://evil.example"}}}); err == nil {
		t.Error("a WebSocket of another site's page is taken")
	}
}

// drawn has a browser draw the console and its page of runbooks.
func drawn(t *testing.T, origin string) {
	t.Helper()
	chromium := debian(t, "chromium", "chromium")
	for page, wants := range map[string][]string{
		"/console/":             {"Routing Service", "<canvas"},
		"/console/#page=alerts": {"runbooks#", "Watchdog"},
		"/console/alerts":       {"runbooks#", "Watchdog"},
		"/console/runbooks":     {"<h1>Headway</h1>"},
	} {
		eventually(t, patience, "a browser draws "+page, func() error {
			out, err := exec.CommandContext(t.Context(), chromium, "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir="+t.TempDir(),
				"--host-resolver-rules=MAP gateway.test 127.0.0.1", "--virtual-time-budget=8000", "--dump-dom", origin+"/headway"+page).Output()
			if err != nil {
				return err
			}
			for _, want := range wants {
				if !strings.Contains(string(out), want) {
					return fmt.Errorf("no %q in %.2000s", want, out)
				}
			}
			if strings.Contains(string(out), `class="failed"`) {
				return errors.New("it says that something failed")
			}
			return nil
		})
	}
}

// The files are written with the links of the setting, and Prometheus takes them.
func TestTheFilesOfMonitoringLinkToTheService(t *testing.T) {
	s := &shell{TB: t, dir: t.TempDir()}
	out, _ := s.cli(exitOK, "monitoring", "export", "m", "--external-url", "https://gateway.example/headway/", "--target", "10.0.0.1:8080", "--target", "[::1]:9000")
	has(t, out, "files in m, with links to https://gateway.example/headway")
	links := 0
	err := filepath.WalkDir(filepath.Join(s.dir, "m"), func(name string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(name)
		if strings.Contains(string(text), "localhost:8080/console") {
			t.Errorf("%s links to localhost", name)
		}
		links += strings.Count(string(text), "https://gateway.example/headway/console/")
		if filepath.Ext(name) == ".json" && !json.Valid(text) {
			t.Errorf("%s is no JSON", name)
		}
		return err
	})
	if err != nil || links < 40 {
		t.Errorf("%d links, error %v", links, err)
	}
	raw, err := os.ReadFile(filepath.Join(s.dir, "m", "prometheus", "prometheus.yml"))
	var scrape struct {
		Configs []struct {
			Static []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	if err = errors.Join(err, yaml.Unmarshal(raw, &scrape)); err != nil || len(scrape.Configs) != 1 || strings.Join(scrape.Configs[0].Static[0].Targets, " ") != "10.0.0.1:8080 [::1]:9000" {
		t.Errorf("%v: %s", err, raw)
	}
	promtool := debian(t, "promtool", "prometheus")
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "config", filepath.Join(s.dir, "m", "prometheus", "prometheus.yml")).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	for _, args := range [][]string{
		{"m"},
		{"m", "--external-url", "gateway.example"},
		{"m", "--external-url", "https://x/console"},
		{"m", "--external-url", "https://u:p@x"},
		{"m", "--external-url", "https://x/?a=b"},
		{"m", "--external-url", "https://x", "--target", "nonsense"},
		{"m", "--external-url", "https://x/a/../b"},
	} {
		s.cli(exitUsage, append([]string{"monitoring", "export"}, args...)...)
	}
}
