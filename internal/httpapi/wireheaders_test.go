package httpapi_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"

	"headway/internal/mockhead"
)

// seen is the header of the newest request that a head got.
func seen(t testing.TB, h *mockhead.Head) (string, textproto.MIMEHeader) {
	t.Helper()
	list := h.Received()
	if len(list) == 0 {
		t.Fatal("the head got no request")
	}
	r := textproto.NewReader(bufio.NewReader(bytes.NewReader(list[len(list)-1].Head)))
	line, err := r.ReadLine()
	if err != nil {
		t.Fatal(err)
	}
	header, err := r.ReadMIMEHeader()
	if err != nil {
		t.Fatal(err)
	}
	return line, header
}

// What is of the caller and its connection stays here; the rest reaches the head.
func TestPitfallP16NoCredentialAndNoFieldOfTheConnectionReachesAHead(t *testing.T) {
	const secret, second = "a-key-that-no-head-may-see-0123456789", "another-key-that-no-head-may-see-0123456789"
	p := newPlane(t)
	head := p.start("a")
	a := p.answer(chatPath, chatBody,
		"Authorization", "Bearer "+secret, "Cookie", "session="+secret, "Proxy-Authorization", "Basic "+secret,
		"X-Goog-Api-Key", secret, "X-Custom-Auth", "Token "+secret, "OpenAI-Organization", "org-1",
		"X-Also", "of "+secret, "X-Api-Key", second, "X-Other", "of "+second, "x_access_token", "short", "X-Csrf-Token", "short", "X-Hub-Secret", "short", "X-Goog-Iap-Jwt-Assertion", "short",
		"X-Auth-Request-Access-Token", "short", "X-Auth-Request-Email", "a@example.com", "X-Forwarded-Client-Cert", "cert", "X-Forwarded-User", "a", "Ssl-Client-Cert", "cert",
		"X-Client-IP", "192.0.2.1", "True-Client-Ip", "192.0.2.1", "Cf-Connecting-Ip", "192.0.2.1", "X-Real-Ip", "192.0.2.1", "X-Azure-Clientip", "192.0.2.1", "X-Original-Forwarded-For", "192.0.2.1",
		"Connection", "keep-alive, X-Hop", "X-Hop", "of this connection", "Keep-Alive", "timeout=5", "TE", "trailers", "Proxy-Connection", "keep-alive",
		"Upgrade", "h2c", "X-Forwarded-For", "192.0.2.1", "Forwarded", "for=192.0.2.1", "X-Headway-Session", "of-a-session",
		"Accept-Encoding", "gzip", "X-Request-Id", "mine-1",
		"X-Of-The-App", "kept", "OpenAI-Beta", "assistants=v2", "User-Agent", "app/1", "Idempotency-Key", "once")
	if a.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	line, header := seen(t, head)
	if line != "POST /v1/chat/completions HTTP/1.1" {
		t.Errorf("the head got %q", line)
	}
	want := map[string]string{
		"X-Of-The-App": "kept", "Openai-Beta": "assistants=v2", "User-Agent": "app/1", "Idempotency-Key": "once", "X-Request-Id": "mine-1",
		"Content-Type": "application/json", "Host": strings.TrimPrefix(head.URL(), "http://"), "Content-Length": fmt.Sprint(len(chatBody)),
	}
	for name, value := range want {
		if got := header[name]; len(got) != 1 || got[0] != value {
			t.Errorf("the head got %s %q, want %q", name, got, value)
		}
	}
	for name, values := range header {
		if want[name] == "" && name != "Traceparent" && name != "Cdn-Loop" {
			t.Errorf("the head got %s: %q", name, values)
		}
		if text := strings.Join(values, " "); strings.Contains(text, secret) || strings.Contains(text, second) {
			t.Errorf("the head got the caller's credential in %s", name)
		}
	}
	if got := a.Header.Get("X-Request-Id"); got != "mine-1" {
		t.Errorf("the answer has the request id %q", got)
	}
}

func TestTheTraceOfTheCallerIsPassedOn(t *testing.T) {
	const id = "0af7651916cd43dd8448eb211c80319c"
	p := newPlane(t)
	head := p.start("a")
	p.answer(chatPath, chatBody, "Traceparent", "00-"+id+"-b7ad6b7169203331-01", "Tracestate", "vendor=1")
	_, header := seen(t, head)
	parent := header.Get("Traceparent")
	if !strings.HasPrefix(parent, "00-"+id+"-") || !strings.HasSuffix(parent, "-b7ad6b7169203331-01") || header.Get("Tracestate") != "vendor=1" {
		t.Errorf("the head got %q %q", parent, header["Tracestate"])
	}
	p.answer(chatPath, chatBody, "Tracestate", "vendor=1")
	_, header = seen(t, head)
	if got := header.Get("Traceparent"); len(got) != len(parent) || strings.Contains(got, id) || header["Tracestate"] != nil {
		t.Errorf("without a trace of the caller's the head got %q %q", got, header["Tracestate"])
	}
}

// A head sets nothing in an answer that is ours to say.
func TestFieldsOfAHeadsAnswer(t *testing.T) {
	p := newPlane(t)
	head := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		for name, value := range map[string]string{
			"Connection": "X-Hop", "X-Hop": "1", "Set-Cookie": "a=b", "X-Request-Id": "the head's", "X-Headway-Head": "forged", "X-Headway-Decision-Id": "forged",
			"Server": "uvicorn", "Alt-Svc": "h3=\":1\"", "Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "*", "Www-Authenticate": "Basic", "Clear-Site-Data": "*",
			"Openai-Processing-Ms": "12", "Content-Type": "application/json", "X-Of-The-Engine": "kept",
		} {
			w.Header().Set(name, value)
		}
		_, _ = io.WriteString(w, `{"model":"m","choices":[]}`)
	}))
	t.Cleanup(head.Close)
	p.registered("a", head.URL)
	a := p.answer(chatPath, chatBody, "X-Request-Id", "mine-2")
	if a.StatusCode != http.StatusOK || a.Header.Get("X-Request-Id") != "mine-2" || a.Header.Get("X-Headway-Head") != "a" || len(a.Header.Values("X-Headway-Decision-Id")) != 1 {
		t.Errorf("%d %v", a.StatusCode, a.Header)
	}
	if a.Header.Get("Openai-Processing-Ms") != "12" || a.Header.Get("X-Of-The-Engine") != "kept" {
		t.Errorf("fields of the engine are missing: %v", a.Header)
	}
	for _, name := range []string{"X-Hop", "Set-Cookie", "Server", "Alt-Svc", "Access-Control-Allow-Origin", "Access-Control-Expose-Headers", "Www-Authenticate", "Clear-Site-Data"} {
		if v := a.Header[name]; v != nil {
			t.Errorf("the caller got %s: %q", name, v)
		}
	}
	p.settled()
}

func TestPitfallP28ARedirectOfAHeadIsNeverFollowed(t *testing.T) {
	var followed atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Store(true) }))
	t.Cleanup(elsewhere.Close)
	for _, status := range []int{301, 302, 303, 307, 308} {
		p := newPlane(t)
		head := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", elsewhere.URL+chatPath)
			w.WriteHeader(status)
		}))
		t.Cleanup(head.Close)
		p.registered("a", head.URL)
		a := p.answer(chatPath, chatBody)
		if a.StatusCode != http.StatusBadGateway || a.Header.Get("Location") != "" || !bytes.Contains(a.body, []byte(`"code":"head_redirected"`)) || bytes.Contains(a.body, []byte(elsewhere.URL)) {
			t.Errorf("%d: the caller got %d %v %s", status, a.StatusCode, a.Header, a.body)
		}
		if a.Header.Get("X-Headway-Decision-Id") == "" || a.Header.Get("X-Headway-Attempts") != "1" {
			t.Errorf("%d: the error does not name its decision: %v", status, a.Header)
		}
	}
	if followed.Load() {
		t.Error("a redirect was followed")
	}
}

func TestPitfallP29AProxyOfTheEnvironmentIsNeverUsed(t *testing.T) {
	var used atomic.Bool
	recorder := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { used.Store(true) }))
	t.Cleanup(recorder.Close)
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"} {
		t.Setenv(name, recorder.URL)
	}
	t.Setenv("NO_PROXY", "")
	p := newPlane(t)
	p.start("a")
	if a := p.answer(chatPath, chatBody); a.StatusCode != http.StatusOK {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if used.Load() {
		t.Error("the head was called through the proxy of the environment")
	}
}

// raw sends bytes over one connection, and returns the status lines of the answers
// until the service closes it.
func (p *plane) raw(request string) (lines []string) {
	p.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		p.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		p.Fatal(err)
	}
	r := bufio.NewReader(c)
	for ; ; _ = c.(*net.TCPConn).CloseWrite() {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return lines
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		lines = append(lines, res.Status[:3])
	}
}

// Requests that two readers would take apart differently are refused, or reach the
// head as one request with one length.
func TestShapesOfSmugglingReachNoHead(t *testing.T) {
	p := newPlane(t)
	head := p.start("a")
	host := strings.TrimPrefix(p.url, "http://")
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(chatBody), chatBody)
	inner := "POST /v1/embeddings HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 2\r\n\r\n{}"
	for name, c := range map[string]struct{ header, body string }{
		"two lengths":           {fmt.Sprintf("Content-Length: %d\r\nContent-Length: 4\r\n", len(chatBody)), chatBody},
		"lengths in a list":     {fmt.Sprintf("Content-Length: %d, 4\r\n", len(chatBody)), chatBody},
		"signed length":         {fmt.Sprintf("Content-Length: +%d\r\n", len(chatBody)), chatBody},
		"unknown coding":        {"Transfer-Encoding: xchunked\r\n", chunked},
		"coding twice":          {"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", chunked},
		"coding in a list":      {"Transfer-Encoding: identity, chunked\r\n", chunked},
		"space before colon":    {"Transfer-Encoding : chunked\r\n", chunked},
		"folded line":           {"X-A: b\r\n Transfer-Encoding: chunked\r\n" + fmt.Sprintf("Content-Length: %d\r\n", len(chatBody)), chatBody},
		"chunk size too large":  {"Transfer-Encoding: chunked\r\n", "ffffffffffffffff1\r\n" + chatBody},
		"chunk size with sign":  {"Transfer-Encoding: chunked\r\n", "+10\r\n" + chatBody},
		"NUL in a value":        {"X-A: b\x00c\r\n" + fmt.Sprintf("Content-Length: %d\r\n", len(chatBody)), chatBody},
		"length and coding":     {"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", chunked + inner},
		"chunk extension":       {"Transfer-Encoding: chunked\r\n", strings.Replace(chunked, "\r\n", ";a=\"\r\n\"\r\n", 1)},
		"request in the body":   {fmt.Sprintf("Content-Length: %d\r\n", len(inner)), inner},
		"two hosts":             {fmt.Sprintf("Host: other.example\r\nContent-Length: %d\r\n", len(chatBody)), chatBody},
		"connection names host": {fmt.Sprintf("Connection: Host, Content-Length, close\r\nContent-Length: %d\r\n", len(chatBody)), chatBody},
	} {
		before := head.Count()
		lines := p.raw("POST " + chatPath + " HTTP/1.1\r\nHost: " + host + "\r\n" + c.header + "\r\n" + c.body)
		if len(lines) == 0 {
			t.Errorf("%s: there was no answer", name)
		}
		got := head.Count() - before
		for _, line := range lines[:min(len(lines), 1)] {
			if want := map[bool]int{true: 1, false: 0}[line == "200"]; got != want {
				t.Errorf("%s: %v, and the head got %d requests", name, lines, got)
			}
			if line != "200" && line[0] != '4' && line != "501" {
				t.Errorf("%s: %v", name, lines)
			}
		}
		for _, r := range head.Received() {
			if r.Target != chatPath || r.Size != int64(len(chatBody)) {
				t.Errorf("%s: the head got %s with %d bytes", name, r.Target, r.Size)
			}
		}
	}
}
