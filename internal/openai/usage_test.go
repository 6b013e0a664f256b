package openai_test

import (
	"testing"

	"headway/internal/openai"
)

// A head that says that it had none of a prompt in its cache is not one that says
// nothing, as engines do unless they are asked to count.
func TestCachedTokensOfEachForm(t *testing.T) {
	messages, _, _ := openai.Lookup("POST", "/v1/messages")
	responses, _, _ := openai.Lookup("POST", "/v1/responses")
	for _, c := range []struct {
		endpoint *openai.Endpoint
		usage    string
		want     int64
	}{
		{chat, `{"prompt_tokens":10,"completion_tokens":5}`, openai.Unknown},
		{chat, `{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":null}`, openai.Unknown},
		{chat, `{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{}}`, openai.Unknown},
		{chat, `{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"audio_tokens":0,"cached_tokens":null}}`, openai.Unknown},
		{chat, `{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"audio_tokens":0,"cached_tokens":0}}`, 0},
		{chat, `{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":4}}`, 4},
		{chat, `{"prompt_tokens":10,"completion_tokens":5,"completion_tokens_details":{"cached_tokens":4}}`, openai.Unknown},
		{responses, `{"input_tokens":10,"output_tokens":5}`, openai.Unknown},
		{responses, `{"input_tokens":10,"output_tokens":5,"input_tokens_details":{"cached_tokens":0}}`, 0},
		{responses, `{"input_tokens":10,"output_tokens":5,"input_tokens_details":{"cached_tokens":4}}`, 4},
		{messages, `{"input_tokens":10,"output_tokens":5}`, openai.Unknown},
		{messages, `{"input_tokens":10,"output_tokens":5,"cache_read_input_tokens":null,"cache_creation_input_tokens":null}`, openai.Unknown},
		{messages, `{"input_tokens":10,"output_tokens":5,"cache_read_input_tokens":0,"cache_creation_input_tokens":0}`, 0},
		{messages, `{"input_tokens":6,"output_tokens":5,"cache_read_input_tokens":4}`, 4},
	} {
		want := openai.Usage{Input: 10, Output: 5, Cached: c.want}
		body := `{"model":"m","usage":` + c.usage + `}`
		var read openai.Answer
		if read.Reset(c.endpoint, ""); !read.Read([]byte(body)) || read.Usage() != want {
			t.Errorf("%s of an answer is %+v, want %+v", c.usage, read.Usage(), want)
		}
		passed := &openai.Answer{Endpoint: c.endpoint}
		if pass(passed, body, []int{20}); passed.Usage() != want {
			t.Errorf("%s of an answer in pieces is %+v, want %+v", c.usage, passed.Usage(), want)
		}
		events := "data: {\"type\":\"message_delta\",\"usage\":" + c.usage + "}\n\n"
		if _, _, usage := run(&openai.Stream{Endpoint: c.endpoint}, events, nil); usage != want {
			t.Errorf("%s of a stream is %+v, want %+v", c.usage, usage, want)
		}
	}
}
