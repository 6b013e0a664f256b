package routing_test

import (
	"errors"
	"fmt"
	"testing"

	"headway/internal/fleet"
	"headway/internal/routing"
	"headway/internal/strategy"
)

// An unknown model type is compared with what heads serve, and with what the
// policy names; one that a policy names is not unknown.
func TestAnUnknownModelTypeHasANearest(t *testing.T) {
	w := newWorld(t, nil)
	w.policy("default_strategy: random\naliases: {assistant: ghost}\nrules: [{match: {model_type: mistral-7b}, strategy: random}]")
	w.head("a", "us", func(s *fleet.Spec) { s.ModelTypes = []string{"llama-3.1-8b"} })
	for name, want := range map[string]string{
		"llama-3.1-8": "llama-3.1-8b", "Llama-3.1-8B": "llama-3.1-8b", "asistant": "assistant", "mistral-7": "mistral-7b", "gpt-5": "", "": "",
	} {
		_, err := w.router.Decide(&strategy.Request{ModelType: name})
		no, ok := errors.AsType[*routing.NoHeadError](err)
		if !ok || no.Failure != routing.FailUnknownModel || no.Nearest != want {
			t.Errorf("%q: %+v; want nearest %q", name, err, want)
		}
	}
	if _, err := w.router.Decide(&strategy.Request{ModelType: "ghost"}); err != nil {
		if no, ok := errors.AsType[*routing.NoHeadError](err); !ok || no.Nearest != "" {
			t.Errorf("a model type that the policy names: %+v", err)
		}
	}
}

// A caller who asks for unknown model types costs little, however many there are.
func BenchmarkUnknownModelType(b *testing.B) {
	w := newWorld(b, nil)
	for i := range 1000 {
		w.head(fmt.Sprintf("h%d", i), "us", func(s *fleet.Spec) { s.ModelTypes = []string{fmt.Sprintf("some-model-type-with-a-long-name-%04d", i)} })
	}
	for b.Loop() {
		_, _ = w.router.Decide(&strategy.Request{ModelType: "other-model-type-with-a-long-name-0000"})
	}
}
