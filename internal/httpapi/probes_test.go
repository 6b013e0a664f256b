package httpapi_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"headway/api"
)

// The paths that load balancers and scrapers ask for.
var probes = []string{"/livez", "/readyz", "/metrics"}

// A load balancer names the service as it likes, or not at all.
func TestProbesAnswerAnyHost(t *testing.T) {
	w := newWorld(t)
	addr := w.listen()
	for _, path := range probes {
		for _, host := range []string{"", "10.0.0.7", "10.0.0.7:80", "vip.example", "[2001:db8::1]:80", "a_b", "127.0.0.1"} {
			for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
				if a := w.do(method, path, "", "Host", host); a.status != http.StatusOK {
					t.Errorf("%s %s for %q: %d %s", method, path, host, a.status, a.body)
				}
			}
		}
		for _, request := range []string{
			"GET " + path + " HTTP/1.0\r\n\r\n",
			"HEAD " + path + " HTTP/1.0\r\n\r\n",
			"GET " + path + " HTTP/1.0\r\nHost: vip.example\r\n\r\n",
			"GET " + path + " HTTP/1.1\r\nHost: vip.example\r\nConnection: close\r\n\r\n",
			"OPTIONS " + path + " HTTP/1.0\r\n\r\n",
			"GET " + path + " HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n",
		} {
			conn := dial(t, addr)
			if _, err := io.WriteString(conn, request); err != nil {
				t.Fatal(err)
			}
			if got := cut(t, conn); !strings.HasPrefix(got, "HTTP/1.0 200 ") && !strings.HasPrefix(got, "HTTP/1.1 200 ") {
				t.Errorf("%q: %.200q", request, got)
			}
		}
		// A browser that was tricked into asking, and other paths and methods, are
		// refused as before.
		w.problem(http.StatusMisdirectedRequest, api.CodeForeignHost, w.do("GET", path, "", "Host", "evil.example", "Accept-Language", "en"))
		w.problem(http.StatusForbidden, api.CodeCrossOrigin, w.do("GET", path, "", "Host", "vip.example", "Origin", "https://evil.example"))
		w.problem(http.StatusMisdirectedRequest, api.CodeForeignHost, w.do("OPTIONS", path, "", "Host", "evil.example", "Accept-Language", "en"))
		w.problem(http.StatusForbidden, api.CodeCrossOrigin, w.do("OPTIONS", path, "", "Origin", "https://evil.example", "Access-Control-Request-Method", "GET"))
		w.problem(http.StatusMisdirectedRequest, api.CodeForeignHost, w.do("POST", path, "", "Host", "vip.example"))
		if got := w.must(http.StatusMethodNotAllowed, "POST", path, "").header.Get("Allow"); got != "GET, HEAD, OPTIONS" {
			t.Errorf("%s allows %s", path, got)
		}
		if a := w.do("OPTIONS", path, ""); !bytes.Equal(a.body, w.do("GET", path, "").body) && path != "/metrics" {
			t.Errorf("OPTIONS %s: %s; want what GET says", path, a.body)
		}
	}
	if !strings.Contains(w.scrape(), `http_requests_total{endpoint="/readyz",method="OPTIONS",status="200"}`) {
		t.Error("probes by OPTIONS are not counted as such")
	}
	// An admitted Host of a probe is admitted for probes only.
	for _, path := range []string{"/api/v1/heads", "/", "/openapi.json", "/console/"} {
		for _, method := range []string{"GET", "OPTIONS"} {
			w.must(http.StatusOK, method, "/livez", "", "Host", "vip.example")
			w.problem(http.StatusMisdirectedRequest, api.CodeForeignHost, w.do(method, path, "", "Host", "vip.example"))
		}
	}
}

// HAProxy asks without a Host unless it has one, and by HTTP/1.0.
func TestHAProxyFindsTheServiceHealthy(t *testing.T) {
	haproxy, err := exec.LookPath("haproxy")
	if err != nil {
		t.Skip("haproxy is missing; get it with: apt-get install -y --no-install-recommends haproxy")
	}
	w := newWorld(t)
	addr := w.listen()
	dir := t.TempDir()
	front := filepath.Join(dir, "front.sock")
	var servers strings.Builder
	// One backend for each probe and method, so that one that fails shows. Without
	// a method HAProxy asks by OPTIONS.
	var checks []string
	for _, path := range probes {
		checks = append(checks, "GET "+path, path)
	}
	for i, check := range checks {
		fmt.Fprintf(&servers, "frontend f%d\n  bind unix@%s/%d.sock\n  default_backend b%d\nbackend b%d\n  option httpchk %s\n  server headway %s check inter 100ms rise 1 fall 1\n",
			i, dir, i, i, i, check, addr)
	}
	config := filepath.Join(dir, "haproxy.cfg")
	text := "global\n  stats socket " + dir + "/stats.sock\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 10s\n  timeout server 10s\n  timeout check 10s\n" +
		"listen front\n  bind unix@" + front + "\n  option httpchk GET /readyz\n  server headway " + addr + " check inter 100ms rise 1 fall 1\n" + servers.String()
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var said logBuffer
	cmd := exec.CommandContext(t.Context(), haproxy, "-db", "-f", config)
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = patience
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	up := func() string {
		c, err := net.Dial("unix", dir+"/stats.sock")
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(c, "show stat\n")
		text, _ := io.ReadAll(c)
		checked := 0
		for line := range strings.SplitSeq(string(text), "\n") {
			if f := strings.Split(line, ","); len(f) > 40 && f[1] == "headway" {
				if f[17] != "UP" || f[36] != "L7OK" && f[36] != "* L7OK" {
					return line
				}
				checked++
			}
		}
		if checked != len(checks)+1 {
			return string(text)
		}
		return ""
	}
	deadline, again := time.Now().Add(patience), time.NewTicker(50*time.Millisecond)
	defer again.Stop()
	for state := up(); state != ""; state = up() {
		if time.Now().After(deadline) {
			t.Fatalf("not healthy: %s\n%s", state, said.String())
		}
		<-again.C
	}
	conn, err := net.Dial("unix", front)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if r, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || r.StatusCode != http.StatusOK {
		t.Errorf("through it: %+v, %v", r, err)
	}
}

// The root leads a person to the console, and a program to the routes.
func TestTheRoot(t *testing.T) {
	const html = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	bare, whole := newWorld(t), newWorld(t, whole)
	a := whole.must(http.StatusFound, "GET", "/", "", "Accept", html)
	if got := a.header.Get("Location"); got != "console/" {
		t.Errorf("a browser is led to %q", got)
	}
	for _, c := range []struct {
		w       *world
		accept  string
		console string
	}{{bare, html, ""}, {whole, "*/*", "console/"}, {whole, "application/json", "console/"}, {whole, "", "console/"}} {
		index := into[api.Index](t, c.w.must(http.StatusOK, "GET", "/", "", "Accept", c.accept))
		if index.Name != "headway" || index.Version == "" || index.OpenAPI != "openapi.json" || index.Console != c.console || len(index.Routes) < 30 {
			t.Errorf("for %q: %+v", c.accept, index)
		}
	}
}
