package openai_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"headway/internal/openai"
)

var (
	chat, _, _      = openai.Lookup("POST", "/v1/chat/completions")
	responses, _, _ = openai.Lookup("POST", "/v1/responses")
	messages, _, _  = openai.Lookup("POST", "/v1/messages")
)

// run gives a stream in pieces with the borders given, and returns what was
// passed on, the classes but of empty pieces, and the usage.
func run(s *openai.Stream, text string, borders []int) (out string, classes []openai.Class, usage openai.Usage) {
	var b strings.Builder
	take := func(e openai.Event) {
		b.Write(e.Bytes)
		if strings.TrimLeft(string(e.Bytes), "\r\n") != "" {
			classes = append(classes, e.Class)
		}
	}
	from := 0
	for _, to := range append(borders, len(text)) {
		for rest := []byte(text[from:to]); ; {
			e, left, ok := s.Next(rest)
			if !ok {
				break
			}
			take(e)
			rest = left
		}
		from = to
	}
	if e, ok := s.Flush(); ok {
		take(e)
	}
	return b.String(), classes, s.Usage()
}

const (
	role    = `{"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}`
	word    = `{"choices":[{"delta":{"content":"hi"}}],"model":"m"}`
	counted = `{"model":"m","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":4}}}`
)

func TestPitfallP8EveryFramingIsPassedOnAndRead(t *testing.T) {
	plain := ": hello\n\ndata: " + role + "\n\ndata: " + word + "\n\ndata: " + counted + "\n\ndata: [DONE]\n\n"
	for name, text := range map[string]string{
		"LF":           plain,
		"CRLF":         strings.ReplaceAll(plain, "\n", "\r\n"),
		"CR":           strings.ReplaceAll(plain, "\n", "\r"),
		"no space":     strings.ReplaceAll(plain, "data: ", "data:"),
		"BOM":          "\ufeff" + strings.TrimPrefix(plain, ": hello\n\n"),
		"event lines":  strings.ReplaceAll(plain, "data: ", "event: message\nid: 1\ndata: "),
		"more lines":   strings.ReplaceAll(plain, `,"`, ",\ndata: \""),
		"no last line": strings.TrimRight(plain, "\n"),
		"comments":     strings.ReplaceAll(plain, "\n\n", "\n: x\n\n"),
	} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				borders := borders(t, len(text))
				out, classes, usage := run(&openai.Stream{Endpoint: chat}, text, borders)
				if out != text {
					t.Fatalf("passed on %q, want %q", out, text)
				}
				if usage != (openai.Usage{Input: 10, Output: 5, Cached: 4}) {
					t.Fatalf("usage is %+v", usage)
				}
				for classes[0] == openai.StartUp {
					classes = classes[1:]
				}
				if len(classes) < 3 || classes[0] != openai.Content || classes[1] != openai.UsageOnly || !has(classes, openai.Done) {
					t.Fatalf("classes are %v", classes)
				}
				out, _, _ = run(&openai.Stream{Endpoint: chat, Model: "alias"}, text, borders)
				if want := strings.ReplaceAll(text, `"model":"m"`, `"model":"alias"`); out != want {
					t.Fatalf("passed on %q, want %q", out, want)
				}
			})
		})
	}
}

func has(classes []openai.Class, c openai.Class) bool {
	for _, have := range classes {
		if have == c {
			return true
		}
	}
	return false
}

func borders(t *rapid.T, n int) []int {
	var list []int
	for at := 0; ; {
		at += rapid.IntRange(1, 60).Draw(t, "chunk")
		if at >= n {
			return list
		}
		list = append(list, at)
	}
}

func TestPitfallP11UsageInParts(t *testing.T) {
	for _, c := range []struct {
		at   *openai.Endpoint
		text string
		want openai.Usage
	}{
		{chat, `data: {"choices":[],"usage":{"prompt_tokens":10}}

data: {"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":0,"completion_tokens":0}}

data: {"choices":[],"usage":{"completion_tokens":5,"prompt_tokens":0}}

`, openai.Usage{Input: 10, Output: 5, Cached: openai.Unknown}},
		{messages, `event: message_start
data: {"type":"message_start","message":{"model":"m","usage":{"input_tokens":3,"cache_read_input_tokens":100,"cache_creation_input_tokens":20,"output_tokens":1}}}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":0,"output_tokens":15}}

`, openai.Usage{Input: 123, Output: 15, Cached: 100}},
		{responses, `event: response.completed
data: {"type":"response.completed","response":{"model":"m","error":null,"usage":{"input_tokens":7,"input_tokens_details":{"cached_tokens":2},"output_tokens":9,"total_tokens":16}}}

`, openai.Usage{Input: 7, Output: 9, Cached: 2}},
		{chat, "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":10}\n\n", openai.Usage{Input: openai.Unknown, Output: openai.Unknown, Cached: openai.Unknown}},
		{chat, "", openai.Usage{Input: openai.Unknown, Output: openai.Unknown, Cached: openai.Unknown}},
	} {
		if _, _, got := run(&openai.Stream{Endpoint: c.at}, c.text, nil); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.text, got, c.want)
		}
	}
}

func TestClasses(t *testing.T) {
	for event, want := range map[string]openai.Class{
		": ping":                          openai.StartUp,
		"retry: 10":                       openai.StartUp,
		"data: [DONE]":                    openai.Done,
		"data:[DONE] ":                    openai.Done,
		"data: not JSON":                  openai.Content,
		"data: " + role:                   openai.StartUp,
		"data: " + word:                   openai.Content,
		"data: " + counted:                openai.UsageOnly,
		`data: {"id":"x"}`:                openai.Content,
		`data: {"error":{}}`:              openai.Content,
		`data: {"error":{"message":"x"}}`: openai.Failed,
		`data: {"error":"x"}`:             openai.Failed,
		`data: {"error":null,"choices":[{"text":"a"}]}`:                                                   openai.Content,
		`data: {"choices":[{"text":""}]}`:                                                                 openai.StartUp,
		`data: {"choices":[{"delta":{},"finish_reason":"stop"}]}`:                                         openai.Content,
		`data: {"choices":[{"delta":{"reasoning_content":"a"}}]}`:                                         openai.Content,
		`data: {"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}`:                                      openai.Content,
		`data: {"choices":null,"usage":{"prompt_tokens":10}}`:                                             openai.UsageOnly,
		`data: {"choices":[],"prompt_filter_results":[]}`:                                                 openai.StartUp,
		"event: error\ndata: x":                                                                           openai.Failed,
		"event: ping\ndata: {\"type\":\"ping\"}":                                                          openai.StartUp,
		"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{}}":                         openai.StartUp,
		"event: message_stop\ndata: {\"type\":\"message_stop\"}":                                          openai.Done,
		`data: {"type":"content_block_delta","delta":{"type":"text_delta"}}`:                              openai.Content,
		`data: {"type":"response.created","response":{"error":null}}`:                                     openai.StartUp,
		`data: {"type":"response.failed","response":{"error":{"code":"x"}}}`:                              openai.Failed,
		`data: {"type":"response.completed","response":{}}`:                                               openai.Done,
		`data: {"type":"response.output_text.delta","delta":"a"}`:                                         openai.Content,
		`data: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`:               openai.Failed,
		`data: {"choices":[{"delta":{"content":""},"finish_reason":"error"}],"error":{"message":"lost"}}`: openai.Failed,
	} {
		if _, got, _ := run(&openai.Stream{Endpoint: chat}, event+"\n\n", nil); len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %v, want %v", event, got, want)
		}
	}
}

// A comment of one's own goes between events only.
func TestPitfallP6BetweenEventsOnly(t *testing.T) {
	s := &openai.Stream{Endpoint: chat}
	for _, step := range []struct {
		piece   string
		between bool
	}{
		{"", true},
		{"data: {\"a", false},
		{"\":1}\n", false},
		{"\n", true},
		{": ping\n", true},
		{"data: x\r\n\r", false},
		{"\n", true},
		{"data: y\r", false},
		{"\r", true},
		{"\n", true},
		{"event: x\n", false},
		{"\n", true},
	} {
		for rest := []byte(step.piece); ; {
			_, left, ok := s.Next(rest)
			if !ok {
				break
			}
			rest = left
		}
		if s.Between() != step.between {
			t.Errorf("after %q: between events is %v", step.piece, s.Between())
		}
	}
}

// An event of any length passes; what is kept of it has a bound.
func TestPitfallP7LongEvents(t *testing.T) {
	long := "event: response.completed\ndata: {\"type\":\"response.completed\",\"x\":\"" + strings.Repeat("a", 3<<20) + "\"}\n\n"
	text := "data: " + word + "\n\n" + long + "data: " + counted + "\n\n"
	var borders []int
	for at := 1000; at < len(text); at += 1000 {
		borders = append(borders, at)
	}
	borders = append(borders, len(text))
	const limit = 64 << 10
	bounded, from := &openai.Stream{Endpoint: responses, Limit: limit}, 0
	for _, to := range borders {
		for rest := []byte(text[from:to]); ; {
			e, left, ok := bounded.Next(rest)
			if !ok {
				break
			}
			if rest = left; len(e.Bytes) > limit+1000 {
				t.Fatalf("%d bytes were kept of an event, at most %d", len(e.Bytes), limit)
			}
		}
		from = to
	}
	out, classes, usage := run(&openai.Stream{Endpoint: responses, Limit: limit}, text, borders)
	if out != text {
		t.Error("the long event was changed")
	}
	last := classes[len(classes)-2:]
	if last[0] != openai.Done || last[1] != openai.UsageOnly || usage.Output != 5 {
		t.Errorf("classes end in %v, usage is %+v", last, usage)
	}
}

func FuzzStream(f *testing.F) {
	f.Add("data: "+role+"\n\ndata: "+counted+"\n\n", uint16(3))
	f.Add("\ufeffdata: {\"model\":\r\ndata: \"m\"}\r\n\r\n", uint16(5))
	f.Add("data\r\rdata:\r:\n\r\n\n", uint16(1))
	f.Fuzz(func(t *testing.T, text string, step uint16) {
		whole, classes, usage := run(&openai.Stream{Endpoint: messages}, text, nil)
		if whole != text {
			t.Fatalf("%q became %q", text, whole)
		}
		var borders []int
		for at := int(step%50) + 1; at < len(text); at += int(step%50) + 1 {
			borders = append(borders, at)
		}
		for _, s := range []*openai.Stream{{Endpoint: messages}, {Endpoint: messages, Limit: 20}} {
			out, pieces, counted := run(s, text, borders)
			if out != text {
				t.Fatalf("in pieces of %d: %q became %q", step%50+1, text, out)
			}
			if s.Limit == 0 && (len(pieces) != len(classes) || counted != usage) {
				t.Fatalf("in pieces of %d: %q has %v and %v, and as one %v and %v", step%50+1, text, pieces, counted, classes, usage)
			}
		}
		renamed, _, _ := run(&openai.Stream{Endpoint: messages, Model: "x"}, text, borders)
		if len(renamed) < len(text)-len(text)/2 && !strings.Contains(text, "model") && !strings.Contains(text, `\u`) {
			t.Fatalf("%q became %q", text, renamed)
		}
	})
}

func BenchmarkStreamChunk(b *testing.B) {
	chunk := []byte(`data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"m","choices":[{"index":0,"delta":{"content":"Hello"},"logprobs":null,"finish_reason":null}]}` + "\n\n")
	for _, model := range []string{"", "alias"} {
		b.Run("model="+model, func(b *testing.B) {
			b.ReportAllocs()
			s := openai.Stream{Endpoint: chat, Model: model}
			for b.Loop() {
				if _, _, ok := s.Next(chunk); !ok {
					b.Fatal("no event")
				}
			}
		})
	}
}
