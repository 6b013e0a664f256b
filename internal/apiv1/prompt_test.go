package apiv1

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"headway/internal/access"
	"headway/internal/prefix"
	"headway/internal/strategy"
)

// requested reads a request by each of the two readers that takes it.
func requested(t *testing.T, body string, want func(req *strategy.Request) string) {
	t.Helper()
	var d work
	if d.scan([]byte(body)) {
		if d.chain.Bytes() > 0 {
			t.Error("the text of a prompt is kept")
		}
		if wrong := want(&d.req); wrong != "" {
			t.Errorf("%.200s, scanned: %s", body, wrong)
		}
	}
	if faults, err := d.decode([]byte(body)); err != nil || len(faults) > 0 {
		t.Errorf("%.200s: %v, %v", body, faults, err)
	} else if wrong := want(&d.req); wrong != "" {
		t.Errorf("%.200s, decoded: %s", body, wrong)
	}
	if d.reset(); d.chain.Bytes() != 0 || len(d.req.PrefixHashes) > 0 {
		t.Error("something is left for the next request")
	}
}

// A prompt has the hashes that its caller could send in its place.
func TestAPromptIsHashed(t *testing.T) {
	text := strings.Repeat("\"How far\"\tis it, 😀? ", 500)
	quoted, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	var c prefix.Chain
	_, _ = c.Write([]byte(text))
	if len(c.Hashes) < 18 {
		t.Fatal("the prompt is short")
	}
	var list []string
	for _, h := range c.Hashes {
		list = append(list, fmt.Sprintf("%016x", h))
	}
	same := func(bytes, tokens int64) func(*strategy.Request) string {
		return func(r *strategy.Request) string {
			if !slices.Equal(r.PrefixHashes, c.Hashes) || r.PromptBytes != bytes || r.InputTokens != tokens {
				return fmt.Sprintf("%d hashes of %d bytes, %d tokens", len(r.PrefixHashes), r.PromptBytes, r.InputTokens)
			}
			return ""
		}
	}
	whole, hashes := int64(len(text)), `["`+strings.Join(list, `","`)+`"]`
	requested(t, `{"model_type":"m","prompt":`+string(quoted)+`}`, same(whole, (whole+3)/4))
	requested(t, `{"model_type":"m","input_tokens":7,"prompt":`+string(quoted)+`}`, same(whole, 7))
	requested(t, `{"model_type":"m","prefix_hashes":`+hashes+`}`, same(0, 0))
	requested(t, `{"model_type":"m","prefix_hashes":`+hashes+`,"prompt":"Hello there"}`, same(0, 3))
	for _, empty := range []string{`""`, `"hi"`, `null`} {
		requested(t, `{"model_type":"m","prompt":`+empty+`}`, func(r *strategy.Request) string {
			if len(r.PrefixHashes) > 0 {
				return "it has hashes"
			}
			return ""
		})
	}
}

// The decision API makes the hashes of the vectors of a plain prompt, and takes those that
// others made of any.
func TestTheDecisionAPIHasTheHashesOfTheVectors(t *testing.T) {
	var v struct {
		Vectors []struct {
			Name   string
			Body   map[string]any
			Hashes []string
		}
	}
	text, err := os.ReadFile("../../api/prompt-hashes.json")
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	if err != nil {
		t.Fatal(err)
	}
	plain := 0
	for _, x := range v.Vectors {
		same := func(r *strategy.Request) string {
			var hashes []string
			for _, h := range r.PrefixHashes {
				hashes = append(hashes, fmt.Sprintf("%016x", h))
			}
			if !slices.Equal(hashes, x.Hashes) {
				return fmt.Sprintf("%s has the hashes %q, want %q", x.Name, hashes, x.Hashes)
			}
			return ""
		}
		request := func(field string, value any) string {
			body, err := json.Marshal(map[string]any{"model_type": "m", field: value})
			if err != nil {
				t.Fatal(err)
			}
			return string(body)
		}
		if prompt, ok := x.Body["prompt"].(string); ok {
			plain++
			requested(t, request("prompt", prompt), same)
		}
		requested(t, request("prefix_hashes", x.Hashes), same)
	}
	if plain < 2 {
		t.Errorf("%d vectors are of a plain prompt", plain)
	}
}

func TestAConversationSaysHowItGoesOn(t *testing.T) {
	requested(t, `{"model_type":"m","session_id":"s","turn":3,"expected_return_ms":1500}`, func(r *strategy.Request) string {
		if r.SessionID != "s" || r.Turn != 3 || r.Returns.Milliseconds() != 1500 {
			return fmt.Sprintf("%q, turn %d, back in %v", r.SessionID, r.Turn, r.Returns)
		}
		return ""
	})
	requested(t, `{"model_type":"m","expected_return_ms":0}`, func(r *strategy.Request) string {
		if r.Returns <= 0 {
			return "that it is back at once is not known"
		}
		return ""
	})
	requested(t, `{"model_type":"m"}`, func(r *strategy.Request) string {
		if r.SessionID != "" || r.Turn != 0 || r.Returns != 0 {
			return "something is known"
		}
		return ""
	})
}

// The conversation is the session of a request that names no other, and is a session
// of its own beside one.
func TestAConversationIsASession(t *testing.T) {
	d := newDesk(t)
	head := func(more string) string {
		t.Helper()
		answer, err := d.Decide(&access.Principal{Type: "key", ID: "k"}, []byte(`{"model_type":"m","strategy":"session_affinity"`+more+`}`), nil)
		if err != nil {
			t.Fatal(err)
		}
		d.Withdraw(answer)
		_, id, _ := strings.Cut(string(answer), `"head":{"id":"`)
		return id[:1]
	}
	heads := map[string]bool{}
	for i := range 20 {
		session := fmt.Sprintf("s%d", i)
		first := head(`,"session_id":"` + session + `"`)
		heads[first] = true
		for _, again := range []string{`,"session_id":"` + session + `"`, `,"session_key":"` + session + `"`, `,"session_key":" ","session_id":"` + session + `"`, `,"session_key":"` + session + `","session_id":"another"`} {
			if got := head(again); got != first {
				t.Errorf("%s is at %s, not at %s", again, got, first)
			}
		}
	}
	if len(heads) != 2 {
		t.Errorf("all sessions are at %v", heads)
	}
}
