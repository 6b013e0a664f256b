package mockhead

import (
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// messagesForm is that of Anthropic's messages.
type messagesForm struct{}

func decodeMessages(r *http.Request, body []byte) (*completion, error) {
	c, limit, err := readMessages(r, body)
	if err != nil {
		return nil, err
	}
	if limit == nil {
		return nil, invalid("max_tokens", "max_tokens: Field required")
	}
	c.maxTokens, err = (&completionRequest{MaxTokens: limit}).limit()
	return c, err
}

// readMessages reads what a message and the counting of its tokens have in
// common.
func readMessages(r *http.Request, body []byte) (c *completion, limit *int64, err error) {
	if err := isJSON(r); err != nil {
		return nil, nil, err
	}
	var in struct {
		Model     string         `json:"model"`
		System    jsontext.Value `json:"system"`
		Messages  []message      `json:"messages"`
		Tools     jsontext.Value `json:"tools"`
		MaxTokens *int64         `json:"max_tokens"`
		Stream    bool           `json:"stream"`
		IgnoreEOS bool           `json:"ignore_eos"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, nil, decodeError(err)
	}
	system, err := contentText(in.System, "system")
	if err != nil {
		return nil, nil, err
	}
	text, err := render(in.Messages)
	if err != nil {
		return nil, nil, err
	}
	all := append(append([]byte(system), in.Tools...), text...)
	return &completion{
		form: messagesForm{}, model: in.Model, n: 1, stream: in.Stream, ignoreEOS: in.IgnoreEOS, prompts: []prompt{newPrompt(all)},
	}, in.MaxTokens, nil
}

// countTokens answers how long a message's prompt is.
func countTokens(_ *Head, r *http.Request, body []byte) (string, any, error) {
	c, _, err := readMessages(r, body)
	if err != nil {
		return "", nil, err
	}
	return c.model, object{"input_tokens": c.prompts[0].tokens}, nil
}

func stopReason(p *part) string {
	if p.reason == "length" {
		return "max_tokens"
	}
	return "end_turn"
}

// message is the head of a message: the whole one, or the start of a stream.
func (t *turn) message(content []any, reason any) object {
	u := t.usage()
	return object{
		"id": "msg_" + t.id, "type": "message", "role": "assistant", "model": t.c.model,
		"content": content, "stop_reason": reason, "stop_sequence": nil,
		"usage": object{
			"input_tokens": u.PromptTokens - u.PromptDetails.CachedTokens, "output_tokens": u.CompletionTokens,
			"cache_read_input_tokens": u.PromptDetails.CachedTokens, "cache_creation_input_tokens": 0,
		},
	}
}

func (messagesForm) whole(t *turn) any {
	p := t.parts[0]
	return t.message([]any{object{"type": "text", "text": p.text()}}, stopReason(p))
}

// named appends an event whose name is also its type.
func named(out []byte, kind string, fields object) []byte {
	fields["type"] = kind
	return appendEvent(append(append(append(out, "event: "...), kind...), '\n'), encode(fields))
}

func (messagesForm) begin(out []byte, t *turn) []byte {
	out = named(out, "message_start", object{"message": t.message([]any{}, nil)})
	out = named(out, "content_block_start", object{"index": 0, "content_block": object{"type": "text", "text": ""}})
	return named(out, "ping", object{})
}

func (messagesForm) chunk(out []byte, _ *turn, _ *part, text string) []byte {
	return named(out, "content_block_delta", object{"index": 0, "delta": object{"type": "text_delta", "text": text}})
}

func (messagesForm) end(out []byte, t *turn) []byte {
	out = named(out, "content_block_stop", object{"index": 0})
	out = named(out, "message_delta", object{
		"delta": object{"stop_reason": stopReason(t.parts[0]), "stop_sequence": nil},
		"usage": object{"output_tokens": t.usage().CompletionTokens},
	})
	return named(out, "message_stop", object{})
}

// messageErrors are Anthropic's names of errors.
var messageErrors = map[int]string{
	http.StatusNotFound: "not_found_error", http.StatusTooManyRequests: "rate_limit_error",
	http.StatusRequestEntityTooLarge: "request_too_large", http.StatusServiceUnavailable: "overloaded_error",
	http.StatusInternalServerError: "api_error",
}

func writeMessagesError(w http.ResponseWriter, e *apiError) {
	kind := messageErrors[e.status]
	if kind == "" {
		kind = "invalid_request_error"
	}
	setRetryAfter(w, e.status)
	writeJSON(w, e.status, object{"type": "error", "error": object{"type": kind, "message": e.message}})
}
