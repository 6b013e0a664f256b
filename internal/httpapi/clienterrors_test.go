package httpapi_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"headway/internal/access"
	"headway/internal/admission"
	"headway/internal/fleet"
	"headway/internal/proxy"
)

// anthropicTypes are the types of errors by their status, as that API has them.
var anthropicTypes = map[int]string{
	401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error",
	500: "api_error", 502: "api_error", 503: "overloaded_error", 504: "timeout_error",
}

// inForm reports what is wrong with an error of the data plane: it has the members of
// its API, and no others.
func inForm(a planeAnswer, status int, anthropic bool) string {
	var e, object map[string]any
	if err := json.Unmarshal(a.body, &e); err != nil || a.Header.Get("Content-Type") != "application/json" {
		return fmt.Sprintf("%d is no object: %s %s", a.StatusCode, a.Header.Get("Content-Type"), a.body)
	}
	object, _ = e["error"].(map[string]any)
	id := a.Header.Get("X-Request-Id")
	message, _ := object["message"].(string)
	members, inner, want := []string{"error"}, []string{"code", "message", "param", "type"}, "server_error"
	switch {
	case anthropic:
		members, inner = []string{"error", "request_id", "type"}, []string{"message", "type"}
		if want = cmp.Or(anthropicTypes[status], "invalid_request_error"); status >= 500 {
			want = cmp.Or(anthropicTypes[status], "api_error")
		}
		if e["type"] != "error" || e["request_id"] != id {
			return fmt.Sprintf("of the type %v and the request %v: %s", e["type"], e["request_id"], a.body)
		}
	case status == 429:
		want = "requests"
	case status < 500:
		want = "invalid_request_error"
	}
	switch {
	case a.StatusCode != status:
		return fmt.Sprintf("%d, want %d: %s", a.StatusCode, status, a.body)
	case id == "" || message == "" || object["type"] != want:
		return fmt.Sprintf("the type is %v, want %s, the request %q: %s", object["type"], want, id, a.body)
	case !slices.Equal(slices.Sorted(maps.Keys(e)), members) || !slices.Equal(slices.Sorted(maps.Keys(object)), inner):
		return fmt.Sprintf("it has other members: %s", a.body)
	}
	return ""
}

// failing are planes in which each request fails in one way.
func failing(t *testing.T) map[string]*plane {
	open := newPlane(t, func(o *proxy.Options) { o.Limits.MaxBody, o.Limits.BodyTime = 2000, 100*time.Millisecond })
	open.start("a")
	open.serves(fleet.Spec{ID: "dead", Endpoint: "http://127.0.0.1:1", ModelTypes: []string{"dead"}, Region: "us"})
	open.apply(`{"default_strategy":"round_robin","aliases":{"away":"not-served"},"caller_may":["region","region_mode"]}`)
	panics := newPlane(t, func(o *proxy.Options) { o.HeadKey = func(string) string { panic("a fault of ours") } })
	panics.start("a")
	closed := newPlane(t)
	closed.start("a")
	limited := newPlane(t, func(o *proxy.Options) {
		a, err := admission.New(admission.Options{Metrics: o.Metrics, Requests: 1})
		if err != nil {
			t.Fatal(err)
		}
		o.Admission = a
	})
	limited.start("a")
	return map[string]*plane{"open": open, "panics": panics, "closed": closed, "limited": limited}
}

// Each way in which a request of /v1 can fail here has the form of its API, over
// both versions of HTTP.
func TestPitfallP23EachErrorHasTheFormOfItsAPI(t *testing.T) {
	planes := failing(t)
	keys := planes["closed"].keysOf()
	for range 2 { // the only request of a minute
		planes["limited"].answer(chatPath, chatBody)
	}
	of := func(model string) string { return strings.Replace(chatBody, `"m"`, `"`+model+`"`, 1) }
	type c struct {
		name, plane, method string
		path                string // behind that of the endpoint
		body                string
		header              []string
		status              int
	}
	cases := []c{
		{"another path", "open", "POST", "/x", chatBody, nil, 404},
		{"a path with a slash more", "open", "POST", "/", chatBody, nil, 404},
		{"dots in the path", "open", "POST", "/../x", chatBody, nil, 404},
		{"GET", "open", "GET", "", "", nil, 405},
		{"PATCH", "open", "PATCH", "", "{}", nil, 405},
		{"a method of its own", "open", "BREW", "", "{}", nil, 405},
		{"no JSON", "open", "POST", "", `{"model":`, nil, 400},
		{"no body", "open", "POST", "", "", nil, 400},
		{"compressed", "open", "POST", "", chatBody, []string{"Content-Encoding", "gzip"}, 415},
		{"too long", "open", "POST", "", `{"x":"` + strings.Repeat("x", 2000) + `"}`, nil, 413},
		{"no model of ours", "open", "POST", "", of("none"), nil, 404},
		{"no head", "open", "POST", "", of("away"), nil, 503},
		{"no such region", "open", "POST", "", chatBody, []string{"x-headway-region", "x", "x-headway-region-mode", "require"}, 400},
		{"no such hint", "open", "POST", "", chatBody, []string{"x-headway-regio", "x"}, 400},
		{"a wrong hint", "open", "POST", "", chatBody, []string{"x-headway-priority", "x"}, 403},
		{"a hint that is kept", "open", "POST", "", chatBody, []string{"x-headway-strategy", "random"}, 403},
		{"a dead head", "open", "POST", "", of("dead"), nil, 502},
		{"another site's page", "open", "POST", "", chatBody, []string{"Origin", "https://evil.example"}, 403},
		{"another Host", "open", "POST", "", chatBody, []string{"Host", "evil.example"}, 421},
		{"a key in the URL", "open", "POST", "?api_key=hw_x", chatBody, nil, 400},
		{"a panic", "panics", "POST", "", chatBody, nil, 500},
		{"no key", "closed", "POST", "", chatBody, nil, 401},
		{"an unknown key", "closed", "POST", "", chatBody, []string{"Authorization", "Bearer hw_unknown"}, 401},
		{"two keys", "closed", "POST", "", chatBody, []string{"Authorization", "Bearer " + keys[access.RoleClient], "X-Api-Key", "other"}, 401},
		{"no Bearer", "closed", "POST", "", chatBody, []string{"Authorization", "Basic eDp4"}, 401},
		{"a key of another role", "closed", "POST", "", chatBody, []string{"Authorization", "Bearer " + keys[access.RoleHead]}, 403},
		{"over the limit", "limited", "POST", "", chatBody, nil, 429},
	}
	for name, p := range planes {
		secure := httptest.NewUnstartedServer(p.server)
		secure.EnableHTTP2 = true
		secure.StartTLS()
		t.Cleanup(secure.Close)
		for version, at := range map[string]struct {
			url    string
			client *http.Client
		}{"HTTP/1.1": {p.url, p.client}, "HTTP/2": {secure.URL, secure.Client()}} {
			for _, c := range cases {
				if c.plane != name {
					continue
				}
				for path, anthropic := range map[string]bool{chatPath: false, "/v1/messages": true} {
					r, err := http.NewRequestWithContext(t.Context(), c.method, at.url, strings.NewReader(c.body))
					if err != nil {
						t.Fatal(err)
					}
					r.URL.Opaque = path + c.path
					for i := 0; i < len(c.header); i += 2 {
						r.Header.Set(c.header[i], c.header[i+1])
					}
					r.Host = r.Header.Get("Host")
					r.Header.Del("Host")
					res, err := at.client.Do(r)
					if err != nil {
						t.Errorf("%s at %s over %s: %v", c.name, path, version, err)
						continue
					}
					b, _ := io.ReadAll(res.Body)
					res.Body.Close()
					a := planeAnswer{res, b, nil}
					if wrong := inForm(a, c.status, anthropic); wrong != "" {
						t.Errorf("%s at %s over %s: %s", c.name, path, version, wrong)
					}
					if wait := a.Header.Get("Retry-After"); (wait != "") != (c.status == 503 || c.status == 429) {
						t.Errorf("%s at %s: Retry-After is %q", c.name, path, wait)
					}
					if c.status == 401 && c.name == "no key" && anthropic != strings.Contains(string(b), "x-api-key: KEY") {
						t.Errorf("%s at %s does not say how keys are sent: %s", c.name, path, b)
					}
				}
			}
		}
	}
}

// What net/http refuses before it is a request has the form of what was asked for, and
// so have bodies that do not come, or not as they are framed.
func TestPitfallP23WhatIsNoRequestIsAnErrorObject(t *testing.T) {
	p := newPlane(t, func(o *proxy.Options) { o.Limits.BodyTime = 50 * time.Millisecond })
	p.start("a")
	own, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- p.server.ServeDataPlane(own) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		cancel()
		_ = p.server.Drain(ctx)
		<-served
	})
	host := " HTTP/1.1\r\nHost: localhost\r\n"
	for _, c := range []struct {
		name, begin, rest string
		status            int
	}{
		{"a line without a name", "POST ", host + "x\r\n\r\n", 400},
		{"a space in a name", "POST ", host + "a b: c\r\n\r\n", 400},
		{"no Host", "POST ", " HTTP/1.1\r\n\r\n", 400},
		{"two lengths", "POST ", host + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
		{"another coding", "POST ", host + "Transfer-Encoding: gzip\r\n\r\n", 501},
		{"another version", "GET ", " HTTP/3.7\r\nHost: localhost\r\n\r\n", 505},
		{"an Expect", "POST ", host + "Expect: 200-ok\r\nContent-Length: 1\r\n\r\n", 417},
		{"a long header", "POST ", host + "X: " + strings.Repeat("x", 70<<10) + "\r\n\r\n", 431},
		{"a body that does not come", "POST ", host + "Content-Length: 100\r\n\r\n{", 408},
		{"a body that is framed wrongly", "POST ", host + "Transfer-Encoding: chunked\r\n\r\nxx\r\n", 400},
	} {
		for path, anthropic := range map[string]bool{chatPath: false, "/v1/messages": true, "/v1/messages?beta=true": true, "/v1": false, "/heads/m/x": false} {
			if path != chatPath && path != "/v1/messages" && strings.HasPrefix(c.name, "a body") {
				continue // it is not read, or on its way to a head
			}
			for _, second := range []bool{false, true} { // after a request of another kind
				before := ""
				if second {
					before = "GET /livez" + host + "\r\n"
				}
				a := wordsOf(t, strings.TrimPrefix(p.url, "http://"), before, c.begin+path+c.rest)
				status := c.status
				if wrong := inForm(a, status, anthropic); wrong != "" {
					t.Errorf("%s at %s, second %t: %s", c.name, path, second, wrong)
				}
			}
		}
		if strings.HasPrefix(c.name, "a body") {
			continue
		}
		if a := wordsOf(t, strings.TrimPrefix(p.url, "http://"), "GET /v1/models"+host+"\r\n", c.begin+"/api/v1/heads"+c.rest); a.Header.Get("Content-Type") != "application/problem+json" || a.StatusCode != c.status {
			t.Errorf("%s at the API: %d %v %s", c.name, a.StatusCode, a.Header, a.body)
		}
		if wrong := inForm(wordsOf(t, own.Addr().String(), "", c.begin+"/elsewhere"+c.rest), c.status, false); wrong != "" {
			t.Errorf("%s at the listener of the data plane: %s", c.name, wrong)
		}
	}
	if wrong := inForm(wordsOf(t, own.Addr().String(), "", "no request at all\r\n\r\n"), 400, false); wrong != "" {
		t.Errorf("no request at the listener of the data plane: %s", wrong)
	}
}

// wordsOf sends a request, if it is not empty, then another, and returns the answer to
// that.
func wordsOf(t *testing.T, addr, before, request string) planeAnswer {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := bufio.NewReader(c)
	for _, text := range []string{before, request} {
		if text == "" {
			continue
		}
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("%.60q: %v", text, err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if text == request {
			return planeAnswer{res, b, nil}
		}
	}
	return planeAnswer{}
}
