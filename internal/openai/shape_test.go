package openai

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// An event that is known by its shape is read as by itself.
func TestEventsOfOneShapeReadAsAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		chat := byPath["/v1/chat/completions"]
		long := Stream{Endpoint: chat}
		for range 20 {
			text := rapid.SampledFrom([]string{`a`, `word `, `ü`, `\n`, `\"`, `"`, `\\`, "\x01", `"},"finish_reason":"stop","x":{"y":"`, `","role":"`, ``}).Draw(t, "text")
			form := rapid.SampledFrom([]string{
				`data: {"id":"1","choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":null}]}` + "\n\n",
				`data: {"id":"1","choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":"stop"}]}` + "\n\n",
				`data: {"id":"1","choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":null}],"usage":{"prompt_tokens":1,"completion_tokens":2}}` + "\n\n",
				`data: {"id":"1","choices":[{"text":"%s"}]}` + "\r\n\r\n",
				`data: {"id":"1","choices":[{"delta":{"role":"assistant","content":"%s","x":["y"]}}]}` + "\n\n",
				"data: {\"id\":\"1\",\ndata: \"choices\":[{\"delta\":{\"content\":\"%s\"}}]}\n\n",
				"event: error\ndata: {\"id\":\"%s\"}\n\n",
				`data: {"error":"%s"}` + "\n\n",
			}).Draw(t, "form")
			event := fmt.Appendf(nil, form, text)
			alone := Stream{Endpoint: chat}
			want, _, ok := alone.Next(event)
			got, _, _ := long.Next(event)
			if !ok || want.Class != got.Class || want.Usage != got.Usage || want.Text != got.Text || string(want.Bytes) != string(got.Bytes) {
				t.Fatalf("%q: %+v, alone %+v", event, got, want)
			}
			if alone.Finished() && !long.Finished() {
				t.Fatalf("%q: not finished", event)
			}
		}
	})
}
