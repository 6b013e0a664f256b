package mockhead

import (
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

type (
	answer struct {
		ID      string   `json:"id"`
		Object  string   `json:"object"`
		Created int64    `json:"created"`
		Model   string   `json:"model"`
		Choices []choice `json:"choices"`
		Usage   any      `json:"usage,omitzero"`
	}
	choice struct {
		Index        int            `json:"index"`
		Message      *answerMessage `json:"message,omitzero"`
		Delta        *answerMessage `json:"delta,omitzero"`
		Text         *string        `json:"text,omitzero"`
		FinishReason *string        `json:"finish_reason"`
	}
	answerMessage struct {
		Role      string     `json:"role,omitempty"`
		Content   *string    `json:"content,omitzero"`
		ToolCalls []toolCall `json:"tool_calls,omitempty"`
	}
	toolCall struct {
		Index    int    `json:"index"`
		ID       string `json:"id,omitempty"`
		Type     string `json:"type,omitempty"`
		Function struct {
			Name      string `json:"name,omitempty"`
			Arguments string `json:"arguments"`
		} `json:"function"`
	}
	usage struct {
		PromptTokens     int `json:"prompt_tokens"`
		CompletionTokens int `json:"completion_tokens"`
		TotalTokens      int `json:"total_tokens"`
		PromptDetails    struct {
			CachedTokens int `json:"cached_tokens"`
		} `json:"prompt_tokens_details"`
	}
	errorBody struct {
		Error errorObject `json:"error"`
	}
	errorObject struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    int     `json:"code"`
	}
)

// object is an answer that is too rare to need a type.
type object = map[string]any

// plain is an answer that is no JSON.
type plain []byte

func encode(v any) []byte {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		panic(err) // answers hold nothing that cannot be encoded
	}
	return b
}

// textForm is that of text completions.
type textForm struct{}

// answer is the whole answer, or a chunk of its stream.
func (t *turn) answer(prefix, kind string, choices ...choice) answer {
	return answer{ID: prefix + t.id, Object: kind, Created: t.created, Model: t.c.model, Choices: append([]choice{}, choices...)}
}

func (textForm) whole(t *turn) any {
	a := t.answer("cmpl-", "text_completion")
	for _, p := range t.parts {
		text := p.text()
		a.Choices = append(a.Choices, choice{Index: p.index, Text: &text, FinishReason: &p.reason})
	}
	a.Usage = t.usage()
	return a
}

func (textForm) begin(out []byte, _ *turn) []byte { return out }

func (textForm) chunk(out []byte, t *turn, p *part, text string) []byte {
	c := choice{Index: p.index, Text: &text}
	if p.progress.done {
		c.FinishReason = &p.reason
	}
	return t.appendChunk(out, t.answer("cmpl-", "text_completion", c))
}

func (textForm) end(out []byte, t *turn) []byte {
	return t.appendEnd(out, t.answer("cmpl-", "text_completion"))
}

// appendChunk appends a chunk, with what the stream says of its usage there.
func (t *turn) appendChunk(out []byte, a answer) []byte {
	last := a.Choices[0].FinishReason != nil
	u := t.usage()
	switch form, _ := t.ctx.Value(usageKey{}).(string); {
	case form == "" && t.c.everyUsage, form == FormUsageEach, form == FormUsageLast && last:
		a.Usage = u
	case form == FormUsageNull:
		a.Usage = jsontext.Value("null")
	case form == FormUsageParts && t.events == 0:
		a.Usage = object{"prompt_tokens": u.PromptTokens}
	case form == FormUsageParts && last:
		a.Usage = object{"completion_tokens": u.CompletionTokens}
	case form == FormUsageParts:
		a.Usage = object{"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
	}
	t.events++
	return appendEvent(out, encode(a))
}

func (t *turn) appendEnd(out []byte, a answer) []byte {
	form, _ := t.ctx.Value(usageKey{}).(string)
	if t.c.includeUsage && (form == "" || form == FormUsageNull) {
		a.Usage = t.usage()
		out = appendEvent(out, encode(a))
	}
	return appendEvent(out, []byte("[DONE]"))
}

// chatForm is that of chat completions. call is the function that the answer
// calls; "" is an answer in words.
type chatForm struct{ call string }

// said puts text where the form has it.
func (f chatForm) said(t *turn, p *part, text string, first bool) *answerMessage {
	if f.call == "" {
		return &answerMessage{Content: &text}
	}
	c := toolCall{}
	c.Function.Arguments = text
	if first {
		c.ID, c.Type, c.Function.Name = "call_"+t.id, "function", f.call
	}
	if p.progress.done && t.c.stream {
		c.Function.Arguments += `"}`
	}
	return &answerMessage{ToolCalls: []toolCall{c}}
}

func (f chatForm) reason(p *part) *string {
	if f.call != "" && p.reason == "stop" {
		return new("tool_calls")
	}
	return &p.reason
}

func (f chatForm) whole(t *turn) any {
	a := t.answer("chatcmpl-", "chat.completion")
	for _, p := range t.parts {
		text := p.text()
		if f.call != "" {
			text = string(encode(object{"text": text}))
		}
		m := f.said(t, p, text, true)
		m.Role = "assistant"
		a.Choices = append(a.Choices, choice{Index: p.index, Message: m, FinishReason: f.reason(p)})
	}
	a.Usage = t.usage()
	return a
}

func (f chatForm) begin(out []byte, t *turn) []byte {
	for _, p := range t.parts {
		d := &answerMessage{Role: "assistant", Content: new("")}
		if f.call != "" {
			d.ToolCalls = f.said(t, &part{}, `{"text": "`, true).ToolCalls
		}
		out = t.appendChunk(out, t.answer("chatcmpl-", "chat.completion.chunk", choice{Index: p.index, Delta: d}))
	}
	return out
}

func (f chatForm) chunk(out []byte, t *turn, p *part, text string) []byte {
	c := choice{Index: p.index, Delta: f.said(t, p, text, false)}
	if p.progress.done {
		c.FinishReason = f.reason(p)
	}
	return t.appendChunk(out, t.answer("chatcmpl-", "chat.completion.chunk", c))
}

func (chatForm) end(out []byte, t *turn) []byte {
	return t.appendEnd(out, t.answer("chatcmpl-", "chat.completion.chunk"))
}

// refusal writes an error as an API has it.
type refusal func(http.ResponseWriter, *apiError)

// errorKinds are vLLM's names of errors.
var errorKinds = map[int]string{
	http.StatusBadRequest: "BadRequestError", http.StatusNotFound: "NotFoundError",
	http.StatusTooManyRequests: "RateLimitError", http.StatusServiceUnavailable: "ServiceUnavailableError",
	http.StatusInternalServerError: "InternalServerError",
}

func kindOf(status int) string {
	if kind := errorKinds[status]; kind != "" {
		return kind
	}
	return http.StatusText(status)
}

// writeError writes an error as vLLM does: the code is the status.
func writeError(w http.ResponseWriter, e *apiError) {
	setRetryAfter(w, e.status)
	writeJSON(w, e.status, errorBody{errorObject{Message: e.message, Type: kindOf(e.status), Param: optional(e.param), Code: e.status}})
}

func setRetryAfter(w http.ResponseWriter, status int) {
	if (status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable) && w.Header().Get("Retry-After") == "" {
		w.Header().Set("Retry-After", "1")
	}
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(encode(v), '\n')) // the client may have left
}
