package httpapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"headway/internal/access"
	"headway/internal/fleet"
	"headway/internal/routing"
)

// send sends a request of any method; header are names and values in turn.
func (p *plane) send(method, path string, body io.Reader, header ...string) planeAnswer {
	p.Helper()
	res, err := p.request(method, path, body, header...)
	if err != nil {
		p.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return planeAnswer{res, b, err}
}

func (p *plane) request(method, path string, body io.Reader, header ...string) (*http.Response, error) {
	p.Helper()
	r, err := http.NewRequestWithContext(p.Context(), method, p.url, body)
	if err != nil {
		p.Fatal(err)
	}
	r.URL.Opaque = path // as it is
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return p.client.Do(r)
}

// keysOf makes a key of each role.
func (p *plane) keysOf() map[access.Role]string {
	p.Helper()
	keys, by := map[access.Role]string{}, p.admin()
	for _, role := range []access.Role{access.RoleAdmin, access.RoleOperator, access.RoleViewer, access.RoleClient, access.RoleHead} {
		r := access.Request{Name: "of-" + string(role), Role: string(role)}
		if role == access.RoleHead {
			r.Heads, r.Regions = []string{"*"}, []string{"*"}
		}
		keys[role] = p.key(by, r)
	}
	return keys
}

// apply sets the policy.
func (p *plane) apply(document string) {
	p.Helper()
	tag := p.must(http.StatusOK, http.MethodGet, "/api/v1/policy", "").Header().Get("ETag")
	p.must(http.StatusOK, http.MethodPut, "/api/v1/policy", document, "If-Match", tag)
}

// errorOf is the error object of an answer, in either dialect.
func errorOf(t testing.TB, a planeAnswer) (kind, code, message string) {
	t.Helper()
	var e struct {
		Type  string
		Error struct {
			Type, Message string
			Code          any // heads write numbers
		}
	}
	if err := json.Unmarshal(a.body, &e); err != nil || e.Error.Message == "" || e.Error.Type == "" || a.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%d is no error object: %v %s", a.StatusCode, a.Header, a.body)
	}
	if e.Error.Code != nil {
		code = fmt.Sprint(e.Error.Code)
	}
	if e.Type == "error" {
		return "anthropic " + e.Error.Type, code, e.Error.Message
	}
	return e.Error.Type, code, e.Error.Message
}

func form(model string, more ...string) (body, contentType string) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	_ = w.WriteField("model", model)
	for i := 0; i < len(more); i += 2 {
		_ = w.WriteField(more[i], more[i+1])
	}
	f, _ := w.CreateFormFile("file", "speech.wav")
	_, _ = f.Write(append([]byte("RIFF\x00\x01\r\n--not-a-boundary\r\n"), bytes.Repeat([]byte{0xff, 0x00}, 1000)...))
	_ = w.Close()
	return b.String(), w.FormDataContentType()
}

// Each endpoint is answered by a head, which gets the body byte for byte at the
// path where engines have it.
func TestPitfallP30P19EveryEndpointAndItsBodies(t *testing.T) {
	p := newPlane(t)
	head := p.start("a")
	const odd = `,"x_unknown":{"a":[12345678901234567890,0.10,-0]},"seed":1,"note":"\u00e9 \/ é"}`
	speech, speechType := form("m", "response_format", "json")
	streamed, streamedType := form("m", "stream", "true")
	for _, c := range []struct{ path, body, contentType, at string }{
		{chatPath, chatBody, "", ""},
		{chatPath, streamBody, "", ""},
		{chatPath, chatBody[:len(chatBody)-1] + odd, "application/x-www-form-urlencoded", ""},
		{chatPath, "\n\t " + chatBody + " \r\n", "", ""},
		{"/v1/completions", `{"model":"m","prompt":"a","max_tokens":3}`, "", ""},
		{"/v1/completions", `{"prompt":["a","b"],"max_tokens":3,"model":"m"}`, "", ""},
		{"/v1/completions", `{"model":"m","prompt":[1,2,3],"max_tokens":3}`, "", ""},
		{"/v1/completions", `{"model":"m","prompt":[[1,2],[3]],"max_tokens":3,"stream":true}`, "", ""},
		{"/v1/responses", `{"model":"m","input":"a","max_output_tokens":3}`, "", ""},
		{"/v1/responses", `{"model":"m","input":[{"role":"user","content":"a"}],"max_output_tokens":3,"stream":true}`, "", ""},
		{"/v1/embeddings", `{"model":"m","input":["a","b"]}`, "", ""},
		{"/v1/rerank", `{"model":"m","query":"a","documents":["b","c"]}`, "", ""},
		{"/v1/score", `{"model":"m","text_1":"a","text_2":["b"]}`, "", ""},
		{"/v1/audio/transcriptions", speech, speechType, ""},
		{"/v1/audio/transcriptions", streamed, streamedType, ""},
		{"/v1/audio/translations", speech, speechType, ""},
		{"/v1/audio/speech", `{"model":"m","input":"a","voice":"alloy"}`, "", ""},
		{"/v1/images/generations", `{"model":"m","prompt":"a"}`, "", ""},
		{"/v1/moderations", `{"model":"m","input":"a"}`, "", ""},
		{"/v1/messages", `{"model":"m","max_tokens":3,"messages":[{"role":"user","content":"a"}]}`, "", ""},
		{"/v1/messages", `{"model":"m","max_tokens":3,"stream":true,"messages":[{"role":"user","content":"a"}]}`, "", ""},
		{"/v1/messages/count_tokens", `{"model":"m","messages":[{"role":"user","content":"a"}]}`, "", ""},
		{"/v1/tokenize", `{"model":"m","prompt":"a"}`, "", "/tokenize"},
		{"/v1/detokenize", `{"model":"m","tokens":[1]}`, "", "/detokenize"},
	} {
		kind := contentTypeOf(c.contentType)
		if strings.HasSuffix(kind, "urlencoded") { // as curl -d sends it, which engines refuse
			kind = "application/json"
		}
		direct, err := planeClient.Post(head.URL()+c.path, kind, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, direct.Body)
		direct.Body.Close()
		a := p.send(http.MethodPost, c.path, strings.NewReader(c.body), "Content-Type", contentTypeOf(c.contentType))
		if a.err != nil || a.StatusCode != http.StatusOK || direct.StatusCode != http.StatusOK {
			t.Errorf("%s: %d, the head itself %d: %v %s", c.path, a.StatusCode, direct.StatusCode, a.err, a.body)
			continue
		}
		if got, want := a.Header.Get("Content-Type"), direct.Header.Get("Content-Type"); got != want {
			t.Errorf("%s: the answer is %q, the head's %q", c.path, got, want)
		}
		list := head.Received()
		own, through := list[len(list)-2], list[len(list)-1]
		if own.SHA256 != through.SHA256 || through.Size != int64(len(c.body)) {
			t.Errorf("%s: the body changed: %d bytes of %d", c.path, through.Size, len(c.body))
		}
		if want := map[bool]string{true: c.path, false: c.at}[c.at == ""]; through.Target != want {
			t.Errorf("%s: the head got it at %s", c.path, through.Target)
		}
		if id := a.Header.Get("Request-Id"); (id != "" && id == a.Header.Get("X-Request-Id")) != strings.HasPrefix(c.path, "/v1/messages") {
			t.Errorf("%s: Request-Id is %q", c.path, id)
		}
		p.settled()
		if o, _ := p.decisionOf(a.Header).Outcome(); o.Result != routing.ResultOK {
			t.Errorf("%s: the outcome is %+v", c.path, o)
		}
	}
}

func contentTypeOf(given string) string {
	if given == "" {
		return "application/json"
	}
	return given
}

// What only the head reads stays as it is, whether or not this service would write
// it so.
func TestPitfallP19BodiesAreNotEncodedAgain(t *testing.T) {
	p := newPlane(t)
	head := newScripted(t, func(w http.ResponseWriter, _ []byte) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"model" : "m","x":1e400,"choices":[],"choices":[],"s":"\ud800"}`)
	})
	p.registered("a", head.url)
	for _, body := range []string{
		`{"temperature":1,"temperature":0.70,"model":"m","big":1e400,"long":123456789012345678901234567890,"half":"\ud800","a":{"b":1,"b":2},"messages":[]}`,
		"{\r\n\t\"messages\" : [ ] ,\n \"model\":\"m\"\n}\n\n",
		`{"\u006dodel":"\u006d","messages":[{"content":"\/\u2028 é"}]}`,
	} {
		if a := p.answer(chatPath, body); a.StatusCode != http.StatusOK || string(a.body) != `{"model" : "m","x":1e400,"choices":[],"choices":[],"s":"\ud800"}` || string(head.body) != body {
			t.Errorf("%d %s\n the head got %s\n of %s", a.StatusCode, a.body, head.body, body)
		}
	}
}

// Models that some head serves and their aliases are listed once each, and in the
// form of the API that asks.
func TestPitfallP22ModelsAreThoseThatAreServed(t *testing.T) {
	p := newPlane(t)
	const slashed = "meta-llama/Llama-3"
	p.serves(fleet.Spec{ID: "h1", Endpoint: "http://127.0.0.1:1", ModelTypes: []string{"m1", slashed}})
	p.serves(fleet.Spec{ID: "h2", Endpoint: "http://127.0.0.1:2", ModelTypes: []string{"m1"}})
	if _, err := p.fleet.Register(t.Context(), fleet.Spec{ID: "h3", Endpoint: "http://127.0.0.1:3", ModelTypes: []string{"m2"}, Region: "us"}, &fleet.StatusReport{Status: fleet.StatusOffline, Load: fleet.UnknownLoad()}); err != nil {
		t.Fatal(err)
	}
	p.apply(`{"default_strategy":"round_robin","aliases":{"a":"m1","gone":"m2"}}`)
	var list struct {
		Object string
		Data   []struct {
			ID, Object, Type, Owned string
			Created                 int64
			CreatedAt               time.Time `json:"created_at"`
		}
		HasMore *bool `json:"has_more"`
	}
	first := p.send(http.MethodGet, "/v1/models", nil)
	if err := json.Unmarshal(first.body, &list); err != nil || first.StatusCode != http.StatusOK || list.Object != "list" {
		t.Fatalf("%d %s %v", first.StatusCode, first.body, err)
	}
	var ids []string
	for _, m := range list.Data {
		ids = append(ids, m.ID)
		if age := time.Since(time.Unix(m.Created, 0)); m.Object != "model" || age < 0 || age > time.Hour {
			t.Errorf("%+v", m)
		}
	}
	if got := fmt.Sprint(ids); got != "[a m1 "+slashed+"]" {
		t.Errorf("the models are %s", got)
	}
	if again := p.send(http.MethodGet, "/v1/models", nil); !bytes.Equal(again.body, first.body) {
		t.Errorf("another call gets %s, before %s", again.body, first.body)
	}
	if h := p.send(http.MethodHead, "/v1/models", nil); h.StatusCode != http.StatusOK || h.ContentLength != int64(len(first.body)) || len(h.body) > 0 {
		t.Errorf("HEAD: %d %v", h.StatusCode, h.Header)
	}
	for _, path := range []string{"/v1/models/m1", "/v1/models/a", "/v1/models/" + slashed, "/v1/models/meta-llama%2FLlama-3"} {
		if a := p.send(http.MethodGet, path, nil); a.StatusCode != http.StatusOK || !bytes.Contains(a.body, []byte(`"object":"model"`)) {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.body)
		}
	}
	for path, want := range map[string]string{"/v1/models/m2": "model_not_found", "/v1/models/none/of/them": "model_not_found"} {
		a := p.send(http.MethodGet, path, nil)
		if kind, code, _ := errorOf(t, a); a.StatusCode != http.StatusNotFound || code != want || kind != "invalid_request_error" {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.body)
		}
	}
	anthropic := []string{"Anthropic-Version", "2023-06-01"}
	a := p.send(http.MethodGet, "/v1/models", nil, anthropic...)
	if err := json.Unmarshal(a.body, &list); err != nil || list.HasMore == nil || *list.HasMore || len(list.Data) != 3 || list.Data[0].Type != "model" || list.Data[0].CreatedAt.IsZero() || bytes.Contains(a.body, []byte(`"object"`)) {
		t.Errorf("in Anthropic's form: %s %v", a.body, err)
	}
	a = p.send(http.MethodGet, "/v1/models/none", nil, anthropic...)
	if kind, _, _ := errorOf(t, a); a.StatusCode != http.StatusNotFound || kind != "anthropic not_found_error" {
		t.Errorf("in Anthropic's form: %d %s", a.StatusCode, a.body)
	}
}

// Every refusal below /v1 is an error object of the API that the path is of.
func TestPitfallP23EveryErrorIsAnErrorObject(t *testing.T) {
	p := newPlane(t)
	p.serves(fleet.Spec{ID: "h", Endpoint: "http://127.0.0.1:1", ModelTypes: []string{"m", "drained"}})
	p.apply(`{"default_strategy":"round_robin","aliases":{"away":"not-served"},"rules":[{"match":{"model_type":"named"},"strategy":"round_robin"}]}`)
	large := strings.NewReader(`{"model":"m","x":"` + strings.Repeat("x", 100) + `"}`)
	for _, c := range []struct {
		method, path, body, contentType string
		status                          int
		kind, code                      string
	}{
		{"POST", chatPath, `{"model":"unknown","messages":[]}`, "", 404, "invalid_request_error", "model_not_found"},
		{"POST", chatPath, `{"model":"away","messages":[]}`, "", 503, "server_error", "no_heads"},
		{"POST", chatPath, `{"model":"m"`, "", 400, "invalid_request_error", ""},
		{"POST", chatPath, `{"messages":[]}`, "", 400, "invalid_request_error", "missing_required_parameter"},
		{"POST", chatPath, `{"model":"m","Model":"x","messages":[]}`, "", 400, "invalid_request_error", ""},
		{"POST", chatPath, `{"model":"m","model":"x","messages":[]}`, "", 400, "invalid_request_error", ""},
		{"POST", chatPath, `{"model":"m","messages":[]}{}`, "", 400, "invalid_request_error", ""},
		{"POST", chatPath, "{\"model\":\"m\",\"user\":\"\xff\"}", "", 400, "invalid_request_error", ""},
		{"POST", "/v1/messages", `{"model":"unknown","messages":[]}`, "", 404, "anthropic not_found_error", ""},
		{"POST", "/v1/messages", `{`, "", 400, "anthropic invalid_request_error", ""},
		{"POST", "/v1/audio/transcriptions", `{"model":"m"}`, "", 415, "invalid_request_error", "unsupported_content_type"},
		{"GET", chatPath, "", "", 405, "invalid_request_error", "method_not_supported"},
		{"HEAD", chatPath, "", "", 405, "", ""},
		{"DELETE", "/v1/models/m", "", "", 405, "invalid_request_error", "method_not_supported"},
		{"GET", "/v1/messages", "", "", 405, "anthropic invalid_request_error", ""},
		{"POST", "/v1/nothing", `{"model":"m"}`, "", 404, "invalid_request_error", "unknown_url"},
		{"GET", "/v1/", "", "", 404, "invalid_request_error", "unknown_url"},
		{"GET", "/v1", "", "", 404, "invalid_request_error", "unknown_url"},
		{"POST", "/v1//chat/completions", chatBody, "", 404, "invalid_request_error", "unknown_url"},
		{"GET", "/heads", "", "", 404, "invalid_request_error", "unknown_url"},
		{"POST", "/v1/chat/completions/", chatBody, "", 404, "invalid_request_error", "unknown_url"},
		{"POST", "/v1/../v1/chat/completions", chatBody, "", 404, "invalid_request_error", "unknown_url"},
		{"GET", "/v1/messages/batches", "", "", 404, "anthropic not_found_error", ""},
		{"GET", "/v1/models?key=secret", "", "", 400, "invalid_request_error", "key_in_url"},
	} {
		a := p.send(c.method, c.path, strings.NewReader(c.body), "Content-Type", contentTypeOf(c.contentType))
		if a.StatusCode != c.status || a.Header.Get("X-Request-Id") == "" {
			t.Errorf("%s %s %s: %d %s, want %d", c.method, c.path, c.body, a.StatusCode, a.body, c.status)
			continue
		}
		if c.method == "HEAD" {
			continue
		}
		if kind, code, _ := errorOf(t, a); kind != c.kind || code != c.code {
			t.Errorf("%s %s %s: %s %s, want %s %s", c.method, c.path, c.body, kind, code, c.kind, c.code)
		}
		if c.status == 405 && a.Header.Get("Allow") == "" {
			t.Errorf("%s %s: Allow is missing", c.method, c.path)
		}
		if wait := a.Header.Get("Retry-After"); (wait != "") != (c.status == 503) {
			t.Errorf("%s %s: Retry-After is %q", c.method, c.path, wait)
		}
		if placed := a.Header.Get("X-Headway-Decision-Id"); (placed != "") != (c.code == "model_not_found" || c.code == "no_heads" || c.kind == "anthropic not_found_error" && c.method == "POST") {
			t.Errorf("%s %s: the decision is %q", c.method, c.path, placed)
		}
	}
	if a := p.send(http.MethodPost, chatPath, large, "Content-Encoding", "gzip"); a.StatusCode != http.StatusUnsupportedMediaType || a.Header.Get("Accept-Encoding") != "identity" {
		t.Errorf("a compressed body: %d %v", a.StatusCode, a.Header)
	} else if _, code, _ := errorOf(t, a); code != "unsupported_content_encoding" {
		t.Errorf("%s", a.body)
	}
	if a := p.send(http.MethodOptions, chatPath, nil); a.StatusCode != http.StatusNoContent || !strings.Contains(a.Header.Get("Allow"), "POST") {
		t.Errorf("OPTIONS: %d %v", a.StatusCode, a.Header)
	}
}

// Callers of /v1 are admitted as elsewhere, by the credential as those APIs send it,
// and see names of heads only with the permission to read.
func TestCallersOfTheDataPlane(t *testing.T) {
	p := newPlane(t)
	p.start("a")
	keys := p.keysOf()
	admin, client, viewer, head := keys[access.RoleAdmin], keys[access.RoleClient], keys[access.RoleViewer], keys[access.RoleHead]
	for _, c := range []struct {
		name, path    string
		header        []string
		status        int
		kind, code    string
		seesTheHeadID bool
	}{
		{"none", chatPath, nil, 401, "invalid_request_error", "invalid_api_key", false},
		{"none", "/v1/messages", nil, 401, "anthropic authentication_error", "", false},
		{"wrong", chatPath, []string{"Authorization", "Bearer sk-of-another-service"}, 401, "invalid_request_error", "invalid_api_key", false},
		{"head", chatPath, []string{"Authorization", "Bearer " + head}, 403, "invalid_request_error", "insufficient_permissions", false},
		{"viewer", "/v1/messages", []string{"X-Api-Key", viewer}, 403, "anthropic permission_error", "", false},
		{"client", chatPath, []string{"Authorization", "Bearer " + client}, 200, "", "", false},
		{"client, as Anthropic's", "/v1/messages", []string{"X-Api-Key", client}, 200, "", "", false},
		{"admin", chatPath, []string{"Authorization", "Bearer " + admin}, 200, "", "", true},
	} {
		a := p.answer(c.path, chatBody, c.header...)
		if a.StatusCode != c.status {
			t.Errorf("%s: %d %s", c.name, a.StatusCode, a.body)
			continue
		}
		if c.status != 200 {
			if kind, code, _ := errorOf(t, a); kind != c.kind || code != c.code {
				t.Errorf("%s: %s %q, want %s %q", c.name, kind, code, c.kind, c.code)
			}
			continue
		}
		if got := a.Header.Get("X-Headway-Head"); (got == "a") != c.seesTheHeadID {
			t.Errorf("%s sees the head %q", c.name, got)
		}
		if a.Header.Get("X-Headway-Decision-Id") == "" || a.Header.Get("X-Headway-Strategy") == "" {
			t.Errorf("%s: %v", c.name, a.Header)
		}
	}
}

// What is below /heads/ goes to a head of the model type that the path names, as it
// is.
func TestRequestsPassThroughToHeadsOfOtherKinds(t *testing.T) {
	p := newPlane(t)
	type got struct {
		method, target, encoding, contentType string
		body                                  []byte
		chunked                               bool
	}
	requests := make(chan got, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		requests <- got{r.Method, r.RequestURI, r.Header.Get("Content-Encoding"), r.Header.Get("Content-Type"), b, r.ContentLength < 0}
		w.Header().Set("Content-Type", "application/x-tensor")
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("X-Of-The-Head", "kept")
		if r.Method == http.MethodDelete {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		if r.URL.Path == "/teapot" {
			w.WriteHeader(http.StatusTeapot)
		}
		_, _ = w.Write([]byte{0, 1, 2, 0xff})
	}))
	t.Cleanup(s.Close)
	p.serves(fleet.Spec{ID: "a", Endpoint: s.URL, ModelTypes: []string{"yolo", "org/yolo"}, Engine: "triton"})
	p.apply(`{"default_strategy":"round_robin","aliases":{"eyes":"yolo"}}`)
	long := bytes.Repeat([]byte{0xfe, 0}, 1<<20)
	for _, c := range []struct {
		method, path, target string
		body                 io.Reader
		size, status         int
		chunked              bool
	}{
		{"POST", "/heads/yolo/v2/models/yolo/infer?x=%20y", "/v2/models/yolo/infer?x=%20y", bytes.NewReader([]byte("{\x00}")), 3, 200, false},
		{"GET", "/heads/yolo/v2/health/ready", "/v2/health/ready", nil, 0, 200, false},
		{"HEAD", "/heads/yolo/v2/", "/v2/", nil, 0, 200, false},
		{"DELETE", "/heads/eyes/a//b%2Fc/", "/a//b%2Fc/", nil, 0, 204, false},
		{"PUT", "/heads/org%2Fyolo/x", "/x", bytes.NewReader(long), len(long), 200, false},
		{"PATCH", "/heads/org/yolo/x", "/x", io.MultiReader(bytes.NewReader(long)), len(long), 200, true},
		{"POST", "/heads/yolo/teapot", "/teapot", io.MultiReader(strings.NewReader("")), 0, 418, true},
		{"GET", "/heads/yolo", "/", nil, 0, 200, false},
	} {
		a := p.send(c.method, c.path, c.body, "Content-Encoding", "zstd", "Content-Type", "x/y", "Accept-Encoding", "gzip")
		if a.StatusCode != c.status || a.err != nil || a.Header.Get("X-Of-The-Head") != "kept" || a.Header.Get("X-Headway-Head") != "a" {
			t.Errorf("%s %s: %d %v %v %q", c.method, c.path, a.StatusCode, a.err, a.Header, a.body)
			if a.StatusCode >= 400 && a.StatusCode != http.StatusTeapot {
				continue
			}
		}
		g := <-requests
		if g.method != c.method || g.target != c.target || len(g.body) != c.size || g.encoding != "zstd" || g.contentType != "x/y" || g.chunked != c.chunked {
			t.Errorf("%s %s: the head got %s %s with %d bytes, chunked %t, %s %s", c.method, c.path, g.method, g.target, len(g.body), g.chunked, g.encoding, g.contentType)
		}
		if c.size == len(long) && !bytes.Equal(g.body, long) {
			t.Errorf("%s: the body changed", c.path)
		}
		if c.method != "HEAD" && c.status != 204 && !bytes.Equal(a.body, []byte{0, 1, 2, 0xff}) {
			t.Errorf("%s: the answer is %q", c.path, a.body)
		}
		p.settled()
		if o, _ := p.decisionOf(a.Header).Outcome(); (o.Result == routing.ResultOK) != (c.status < 400) {
			t.Errorf("%s: the outcome is %+v", c.path, o)
		}
	}
	for path, status := range map[string]int{
		"/heads/yolo/../x": 400, "/heads/yolo/%2e%2e/x": 400, "/heads/yolo/a%2f..%2fb": 400, "/heads/yolo/a/.": 400, "/heads/../yolo/x": 400,
		"/heads/yolo/v2/..;/x": 400, "/heads/yolo/.;a=b/x": 400, "/heads/yolo/%252e%252e/x": 400, "/heads/yolo/a%255c..%255cb": 400, "/heads/yolo/a%00/x": 400, "/heads/yolo/a%250d%250ab": 400,
		"/heads/nothing/x": 404, "/heads//x": 404, "/heads/": 404,
	} {
		a := p.send(http.MethodGet, path, nil)
		if errorOf(t, a); a.StatusCode != status {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.body)
		}
	}
	if a := p.send(http.MethodTrace, "/heads/yolo/v2", nil); a.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("TRACE: %d %s", a.StatusCode, a.body)
	}
	if a := p.send(http.MethodGet, "/heads/yolo/ws", nil, "Connection", "Upgrade", "Upgrade", "websocket"); a.StatusCode != http.StatusNotImplemented {
		t.Errorf("an upgrade: %d %s", a.StatusCode, a.body)
	}
	if len(requests) > 0 {
		t.Errorf("the head got %+v", <-requests)
	}
}
