package mockhead_test

import (
	"bytes"
	"fmt"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"headway/internal/mockhead"
)

// ask sends a JSON body, or a form where the kind is given.
func ask(t *testing.T, h *mockhead.Head, path, body, kind string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.URL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if kind == "" {
		kind = "application/json"
	}
	req.Header.Set("Content-Type", kind)
	return do(t, client(t), req)
}

func form(t *testing.T, fields map[string]string, file string) (body, kind string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for name, value := range fields {
		if err := w.WriteField(name, value); err != nil {
			t.Fatal(err)
		}
	}
	part, err := w.CreateFormFile(file, file+".bin")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(part, strings.Repeat("\x00\xff\r\n--", 1000))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String(), w.FormDataContentType()
}

func TestEveryEndpointAnswers(t *testing.T) {
	h := startHead(t, func(o *mockhead.Options) { o.Models = []string{"m", "adapter"} })
	audio, audioKind := form(t, map[string]string{"model": "m"}, "file")
	streamed, streamedKind := form(t, map[string]string{"model": "m", "stream": "true"}, "file")
	text, textKind := form(t, map[string]string{"model": "m", "response_format": "text"}, "file")
	edit, editKind := form(t, map[string]string{"model": "adapter", "prompt": "a cat"}, "image")
	for name, tc := range map[string]struct{ path, body, kind, want string }{
		"text":            {"/v1/completions", `{"model":"m","prompt":"hi","max_tokens":2}`, "", `"index":0,"text":"`},
		"texts":           {"/v1/completions", `{"model":"m","prompt":["hi","ho"],"max_tokens":2}`, "", `"index":1,"text":"`},
		"ids":             {"/v1/completions", `{"model":"m","prompt":[1,2,3],"max_tokens":2}`, "", `"prompt_tokens":3,"completion_tokens":2`},
		"lists of ids":    {"/v1/completions", `{"model":"m","prompt":[[1,2,3],[4]],"max_tokens":2}`, "", `"prompt_tokens":4,"completion_tokens":4`},
		"streamed texts":  {"/v1/completions", `{"model":"m","prompt":["hi","ho"],"max_tokens":2,"stream":true}`, "", `"index":1,"text":"`},
		"choices":         {"/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":2,"n":2}`, "", `"index":1,"message":`},
		"picture":         {"/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}],"max_tokens":2}`, "", `"finish_reason":"length"`},
		"forced tool":     {"/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":{"name":"look"}}],"tool_choice":"required"}`, "", `"name":"look"`},
		"usage in each":   {"/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":2,"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}`, "", `"finish_reason":"length"}],"usage":`},
		"response":        {"/v1/responses", `{"model":"m","input":"hi","max_output_tokens":2}`, "", `"type":"output_text"`},
		"response items":  {"/v1/responses", `{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"hi"}]},{"type":"function_call_output","call_id":"c","output":"x"}]}`, "", `"object":"response"`},
		"response stream": {"/v1/responses", `{"model":"m","input":"hi","max_output_tokens":2,"stream":true}`, "", "event: response.incomplete\n"},
		"message":         {"/v1/messages", `{"model":"m","max_tokens":2,"messages":[{"role":"user","content":"hi"}]}`, "", `"stop_reason":"max_tokens"`},
		"message stream":  {"/v1/messages", `{"model":"m","max_tokens":2,"system":"be kind","messages":[{"role":"user","content":"hi"}],"stream":true}`, "", "event: message_stop\n"},
		"count":           {"/v1/messages/count_tokens", `{"model":"m","messages":[{"role":"user","content":"hi"}]}`, "", `{"input_tokens":3}`},
		"transcription":   {"/v1/audio/transcriptions", audio, audioKind, `"text":"`},
		"translation":     {"/v1/audio/translations", text, textKind, "\n"},
		"spoken stream":   {"/v1/audio/transcriptions", streamed, streamedKind, "data: [DONE]\n"},
		"speech":          {"/v1/audio/speech", `{"model":"m","input":"hello","voice":"a"}`, "", "WAVEfmt "},
		"embeddings":      {"/v1/embeddings", `{"model":"m","input":["a",""],"dimensions":2}`, "", `"index":1,"object":"embedding"`},
		"base64":          {"/v1/embeddings", `{"model":"m","input":[[1,2]],"encoding_format":"base64","dimensions":1}`, "", `"embedding":"`},
		"rerank":          {"/v1/rerank", `{"model":"m","query":"red box","documents":["axe","red box"],"top_n":1}`, "", `"results":[{"document":{"text":"red box"},"index":1,"relevance_score":1}]`},
		"score":           {"/v1/score", `{"model":"m","text_1":"red box","text_2":["red box","axe"]}`, "", `"score":1`},
		"moderation":      {"/v1/moderations", `{"input":"hi"}`, "", `"flagged":false`},
		"pictures":        {"/v1/images/generations", `{"model":"m","prompt":"a cat","n":2}`, "", `"b64_json":"iVBOR`},
		"edit":            {"/v1/images/edits", edit, editKind, `"b64_json":"iVBOR`},
		"tokenize":        {"/tokenize", `{"model":"m","prompt":"hello"}`, "", `"count":2,`},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := ask(t, h, tc.path, tc.body, tc.kind)
			if resp.StatusCode != http.StatusOK || !strings.Contains(body, tc.want) {
				t.Errorf("%d %.2000s, want %s", resp.StatusCode, body, tc.want)
			}
		})
	}
	for path, want := range map[string]string{
		"/v1/messages":         `{"error":{"message":"The model ` + "`x`" + ` does not exist.","type":"not_found_error"},"type":"error"}`,
		"/v1/chat/completions": `"type":"NotFoundError","param":"model","code":404}`,
	} {
		resp, body := ask(t, h, path, `{"model":"x","max_tokens":1,"messages":[{"role":"user","content":"hi"}]}`, "")
		if resp.StatusCode != http.StatusNotFound || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
	if resp, body := get(t, client(t), h.URL()+"/v1/models/adapter"); resp.StatusCode != http.StatusOK || !strings.Contains(body, `"parent":"m"`) {
		t.Errorf("the adapter: %d %s", resp.StatusCode, body)
	}
	if resp, _ := get(t, client(t), h.URL()+"/v1/models/x"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("an unknown model: %d", resp.StatusCode)
	}
}

func TestTokensGiveTheTextBack(t *testing.T) {
	h := startHead(t, nil)
	const text = "héllo, wörld"
	_, body := ask(t, h, "/tokenize", `{"prompt":"`+text+`"}`, "")
	var got struct {
		Tokens []uint32 `json:"tokens"`
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	ids, err := json.Marshal(got.Tokens)
	if err != nil {
		t.Fatal(err)
	}
	if _, back := ask(t, h, "/detokenize", `{"tokens":`+string(ids)+`}`, ""); !strings.Contains(back, text) {
		t.Errorf("%s came back as %s", text, back)
	}
}
