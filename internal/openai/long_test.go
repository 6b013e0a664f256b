package openai_test

import (
	"strings"
	"testing"

	"headway/internal/openai"
)

// What a long event says of usage, the model and errors is read as it goes by.
func TestPitfallP7LongEventsAreRead(t *testing.T) {
	images, _, _ := openai.Lookup("POST", "/v1/images/generations")
	data := strings.Repeat("A", 5000)
	const usage = `"usage":{"input_tokens":10,"output_tokens":5,"input_tokens_details":{"cached_tokens":4}}`
	counts, none := openai.Usage{Input: 10, Output: 5, Cached: 4}, openai.Usage{Input: openai.Unknown, Output: openai.Unknown, Cached: openai.Unknown}
	for name, c := range map[string]struct {
		at    *openai.Endpoint
		event string // its model is m where it is to be changed
		class openai.Class
		usage openai.Usage
	}{
		"an image":          {images, "event: image_generation.completed\ndata: {\"b64_json\":\"" + data + "\"," + usage + "}\n\n", openai.Done, counts},
		"a response":        {responses, "event: response.completed\ndata: {\"type\":\"x\",\"response\" : {\"instructions\":\"" + data + "\",\"metadata\":{\"model\":\"other\"},\"model\":\"m\",\"error\":null," + usage + "},\"model\":\"m\"}\n\n", openai.Done, counts},
		"a response, CRLF":  {responses, "event: response.completed\r\ndata:{\"response\":{\"model\":\"m\"," + usage + ",\"x\":\"" + data + "\"}}\r\n\r\n", openai.Done, counts},
		"a chunk":           {chat, "data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"" + data + "\",\"model\":\"other\"}}]," + usage + "}\n\n", openai.Content, counts},
		"a message":         {responses, "data: {\"response\":[{\"model\":\"other\"}],\"x\":{\"response\":{\"model\":\"other\"}},\"message\":{\"response\":{\"model\":\"other\"},\"model\":\"m\"},\"y\":\"" + data + "\"}\n\n", openai.Content, none},
		"an error":          {chat, "data: {\"x\":\"" + data + "\",\"error\":{\"message\":\"full\"}}\n\n", openai.Failed, none},
		"an error within":   {responses, "data: {\"response\":{\"x\":\"" + data + "\",\"error\":\"full\"}}\n\n", openai.Failed, none},
		"data of two lines": {chat, "data: {\"x\":\"" + data + "\",\"model\":\ndata: \"other\"," + usage + "}\n\n", openai.Content, none},
		"a line behind it":  {chat, "data: {\"x\":\"" + data + "\",\"model\":\"m\"}\nid: {\"model\":\"other\"}\n\n", openai.Content, none},
		"no data":           {chat, "id: {\"x\":\"" + data + "\",\"model\":\"other\"}\n\n", openai.Content, none},
	} {
		for _, step := range []int{1, 7, 1000, len(c.event)} {
			for _, model := range []string{"", "an \"alias\""} {
				s := &openai.Stream{Endpoint: c.at, Model: model, Limit: 600}
				out, class := "", openai.StartUp
				for at := 0; at < len(c.event); at += step {
					e, rest, ok := s.Next([]byte(c.event[at:min(at+step, len(c.event))]))
					if out += string(e.Bytes); ok {
						class = e.Class
					}
					if len(rest) > 0 {
						t.Fatalf("%s: the event ends before %q", name, rest)
					}
				}
				want := c.event
				if model != "" {
					want = strings.ReplaceAll(want, `"m"`, `"an \"alias\""`)
				}
				if got := s.Usage(); out != want || class != c.class || got != c.usage || !s.Between() {
					t.Errorf("%s, in pieces of %d, model %q: %.150q, class %v, usage %+v", name, step, model, strings.ReplaceAll(out, data, "A…"), class, got)
				}
			}
		}
	}
}

// Usage before and behind a long event is summed up with its own.
func TestTheUsageOfALongEventIsOneOfMany(t *testing.T) {
	text := "data: {\"usage\":{\"prompt_tokens\":10}}\n\ndata: {\"x\":\"" + strings.Repeat("a", 5000) + "\",\"usage\":{\"completion_tokens\":3}}\n\ndata: {\"usage\":{\"completion_tokens\":5,\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n"
	if _, _, got := run(&openai.Stream{Endpoint: chat, Limit: 600}, text, []int{100, 2000}); got != (openai.Usage{Input: 10, Output: 5, Cached: 4}) {
		t.Errorf("usage is %+v", got)
	}
}
