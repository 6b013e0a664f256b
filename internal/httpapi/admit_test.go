package httpapi_test

import (
	"bufio"
	"crypto/rand"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"headway/api"
	"headway/internal/httpapi"
)

// send writes a request to a real port as it stands and reads the answer. The
// server must close the connection.
func (w *world) send(addr, request string) *answer {
	w.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		w.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		w.Fatal(err)
	}
	return w.receive(c)
}

// receive reads an answer from a connection that the server then closes.
func (w *world) receive(c net.Conn) *answer {
	w.Helper()
	in := bufio.NewReader(c)
	r, err := http.ReadResponse(in, nil)
	if err != nil {
		w.Fatalf("read the answer: %v", err)
	}
	defer r.Body.Close()
	a := &answer{status: r.StatusCode, header: r.Header, body: drain(r.Body)}
	if _, err := in.ReadByte(); err != io.EOF {
		w.Fatalf("after the answer: %v; want the end of the connection", err)
	}
	return a
}

// allow lets hosts in besides loopback ones.
func allow(hosts ...string) func(*httpapi.Options) {
	return func(o *httpapi.Options) { o.Limits.AllowedHosts = hosts }
}

// A newcomer types curl -d '{…}' without a header; curl then says that the
// body is a form.
func TestCurlNeedsNoHeader(t *testing.T) {
	w := newWorld(t)
	addr := w.listen()
	post := func(path, body string) *answer {
		t.Helper()
		return w.send(addr, "POST "+path+" HTTP/1.1\r\nHost: "+addr+"\r\nUser-Agent: curl/8.14.1\r\nAccept: */*\r\nConnection: close\r\nContent-Length: "+
			strconv.Itoa(len(body))+"\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n"+body)
	}
	if a := post("/api/v1/heads", headBody("a")); a.status != http.StatusCreated {
		t.Fatalf("register: %d %s", a.status, a.body)
	}
	a := post("/api/v1/decisions", `{"model_type":"llama-3.1-8b"}`)
	if a.status != http.StatusOK || into[api.Decision](t, a).Head.ID != "a" {
		t.Fatalf("decide: %d %s", a.status, a.body)
	}
	w.problem(http.StatusBadRequest, api.CodeInvalidJSON, post("/api/v1/decisions", `model_type=llama-3.1-8b`))
}

func TestContentTypes(t *testing.T) {
	w := newWorld(t)
	w.register("a")
	for _, c := range []struct {
		types []string
		ok    bool
	}{
		{[]string{"application/json"}, true},
		{nil, true},
		{[]string{"application/x-www-form-urlencoded"}, true},
		{[]string{"application/json; charset=utf-8"}, true},
		{[]string{`Application/JSON;charset="UTF-8"`}, true},
		{[]string{"application/json;charset=utf-16"}, false},
		{[]string{"application/json;"}, true},
		{[]string{"application/json; charset"}, false},
		{[]string{"application/json", "application/json"}, false},
		{[]string{""}, false},
		{[]string{"text/plain"}, false},
		{[]string{"text/plain;charset=UTF-8"}, false},
		{[]string{"multipart/form-data; boundary=x"}, false},
		{[]string{"application/merge-patch+json"}, false},
		{[]string{"application/jsonp"}, false},
		{[]string{"*/*"}, false},
	} {
		r := newRequest(t, http.MethodPost, "/api/v1/decisions", `{"model_type":"llama-3.1-8b"}`)
		r.Header["Content-Type"] = c.types
		if c.types == nil {
			r.Header.Del("Content-Type")
		}
		a := w.ask(r)
		switch {
		case c.ok && a.status != http.StatusOK:
			t.Errorf("Content-Type %q: %d %s; want a decision", c.types, a.status, a.body)
		case !c.ok:
			w.problem(http.StatusUnsupportedMediaType, api.CodeUnsupportedMedia, a)
		}
	}
	for _, encodings := range [][]string{{"gzip"}, {"deflate"}, {"br"}, {"identity", "gzip"}, {"gzip, identity"}, {"zstd"}, {""}} {
		r := newRequest(t, http.MethodPost, "/api/v1/decisions", `{"model_type":"llama-3.1-8b"}`)
		r.Header["Content-Encoding"] = encodings
		w.problem(http.StatusUnsupportedMediaType, api.CodeUnsupportedMedia, w.ask(r))
	}
	w.must(http.StatusOK, http.MethodPost, "/api/v1/decisions", `{"model_type":"llama-3.1-8b"}`, "Content-Encoding", "Identity")
}

// What a browser sends for another site's page carries Sec-Fetch-Site or
// Origin, for any type of body; it must reach nothing, not even a read.
func TestOtherSitesPagesAreRefused(t *testing.T) {
	w := newWorld(t)
	w.register("a")
	own := "127.0.0.1:8080"
	for _, c := range []struct {
		name    string
		headers []string
		ok      bool
	}{
		{"no browser", nil, true},
		{"our own page", []string{"Origin", "http://" + own, "Sec-Fetch-Site", "same-origin"}, true},
		{"our own page, Origin only", []string{"Origin", "http://" + own}, true},
		{"typed into the address bar", []string{"Sec-Fetch-Site", "none"}, true},
		{"another site", []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, false},
		{"another site, Origin only", []string{"Origin", "https://evil.example"}, false},
		{"another site, Sec-Fetch-Site only", []string{"Sec-Fetch-Site", "cross-site"}, false},
		{"another port of this host", []string{"Origin", "http://127.0.0.1:3000", "Sec-Fetch-Site", "same-site"}, false},
		{"another port of this host, Origin only", []string{"Origin", "http://127.0.0.1:3000"}, false},
		{"another name of this host", []string{"Origin", "http://localhost:8080"}, false},
		{"a sandboxed frame or a file", []string{"Origin", "null"}, false},
		{"an empty Origin", []string{"Origin", ""}, false},
		{"a name that begins with ours", []string{"Origin", "http://127.0.0.1:8080.evil.example"}, false},
		{"ours as user information", []string{"Origin", "http://127.0.0.1:8080@evil.example"}, false},
		{"two Origins", []string{"Origin", "http://" + own, "Origin", "https://evil.example"}, false},
		{"two Sec-Fetch-Sites", []string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Site", "cross-site"}, false},
		{"an unknown Sec-Fetch-Site", []string{"Sec-Fetch-Site", "elsewhere"}, false},
	} {
		for _, contentType := range []string{"application/json", "application/x-www-form-urlencoded", "text/plain", ""} {
			r := newRequest(t, http.MethodPost, "/api/v1/heads", headBody("b"), c.headers...)
			r.Header.Set("Content-Type", contentType)
			if contentType == "" {
				r.Header.Del("Content-Type")
			}
			a := w.ask(r)
			switch {
			case !c.ok:
				w.problem(http.StatusForbidden, api.CodeCrossOrigin, a)
			case contentType == "text/plain":
				w.problem(http.StatusUnsupportedMediaType, api.CodeUnsupportedMedia, a)
			case a.status != http.StatusCreated && a.status != http.StatusOK:
				t.Errorf("%s, %s: %d %s", c.name, contentType, a.status, a.body)
			}
		}
		if !c.ok {
			w.problem(http.StatusForbidden, api.CodeCrossOrigin, w.do(http.MethodGet, "/api/v1/heads", "", c.headers...))
			w.problem(http.StatusForbidden, api.CodeCrossOrigin, w.do(http.MethodOptions, "/api/v1/heads", "", c.headers...))
		}
	}
	if a := w.do(http.MethodGet, "/", ""); a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("an answer lets other sites' pages read it")
	}
}

// A name that was rebound to this machine's address reaches nothing.
func TestForeignHostsAreRefused(t *testing.T) {
	w := newWorld(t, allow("headway.example", "[2001:db8::7]"))
	for host, ok := range map[string]bool{
		"127.0.0.1:8080":         true,
		"127.0.0.1":              true,
		"127.8.7.6:1":            true,
		"localhost":              true,
		"LocalHost:9000":         true, // a tunnel may change the port
		"[::1]:8080":             true,
		"[::1]":                  true,
		"[::ffff:127.0.0.1]:80":  true,
		"headway.example":        true,
		"HEADWAY.example:443":    true,
		"[2001:db8::7]:8080":     true,
		"":                       false,
		"evil.example":           false,
		"localhost.evil.example": false,
		"headway.example.evil":   false,
		"127.0.0.1.evil.example": false,
		"127.0.0.1@evil.example": false,
		"10.0.0.1:8080":          false,
		"0.0.0.0:8080":           false,
		"[2001:db8::8]":          false,
		"2130706433":             false,
	} {
		for range 2 { // the Host that was admitted last is remembered
			a := w.do(http.MethodGet, "/openapi.json", "", "Host", host)
			if ok && a.status != http.StatusOK {
				t.Errorf("Host %q: %d %s", host, a.status, a.body)
			}
			if !ok {
				w.problem(http.StatusMisdirectedRequest, api.CodeForeignHost, a)
			}
		}
	}
	addr := w.listen()
	a := w.send(addr, "GET /openapi.json HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
	w.problem(http.StatusMisdirectedRequest, api.CodeForeignHost, a)
	if a := w.send(addr, "GET /livez HTTP/1.1\r\nHost: "+addr+"\r\nConnection: close\r\n\r\n"); a.status != http.StatusOK {
		t.Errorf("our own address: %d %s", a.status, a.body)
	}
	if !strings.Contains(w.scrape(), `headway_http_requests_refused_total{reason="foreign_host"} `) {
		t.Error("refusals are not counted")
	}
}

// What other rooms serve goes through the same door.
func TestSubtrees(t *testing.T) {
	served := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, name+" "+r.URL.RequestURI()) })
	}
	w := newWorld(t, func(o *httpapi.Options) { o.Monitor, o.Console = served("monitor"), served("console") })
	for target, want := range map[string]string{
		"/prometheus/api/v1/query?query=up": "monitor /prometheus/api/v1/query?query=up",
		"/console":                          "console /console",
		"/console/monitoring":               "console /console/monitoring",
	} {
		if a := w.do("GET", target, ""); a.status != http.StatusOK || string(a.body) != want {
			t.Errorf("GET %s: %d %s", target, a.status, a.body)
		}
	}
	if a := w.do("POST", "/prometheus/api/v1/query", "query=up", "Content-Type", "application/x-www-form-urlencoded"); string(a.body) != "monitor /prometheus/api/v1/query" {
		t.Errorf("POST: %d %s", a.status, a.body)
	}
	w.problem(http.StatusMethodNotAllowed, api.CodeMethodNotAllowed, w.do("POST", "/console/monitoring", ""))
	for _, target := range []string{"/prometheus", "/prometheus/../metrics", "/prometheus//api"} {
		w.problem(http.StatusNotFound, api.CodeNotFound, w.do("GET", target, ""))
	}
	w.problem(http.StatusForbidden, api.CodeCrossOrigin, w.do("GET", "/prometheus/api/v1/query", "", "Origin", "https://evil.example"))
	for range 1000 {
		w.do("GET", "/console/"+rand.Text(), "")
	}
	if n := strings.Count(w.scrape(), `endpoint="/console/"`); n > 40 {
		t.Errorf("a thousand paths have %d series", n)
	}
}
