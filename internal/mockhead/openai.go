package mockhead

import (
	"encoding/binary"
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
		IncludeUsage    bool `json:"include_usage"`
		ContinuousUsage bool `json:"continuous_usage_stats"`
	} `json:"stream_options"`
	Tools []struct {
		Function struct {
			Name string `json:"name"`
		} `json:"function"`
	} `json:"tools"`
	ToolChoice jsontext.Value `json:"tool_choice"`
	// IgnoreEOS makes the answer as long as the limit, as in vLLM.
	IgnoreEOS bool `json:"ignore_eos"`
}

type message struct {
	Role    string         `json:"role"`
	Content jsontext.Value `json:"content"`
}

type completion struct {
	form         form
	model        string
	prompts      []prompt
	n            int // choices for each prompt
	maxTokens    int // 0: not limited by the caller
	ignoreEOS    bool
	stream       bool
	includeUsage bool
	everyUsage   bool // in each chunk
}

type prompt struct {
	text   []byte // as rendered
	tokens int
}

// newPrompt counts the tokens of a text: one for four bytes.
func newPrompt(text []byte) prompt { return prompt{text: text, tokens: max(1, len(text)/4)} }

type apiError struct {
	status  int
	param   string // empty: null
	message string
}

func (e *apiError) Error() string { return e.message }

func invalid(param, format string, args ...any) *apiError {
	return &apiError{http.StatusBadRequest, param, fmt.Sprintf(format, args...)}
}

// Bounds of a request.
const (
	maxMessages = 4096
	maxParts    = 1024 // prompts times choices
)

// decodeCompletion decodes a request body. Its errors are of type *apiError.
func decodeCompletion(body []byte, chat bool) (*completion, error) {
	var r completionRequest
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, decodeError(err)
	}
	c := &completion{form: textForm{}, model: r.Model, n: 1, ignoreEOS: r.IgnoreEOS, stream: r.Stream}
	if r.StreamOptions != nil {
		c.includeUsage, c.everyUsage = r.StreamOptions.IncludeUsage, r.StreamOptions.ContinuousUsage
	}
	if r.Model == "" {
		return nil, invalid("model", "you must provide a model parameter")
	}
	if r.StreamOptions != nil && !r.Stream {
		return nil, invalid("stream_options", "Stream options can only be defined when `stream=True`.")
	}
	if r.N != nil {
		if *r.N < 1 || *r.N > 128 {
			return nil, invalid("n", "n must be 1 to 128, not %d", *r.N)
		}
		c.n = int(*r.N)
	}
	var err error
	if c.maxTokens, err = r.limit(); err != nil {
		return nil, err
	}
	if !chat {
		c.prompts, err = readPrompts(r.Prompt, "prompt")
		if len(c.prompts)*c.n > maxParts {
			return nil, invalid("prompt", "%d choices, at most %d", len(c.prompts)*c.n, maxParts)
		}
		return c, err
	}
	c.form = chatForm{call: r.forced()}
	text, err := render(r.Messages)
	c.prompts = []prompt{newPrompt(text)}
	return c, err
}

// forced is the function that tool_choice says must be called, or "".
func (r *completionRequest) forced() string {
	name := ""
	if len(r.Tools) > 0 {
		name = r.Tools[0].Function.Name
	}
	switch r.ToolChoice.Kind() {
	case '"':
		if string(r.ToolChoice) == `"required"` {
			return name
		}
	case '{':
		var choice struct {
			Function struct {
				Name string `json:"name"`
			} `json:"function"`
		}
		if json.Unmarshal(r.ToolChoice, &choice) == nil {
			return choice.Function.Name
		}
	}
	return ""
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
func render(messages []message) ([]byte, error) {
	if len(messages) == 0 {
		return nil, invalid("messages", "messages must hold at least one message")
	}
	if len(messages) > maxMessages {
		return nil, invalid("messages", "messages holds %d messages, at most %d", len(messages), maxMessages)
	}
	var out []byte
	for i, m := range messages {
		param := fmt.Sprintf("messages/%d", i)
		switch m.Role {
		case "system", "developer", "user", "assistant", "tool", "function":
		default:
			return nil, invalid(param+"/role", "%q is no role of a message", clip(m.Role))
		}
		out = append(out, "<|"+m.Role+"|>\n"...)
		text, err := contentText(m.Content, param+"/content")
		if err != nil {
			return nil, err
		}
		out = append(append(out, text...), '\n')
	}
	return out, nil
}

// partKinds are the kinds of content that are read. What is no text stands in
// the prompt as it was sent, so that the same picture has the same blocks.
var partKinds = map[string]bool{
	"text": true, "input_text": true, "output_text": true, "refusal": true, "thinking": true,
	"image_url": true, "input_image": true, "image": true, "video_url": true,
	"input_audio": true, "audio_url": true, "file": true, "input_file": true, "document": true,
	"tool_use": true, "tool_result": true,
}

// contentText reads a message's content: a string, a list of parts, or null.
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
		var parts []jsontext.Value
		if err := json.Unmarshal(v, &parts); err != nil {
			return "", invalid(param, "content must be a string or a list of parts")
		}
		var b strings.Builder
		for i, raw := range parts {
			var p struct {
				Type string `json:"type"`
				Text string `json:"text"`
			}
			if err := json.Unmarshal(raw, &p); err != nil {
				return "", invalid(param, "content must be a string or a list of parts")
			}
			switch {
			case !partKinds[p.Type]:
				return "", invalid(fmt.Sprintf("%s/%d/type", param, i), "%q is no kind of content", clip(p.Type))
			case p.Text != "":
				b.WriteString(p.Text)
			default:
				b.Write(raw)
			}
		}
		return b.String(), nil
	}
	return "", invalid(param, "content must be a string or a list of parts")
}

// readPrompts reads a prompt: a string, a list of strings, a list of token ids,
// or a list of lists of them.
func readPrompts(v jsontext.Value, param string) ([]prompt, error) {
	bad := invalid(param, "%s must be a string, a list of strings, a list of token ids, or a list of such lists", param)
	var text string
	if v.Kind() == '"' && json.Unmarshal(v, &text) == nil {
		return []prompt{newPrompt([]byte(text))}, nil
	}
	if v.Kind() != '[' {
		return nil, bad
	}
	var all []prompt
	var texts []string
	var ids []uint32
	var lists [][]uint32
	switch {
	case json.Unmarshal(v, &texts) == nil:
		for _, text := range texts {
			all = append(all, newPrompt([]byte(text)))
		}
	case json.Unmarshal(v, &ids) == nil:
		all = append(all, idPrompt(ids))
	case json.Unmarshal(v, &lists) == nil:
		for _, ids := range lists {
			if len(ids) == 0 {
				return nil, bad
			}
			all = append(all, idPrompt(ids))
		}
	}
	if len(all) == 0 || len(all) > maxParts {
		return nil, bad
	}
	return all, nil
}

// idPrompt has four bytes for an id, so that tokens are bytes / 4 here too.
func idPrompt(ids []uint32) prompt {
	p := prompt{tokens: len(ids)}
	for _, id := range ids {
		p.text = binary.BigEndian.AppendUint32(p.text, id)
	}
	return p
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
