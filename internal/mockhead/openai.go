package mockhead

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// completionRequest is the part of a chat or text completion that matters here.
// Unknown members are allowed; duplicate names and invalid UTF-8 are not.
type completionRequest struct {
	Model               string         `json:"model"`
	Messages            []message      `json:"messages"`
	Prompt              jsontext.Value `json:"prompt"`
	MaxTokens           *int64         `json:"max_tokens"`
	MaxCompletionTokens *int64         `json:"max_completion_tokens"`
	N                   *int64         `json:"n"`
	Stream              bool           `json:"stream"`
	StreamOptions       *struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	// IgnoreEOS makes the answer as long as the limit, as in vLLM.
	IgnoreEOS bool `json:"ignore_eos"`
}

type message struct {
	Role    string         `json:"role"`
	Content jsontext.Value `json:"content"`
}

type completion struct {
	chat         bool
	model        string
	prompt       []byte // the rendered text
	promptTokens int
	maxTokens    int // 0: not limited by the caller
	ignoreEOS    bool
	stream       bool
	includeUsage bool
}

type apiError struct {
	status  int
	code    string // empty: null
	param   string // empty: null
	message string
}

func (e *apiError) Error() string { return e.message }

func invalid(param, format string, args ...any) *apiError {
	return &apiError{http.StatusBadRequest, "", param, fmt.Sprintf(format, args...)}
}

const maxMessages = 4096

// decodeCompletion decodes a request body. Its errors are of type *apiError.
func decodeCompletion(body []byte, chat bool) (*completion, error) {
	var r completionRequest
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, decodeError(err)
	}
	c := &completion{
		chat: chat, model: r.Model, ignoreEOS: r.IgnoreEOS, stream: r.Stream,
		includeUsage: r.StreamOptions != nil && r.StreamOptions.IncludeUsage,
	}
	if r.Model == "" {
		return nil, invalid("model", "you must provide a model parameter")
	}
	if r.StreamOptions != nil && !r.Stream {
		return nil, invalid("stream_options", "stream_options is only allowed when stream is true")
	}
	if r.N != nil && *r.N != 1 {
		return nil, invalid("n", "n must be 1 here, not %d", *r.N)
	}
	var err error
	if c.maxTokens, err = r.limit(); err != nil {
		return nil, err
	}
	if chat {
		return c, c.render(r.Messages)
	}
	return c, c.readPrompt(r.Prompt)
}

func decodeError(err error) *apiError {
	var semantic *json.SemanticError
	if errors.As(err, &semantic) {
		param := strings.TrimPrefix(string(semantic.JSONPointer), "/")
		return invalid(param, "%q has the wrong type: a JSON %s does not fit", param, semantic.JSONKind)
	}
	var syntactic *jsontext.SyntacticError
	if errors.As(err, &syntactic) {
		if errors.Is(err, jsontext.ErrDuplicateName) {
			param := strings.TrimPrefix(string(syntactic.JSONPointer), "/")
			return invalid(param, "%q is given twice", param)
		}
		return invalid("", "the body is not valid JSON at byte %d", syntactic.ByteOffset)
	}
	return invalid("", "the body is not valid JSON")
}

// limit is the caller's bound on output tokens; the newer name wins.
func (r *completionRequest) limit() (int, error) {
	param, n := "max_completion_tokens", r.MaxCompletionTokens
	if n == nil {
		param, n = "max_tokens", r.MaxTokens
	}
	switch {
	case n == nil:
		return 0, nil
	case *n < 1 || *n > 1<<30:
		return 0, invalid(param, "%s must be 1 to %d, not %d", param, 1<<30, *n)
	}
	return int(*n), nil
}

// render joins the messages into one text, as a chat template does.
func (c *completion) render(messages []message) error {
	if len(messages) == 0 {
		return invalid("messages", "messages must hold at least one message")
	}
	if len(messages) > maxMessages {
		return invalid("messages", "messages holds %d messages, at most %d", len(messages), maxMessages)
	}
	for i, m := range messages {
		param := fmt.Sprintf("messages/%d", i)
		switch m.Role {
		case "system", "developer", "user", "assistant", "tool", "function":
		default:
			return invalid(param+"/role", "%q is no role of a message", clip(m.Role))
		}
		c.prompt = append(c.prompt, "<|"+m.Role+"|>\n"...)
		text, err := contentText(m.Content, param+"/content")
		if err != nil {
			return err
		}
		c.prompt = append(append(c.prompt, text...), '\n')
	}
	c.promptTokens = max(1, len(c.prompt)/4)
	return nil
}

// contentText reads a message's content: a string, a list of text parts, or
// null.
func contentText(v jsontext.Value, param string) (string, error) {
	switch v.Kind() {
	case 'n', 0:
		return "", nil
	case '"':
		var s string
		if err := json.Unmarshal(v, &s); err != nil {
			return "", invalid(param, "content is not valid JSON")
		}
		return s, nil
	case '[':
		var parts []struct {
			Type string `json:"type"`
			Text string `json:"text"`
		}
		if err := json.Unmarshal(v, &parts); err != nil {
			return "", invalid(param, "content must be a string or a list of parts")
		}
		var b strings.Builder
		for i, p := range parts {
			if p.Type != "text" {
				return "", invalid(fmt.Sprintf("%s/%d/type", param, i), "this head reads text parts only, not %q", clip(p.Type))
			}
			b.WriteString(p.Text)
		}
		return b.String(), nil
	}
	return "", invalid(param, "content must be a string or a list of parts")
}

// readPrompt reads a prompt: a string, one string in a list, or a list of token
// ids.
func (c *completion) readPrompt(v jsontext.Value) error {
	const want = "prompt must be a string, one string in a list, or a list of token ids"
	var text string
	switch v.Kind() {
	case '"':
		if err := json.Unmarshal(v, &text); err != nil {
			return invalid("prompt", want)
		}
	case '[':
		var texts []string
		if json.Unmarshal(v, &texts) == nil {
			if len(texts) != 1 {
				return invalid("prompt", "prompt holds %d texts, this head takes one at a time", len(texts))
			}
			text = texts[0]
			break
		}
		var ids []uint32
		if err := json.Unmarshal(v, &ids); err != nil || len(ids) == 0 {
			return invalid("prompt", want)
		}
		for _, id := range ids { // four bytes each, so that tokens are bytes / 4 here too
			c.prompt = append(c.prompt, byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
		}
		c.promptTokens = len(ids)
		return nil
	default:
		return invalid("prompt", want)
	}
	c.prompt = []byte(text)
	c.promptTokens = max(1, len(text)/4)
	return nil
}

func clip(s string) string {
	const limit = 40
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}

// vocabulary is the text of answers. Each word is four bytes with its space,
// one token, so that an answer in a later prompt has the same count.
const vocabulary = "the sun and sea are old but you can see how far one may run for his own day now " +
	"let all ask who has key our big red box its lid was cut off ice axe six men got out "

const wordBytes = 4

// AppendText appends tokens from to to-1 of the text that a seed generates,
// four bytes each.
func AppendText(dst []byte, seed uint64, from, to int) []byte {
	for i := from; i < to; i++ {
		n := mix(seed, uint64(i)) % uint64(len(vocabulary)/wordBytes)
		dst = append(dst, vocabulary[n*wordBytes:][:wordBytes]...)
	}
	return dst
}

func mix(a, b uint64) uint64 { return rand.NewPCG(a, b).Uint64() }

type (
	answer struct {
		ID      string   `json:"id"`
		Object  string   `json:"object"`
		Created int64    `json:"created"`
		Model   string   `json:"model"`
		Choices []choice `json:"choices"`
		Usage   *usage   `json:"usage,omitempty"`
	}
	choice struct {
		Index        int            `json:"index"`
		Message      *answerMessage `json:"message,omitempty"`
		Delta        *answerMessage `json:"delta,omitempty"`
		Text         *string        `json:"text,omitempty"`
		FinishReason *string        `json:"finish_reason"`
	}
	answerMessage struct {
		Role    string  `json:"role,omitempty"`
		Content *string `json:"content,omitempty"`
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
		Code    *string `json:"code"`
	}
	modelList struct {
		Object string        `json:"object"`
		Data   []modelObject `json:"data"`
	}
	modelObject struct {
		ID          string `json:"id"`
		Object      string `json:"object"`
		Created     int64  `json:"created"`
		OwnedBy     string `json:"owned_by"`
		MaxModelLen int    `json:"max_model_len"`
	}
)

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // the objects above hold nothing that cannot be encoded
	}
	return b
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func writeError(w http.ResponseWriter, e *apiError) {
	kind := "invalid_request_error"
	switch e.status {
	case http.StatusTooManyRequests:
		kind = "rate_limit_error"
	case http.StatusServiceUnavailable:
		kind = "server_error"
	}
	if kind != "invalid_request_error" {
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, e.status, errorBody{errorObject{Message: e.message, Type: kind, Param: optional(e.param), Code: optional(e.code)}})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(encode(v), '\n')) // the client may have left
}
