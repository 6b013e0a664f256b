//go:build !fuzz

// The client is large, and building it for coverage takes fuzzing minutes.

package mockhead_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"headway/internal/mockhead"
)

func openAI(t *testing.T, h *mockhead.Head) openai.Client {
	t.Helper()
	return openai.NewClient(option.WithBaseURL(h.URL()+"/v1"), option.WithAPIKey("none"),
		option.WithHTTPClient(client(t)), option.WithMaxRetries(0))
}

func chat(prompt string, limit int64) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{
		Model:               "llama-3.1-8b",
		Messages:            []openai.ChatCompletionMessageParamUnion{openai.UserMessage(prompt)},
		MaxCompletionTokens: openai.Int(limit),
	}
}

func TestOpenAIClientGetsAWholeAnswer(t *testing.T) {
	c := openAI(t, startHead(t, nil))
	prompt := strings.Repeat("all men are old ", 256)
	for i, wantCached := range []int64{0, 512} {
		got, err := c.Chat.Completions.New(t.Context(), chat(prompt, 5))
		if err != nil {
			t.Fatal(err)
		}
		choice := got.Choices[0]
		if len(choice.Message.Content) != 5*4 || choice.Message.Role != "assistant" || choice.FinishReason != "length" {
			t.Errorf("answer %d: %+v", i, choice)
		}
		u := got.Usage
		if u.PromptTokens < 1024 || u.CompletionTokens != 5 || u.TotalTokens != u.PromptTokens+5 {
			t.Errorf("answer %d: usage %+v", i, u)
		}
		if u.PromptTokensDetails.CachedTokens < wantCached || (i == 0) != (u.PromptTokensDetails.CachedTokens == 0) {
			t.Errorf("answer %d: %d cached tokens, want at least %d", i, u.PromptTokensDetails.CachedTokens, wantCached)
		}
	}
}

func TestOpenAIClientGetsAStream(t *testing.T) {
	c := openAI(t, startHead(t, func(o *mockhead.Options) { o.StreamInterval = 4 }))
	p := chat("who has the key", 10)
	p.StreamOptions.IncludeUsage = openai.Bool(true)
	s := c.Chat.Completions.NewStreaming(t.Context(), p)
	var acc openai.ChatCompletionAccumulator
	var usage int64
	for s.Next() {
		if !acc.AddChunk(s.Current()) {
			t.Fatalf("a chunk does not follow the others: %s", s.Current().RawJSON())
		}
		usage += s.Current().Usage.CompletionTokens
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	got := acc.Choices[0]
	if len(got.Message.Content) != 10*4 || got.Message.Role != "assistant" || got.FinishReason != "length" || usage != 10 {
		t.Errorf("got %+v and usage %d, want 10 tokens", got, usage)
	}
}

func TestStreamAndWholeAnswerSayTheSame(t *testing.T) {
	c := openAI(t, startHead(t, nil))
	whole, err := c.Chat.Completions.New(t.Context(), chat("how far can you see", 300))
	if err != nil {
		t.Fatal(err)
	}
	s := c.Chat.Completions.NewStreaming(t.Context(), chat("how far can you see", 300))
	var text strings.Builder
	for s.Next() {
		text.WriteString(s.Current().Choices[0].Delta.Content)
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	if text.String() != whole.Choices[0].Message.Content {
		t.Error("the same prompt got another answer as a stream")
	}
}

func TestOpenAIClientGetsATextCompletion(t *testing.T) {
	c := openAI(t, startHead(t, nil))
	p := openai.CompletionNewParams{
		Model: "llama-3.1-8b", MaxTokens: openai.Int(3),
		Prompt: openai.CompletionNewParamsPromptUnion{OfArrayOfTokens: []int64{1, 2, 3, 4, 5}},
	}
	got, err := c.Completions.New(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Choices[0].Text) != 3*4 || got.Usage.PromptTokens != 5 {
		t.Errorf("got %+v", got)
	}
	s := c.Completions.NewStreaming(t.Context(), p)
	text := ""
	for s.Next() {
		text += s.Current().Choices[0].Text
	}
	if s.Err() != nil || text != got.Choices[0].Text {
		t.Errorf("streamed %q and %v, want %q", text, s.Err(), got.Choices[0].Text)
	}
}

func TestOpenAIClientGetsTypedErrors(t *testing.T) {
	c := openAI(t, startHead(t, nil))
	p := chat("hello", 1)
	p.Model = "gpt-9"
	_, err := c.Chat.Completions.New(t.Context(), p)
	var e *openai.Error
	if !errors.As(err, &e) || e.StatusCode != http.StatusNotFound || e.Type != "NotFoundError" || e.Param != "model" {
		t.Errorf("an unknown model: %v", err)
	}
	_, err = c.Chat.Completions.New(t.Context(), chat("hello", 1<<29))
	if !errors.As(err, &e) || e.StatusCode != http.StatusBadRequest || e.Type != "BadRequestError" {
		t.Errorf("more tokens than the context: %v", err)
	}
	models, err := c.Models.List(t.Context())
	if err != nil || len(models.Data) != 1 || models.Data[0].ID != "llama-3.1-8b" {
		t.Errorf("models: %+v, %v", models, err)
	}
}

func TestMetricsCountTheWork(t *testing.T) {
	h := startHead(t, nil)
	oc := openAI(t, h)
	prompt := strings.Repeat("all men are old ", 256) // two blocks with the role before it
	for range 2 {
		if _, err := oc.Chat.Completions.New(t.Context(), chat(prompt, 7)); err != nil {
			t.Fatal(err)
		}
	}
	_, text := get(t, client(t), h.URL()+"/metrics")
	label := `{model_name="llama-3.1-8b"}`
	for name, want := range map[string]string{
		"vllm:num_requests_running":               label + " 0",
		"vllm:num_requests_waiting":               label + " 0",
		"vllm:kv_cache_usage_perc":                label + " 0",
		"vllm:prefix_cache_queries_total":         label + " 2052",
		"vllm:prefix_cache_hits_total":            label + " 1024",
		"vllm:prompt_tokens_total":                label + " 2052",
		"vllm:generation_tokens_total":            label + " 14",
		"vllm:time_to_first_token_seconds_count":  label + " 2",
		"vllm:time_to_first_token_seconds_bucket": `{model_name="llama-3.1-8b",le="2560"} 2`,
		"# TYPE vllm:time_to_first_token_seconds": " histogram",
		"# TYPE vllm:prefix_cache_hits_total":     " counter",
		"# TYPE vllm:num_requests_running":        " gauge",
	} {
		if !strings.Contains(text, name+want+"\n") {
			t.Errorf("no line %q", name+want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}
