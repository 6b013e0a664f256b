package demo

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"github.com/go-json-experiment/json"

	"headway/internal/mockhead"
	"headway/internal/workload"
)

// completion is the body of a streamed chat completion. ignore_eos is vLLM's:
// the answer is exactly as long as the trace says.
func completion(a *workload.Arrival) []byte {
	b, err := json.Marshal(map[string]any{
		"model": a.Model, "max_tokens": a.Output, "ignore_eos": true, "stream": true,
		"messages":       []map[string]string{{"role": "user", "content": string(prompt(a))}},
		"stream_options": map[string]bool{"include_usage": true},
	})
	if err != nil {
		panic(err) // nothing of it cannot be encoded
	}
	return b
}

// prompt makes a text whose blocks are equal where those of the trace are.
func prompt(a *workload.Arrival) (text []byte) {
	left := a.Input
	for _, block := range a.Blocks() {
		text = mockhead.AppendText(text, block, 0, min(left, workload.BlockTokens))
		left -= workload.BlockTokens
	}
	return text
}

const maxChunk = 1 << 20

var (
	errCut   = errors.New("the stream ended before [DONE]")
	dataLine = []byte("data: ")
	doneLine = []byte("[DONE]")
)

// readStream reads the events of a chat completion to [DONE] and calls first at
// the first content. An error object in the stream is a failure.
func readStream(r io.Reader, first func()) (u tokens, err error) {
	begun := false
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxChunk)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), dataLine)
		if !ok {
			continue // a comment, or the empty line after an event
		}
		if bytes.Equal(data, doneLine) {
			return u, nil
		}
		var chunk struct {
			Choices []struct {
				Delta struct {
					Content string `json:"content"`
				} `json:"delta"`
			} `json:"choices"`
			Usage *struct {
				PromptTokens     int64 `json:"prompt_tokens"`
				CompletionTokens int64 `json:"completion_tokens"`
				Details          struct {
					CachedTokens int64 `json:"cached_tokens"`
				} `json:"prompt_tokens_details"`
			} `json:"usage"`
			Error any `json:"error"`
		}
		if err := json.Unmarshal(data, &chunk); err != nil || chunk.Error != nil {
			return u, errCut
		}
		if !begun && len(chunk.Choices) > 0 && chunk.Choices[0].Delta.Content != "" {
			begun = true
			first()
		}
		if chunk.Usage != nil {
			u = tokens{chunk.Usage.PromptTokens, chunk.Usage.CompletionTokens, chunk.Usage.Details.CachedTokens}
		}
	}
	return u, errCut
}
