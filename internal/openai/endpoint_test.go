package openai_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"headway/internal/openai"
)

func TestLookup(t *testing.T) {
	for _, c := range []struct {
		method, path, name, id string
		status                 int
	}{
		{"POST", "/v1/chat/completions", "chat.completions", "", 0},
		{"GET", "/v1/models", "models", "", 0},
		{"GET", "/v1/models/meta-llama/Llama-3", "model", "meta-llama/Llama-3", 0},
		{"POST", "/v1/messages/count_tokens", "messages.count_tokens", "", 0},
		{"GET", "/v1/models/{id}", "", "", 404},
		{"GET", "/v1/models/", "", "", 404},
		{"GET", "/v1/chat/completions", "", "", 405},
		{"DELETE", "/v1/models/x", "", "", 405},
		{"POST", "/v1/nothing", "", "", 404},
		{"POST", "/v1/chat/completions/", "", "", 404},
	} {
		e, id, err := openai.Lookup(c.method, c.path)
		switch {
		case c.status != 0:
			if err == nil || err.Status != c.status {
				t.Errorf("%s %s: got %+v, want %d", c.method, c.path, err, c.status)
			}
		case err != nil || e.Name != c.name || id != c.id:
			t.Errorf("%s %s: got %+v, %q, %v", c.method, c.path, e, id, err)
		}
	}
	names := map[string]bool{}
	for _, e := range openai.Endpoints() {
		if names[e.Name] || e.Method == "" || e.HeadPath == "" || e.Dialect != openai.DialectOf(e.Path) || (e.Form == openai.None) != (e.Method == http.MethodGet) {
			t.Errorf("%+v", e)
		}
		names[e.Name] = true
	}
}

func TestPitfallP23ErrorObjects(t *testing.T) {
	for status, want := range map[int]struct{ kind, code, anthropic string }{
		400: {"invalid_request_error", "", "invalid_request_error"}, 401: {"invalid_request_error", "invalid_api_key", "authentication_error"},
		403: {"invalid_request_error", "insufficient_permissions", "permission_error"}, 404: {"invalid_request_error", "not_found", "not_found_error"},
		405: {"invalid_request_error", "method_not_supported", "invalid_request_error"}, 413: {"invalid_request_error", "request_too_large", "request_too_large"},
		415: {"invalid_request_error", "unsupported_content_type", "invalid_request_error"}, 418: {"invalid_request_error", "", "invalid_request_error"},
		429: {"requests", "rate_limit_exceeded", "rate_limit_error"}, 500: {"server_error", "", "api_error"}, 502: {"server_error", "bad_gateway", "api_error"},
		503: {"server_error", "service_unavailable", "overloaded_error"}, 504: {"server_error", "timeout", "timeout_error"}, 599: {"server_error", "", "api_error"},
	} {
		e := &openai.Error{Status: status, Message: "a \"b\"\n\x01\xff é"}
		var got struct {
			Type  string
			ID    string `json:"request_id"`
			Error struct {
				Message, Type string
				Code, Param   *string
			}
		}
		if err := json.Unmarshal(e.Append(nil, openai.OpenAI, "r1"), &got); err != nil {
			t.Fatal(err)
		}
		code := ""
		if got.Error.Code != nil {
			code = *got.Error.Code
		}
		if got.Error.Type != want.kind || code != want.code || got.Error.Param != nil || got.Error.Message != "a \"b\"\n\x01\ufffd é" {
			t.Errorf("%d: got %+v, code %q", status, got, code)
		}
		if err := json.Unmarshal(e.Append(nil, openai.Anthropic, "r1"), &got); err != nil || got.Type != "error" || got.Error.Type != want.anthropic || got.ID != "r1" {
			t.Errorf("%d: got %+v, %v", status, got, err)
		}
	}
	if got := (&openai.Error{RetryAfter: 1500 * time.Millisecond}).RetryAfterSeconds(); got != "2" {
		t.Errorf("Retry-After is %s", got)
	}
	if got := string(openai.ModelNotFound("x").Append(nil, openai.OpenAI, "")); got != "{\"error\":{\"message\":\"The model `x` does not exist or you do not have access to it.\",\"type\":\"invalid_request_error\",\"param\":\"model\",\"code\":\"model_not_found\"}}" {
		t.Error(got)
	}
	// Our own error is read as one, in each kind of stream.
	for _, at := range []*openai.Endpoint{chat, responses, messages} {
		text := string((&openai.Error{Status: 502, Message: "lost"}).AppendEvent(nil, at, ""))
		if out, classes, _ := run(&openai.Stream{Endpoint: at}, text, nil); out != text || len(classes) != 1 || classes[0] != openai.Failed {
			t.Errorf("%s: %q is of %v", at.Name, text, classes)
		}
	}
}

func TestPitfallP22TheListOfModels(t *testing.T) {
	entries := []openai.ModelEntry{{"m2", 5, "headway"}, {"m1", 7, "headway"}, {"a", 1, "headway"}, {"m1", 3, "headway"}}
	got := string(openai.AppendModels(nil, openai.OpenAI, entries))
	want := `{"object":"list","data":[{"id":"a","object":"model","created":1,"owned_by":"headway"},` +
		`{"id":"m1","object":"model","created":3,"owned_by":"headway"},{"id":"m2","object":"model","created":5,"owned_by":"headway"}]}`
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := string(openai.AppendModels(nil, openai.OpenAI, nil)); got != `{"object":"list","data":[]}` {
		t.Error(got)
	}
	if got := string(openai.ModelEntry{ID: strings.Repeat("x", 2), Created: 1, OwnedBy: "o"}.Append(nil, openai.OpenAI)); got != `{"id":"xx","object":"model","created":1,"owned_by":"o"}` {
		t.Error(got)
	}
	got = string(openai.AppendModels(nil, openai.Anthropic, entries[:1]))
	want = `{"data":[{"type":"model","id":"a","display_name":"a","created_at":"1970-01-01T00:00:01Z"}],"has_more":false,"first_id":"a","last_id":"a"}`
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := string(openai.AppendModels(nil, openai.Anthropic, nil)); got != `{"data":[],"has_more":false,"first_id":null,"last_id":null}` {
		t.Error(got)
	}
}
