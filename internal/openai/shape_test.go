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

// Events in pieces with borders anywhere are those that come one by one.
func TestEventsOfOneShapeInPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		chat := byPath["/v1/chat/completions"]
		var text []byte
		for range rapid.IntRange(1, 12).Draw(t, "events") {
			text = append(text, rapid.SampledFrom([]string{
				`data: {"choices":[{"delta":{"content":"a word"}}]}` + "\n\n", `data: {"choices":[{"delta":{"content":"b"}}]}` + "\n\n",
				`data: {"choices":[{"delta":{"content":"c"}}]}` + "\r\n\r\n", `data: {"choices":[{"delta":{"content":"d"}}]}` + "\r\r", `data: {"choices":[{"delta":{"content":"e"}}]}` + "\n",
				": comment\n", "\n", "\r\n", "\r", "data: [DONE]\n\n",
			}).Draw(t, "event")...)
		}
		steps := rapid.SliceOfN(rapid.IntRange(1, 150), 1, 20).Draw(t, "steps")
		read := func(s *Stream, forget bool, p []byte) (all []Event) {
			for i := 0; len(p) > 0; i++ {
				step := min(steps[i%len(steps)], len(p))
				for piece := p[:step]; len(piece) > 0; {
					if forget {
						s.shape = shape{}
					}
					e, rest, ok := s.Next(piece)
					if piece = rest; ok {
						e.Bytes = append([]byte(nil), e.Bytes...)
						all = append(all, e)
					}
				}
				p = p[step:]
			}
			if e, ok := s.Flush(); ok {
				all = append(all, e)
			}
			return all
		}
		with, without := read(&Stream{Endpoint: chat}, false, text), read(&Stream{Endpoint: chat}, true, text)
		if a, b := fmt.Sprintf("%+v", with), fmt.Sprintf("%+v", without); a != b {
			t.Fatalf("%q: %s with shapes, %s without", text, a, b)
		}
	})
}
