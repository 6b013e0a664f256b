package mockhead

import (
	"bytes"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// responsesForm is that of the responses API.
type responsesForm struct{}

func decodeResponses(r *http.Request, body []byte) (*completion, error) {
	if err := isJSON(r); err != nil {
		return nil, err
	}
	var in struct {
		Model           string         `json:"model"`
		Input           jsontext.Value `json:"input"`
		Instructions    string         `json:"instructions"`
		MaxOutputTokens *int64         `json:"max_output_tokens"`
		Stream          bool           `json:"stream"`
		IgnoreEOS       bool           `json:"ignore_eos"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, decodeError(err)
	}
	text, err := inputText(in.Input)
	if err != nil {
		return nil, err
	}
	c := &completion{
		form: responsesForm{}, model: in.Model, n: 1, stream: in.Stream, ignoreEOS: in.IgnoreEOS,
		prompts: []prompt{newPrompt(append([]byte(in.Instructions), text...))},
	}
	c.maxTokens, err = (&completionRequest{MaxTokens: in.MaxOutputTokens}).limit()
	return c, err
}

// inputText reads the input of a response: a text, or a list of items whose
// content is a text or parts. Other items stand in the prompt as sent.
func inputText(v jsontext.Value) (string, error) {
	if v.Kind() != '[' {
		text, err := contentText(v, "input")
		if err == nil && text == "" {
			err = invalid("input", "input must be a string or a list of items")
		}
		return text, err
	}
	var items []jsontext.Value
	if err := json.Unmarshal(v, &items); err != nil {
		return "", invalid("input", "input must be a string or a list of items")
	}
	var b bytes.Buffer
	for _, raw := range items {
		var m struct {
			Content jsontext.Value `json:"content"`
		}
		if err := json.Unmarshal(raw, &m); err != nil {
			return "", invalid("input", "an item of the input must be an object")
		}
		if m.Content == nil {
			b.Write(raw)
			continue
		}
		text, err := contentText(m.Content, "input/content")
		if err != nil {
			return "", err
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

func (t *turn) response(status string, output ...any) object {
	r := object{
		"id": "resp_" + t.id, "object": "response", "created_at": t.created, "model": t.c.model,
		"status": status, "output": append([]any{}, output...), "error": nil, "incomplete_details": nil,
		"instructions": nil, "metadata": object{}, "parallel_tool_calls": true, "temperature": 1.0,
		"tool_choice": "auto", "tools": []any{}, "top_p": 1.0, "usage": nil,
	}
	if status == "incomplete" {
		r["incomplete_details"] = object{"reason": "max_output_tokens"}
	}
	if status == "completed" || status == "incomplete" {
		u := t.usage()
		r["usage"] = object{
			"input_tokens": u.PromptTokens, "output_tokens": u.CompletionTokens, "total_tokens": u.TotalTokens,
			"input_tokens_details":  object{"cached_tokens": u.PromptDetails.CachedTokens},
			"output_tokens_details": object{"reasoning_tokens": 0},
		}
	}
	return r
}

func (t *turn) outputText(text string) object {
	return object{"type": "output_text", "text": text, "annotations": []any{}}
}

func (t *turn) outputItem(status string, content ...any) object {
	return object{"id": "msg_" + t.id, "type": "message", "role": "assistant", "status": status, "content": append([]any{}, content...)}
}

func (t *turn) finalStatus() string {
	if t.parts[0].reason == "length" {
		return "incomplete"
	}
	return "completed"
}

func (responsesForm) whole(t *turn) any {
	status := t.finalStatus()
	return t.response(status, t.outputItem(status, t.outputText(t.parts[0].text())))
}

// event appends a named event with the next number.
func (t *turn) event(out []byte, kind string, fields object) []byte {
	fields["type"], fields["sequence_number"] = kind, t.events
	t.events++
	return appendEvent(append(append(append(out, "event: "...), kind...), '\n'), encode(fields))
}

// inItem are the fields of an event within the one item.
func (t *turn) inItem(fields object) object {
	fields["item_id"], fields["output_index"], fields["content_index"] = "msg_"+t.id, 0, 0
	return fields
}

func (responsesForm) begin(out []byte, t *turn) []byte {
	out = t.event(out, "response.created", object{"response": t.response("in_progress")})
	out = t.event(out, "response.in_progress", object{"response": t.response("in_progress")})
	out = t.event(out, "response.output_item.added", object{"output_index": 0, "item": t.outputItem("in_progress")})
	return t.event(out, "response.content_part.added", t.inItem(object{"part": t.outputText("")}))
}

func (responsesForm) chunk(out []byte, t *turn, _ *part, text string) []byte {
	return t.event(out, "response.output_text.delta", t.inItem(object{"delta": text, "logprobs": []any{}}))
}

func (responsesForm) end(out []byte, t *turn) []byte {
	text, status := t.parts[0].text(), t.finalStatus()
	item := t.outputItem(status, t.outputText(text))
	out = t.event(out, "response.output_text.done", t.inItem(object{"text": text, "logprobs": []any{}}))
	out = t.event(out, "response.content_part.done", t.inItem(object{"part": t.outputText(text)}))
	out = t.event(out, "response.output_item.done", object{"output_index": 0, "item": item})
	return t.event(out, "response."+status, object{"response": t.response(status, item)})
}
