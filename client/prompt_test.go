package client_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"headway/api"
	"headway/client"
	"headway/internal/openai"
)

var update = flag.Bool("update", false, "write the hashes of api/prompt-hashes.json")

// vectors are what other languages check their hashes of prompts with.
type vectors struct {
	About   string   `json:"about"`
	Vectors []vector `json:"vectors"`
}

type vector struct {
	Name   string          `json:"name"`
	Body   json.RawMessage `json:"body"`
	Text   string          `json:"text_hex"`
	Hashes []string        `json:"hashes"`
}

const vectorsFile = "../api/prompt-hashes.json"

func readVectors(t *testing.T) (v vectors) {
	t.Helper()
	text, err := os.ReadFile(vectorsFile)
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestHashesAreThoseOfTheVectors(t *testing.T) {
	v := readVectors(t)
	same := map[string][]string{} // hashes by what stands before a colon in the name
	for i := range v.Vectors {
		x := &v.Vectors[i]
		var r api.DecisionRequest
		if err := client.HashBody(&r, x.Body); err != nil {
			t.Fatalf("%s: %v", x.Name, err)
		}
		var request openai.Request
		var text bytes.Buffer
		if err := openai.Scan(x.Body, &request); err != nil {
			t.Fatal(err)
		}
		request.WriteText(x.Body, &text)
		if *update {
			x.Text, x.Hashes = hex.EncodeToString(text.Bytes()), r.PrefixHashes
		}
		if got := hex.EncodeToString(text.Bytes()); got != x.Text {
			t.Errorf("%s: the text is %q, hexadecimal %s, want %s", x.Name, text.Bytes(), got, x.Text)
		}
		if !slices.Equal(r.PrefixHashes, x.Hashes) || len(x.Hashes) == 0 || *r.InputTokens != int64(text.Len()+3)/4 {
			t.Errorf("%s: %q, %d tokens; want %q", x.Name, r.PrefixHashes, *r.InputTokens, x.Hashes)
		}
		kind, _, form := strings.Cut(x.Name, ":")
		if form && same[kind] != nil && !slices.Equal(same[kind], r.PrefixHashes) {
			t.Errorf("%s has other hashes than the form before it", x.Name)
		}
		same[kind] = r.PrefixHashes
	}
	if *update {
		var out bytes.Buffer
		e := json.NewEncoder(&out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		err := e.Encode(v)
		if err == nil {
			err = os.WriteFile(vectorsFile, out.Bytes(), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// The program that other languages can go by makes the same hashes.
func TestAnotherLanguageMakesTheSameHashes(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is missing: apt-get install python3")
	}
	out, err := exec.CommandContext(t.Context(), python, "../tests/clients/prompt_hashes.py").CombinedOutput()
	if want := fmt.Sprintf("%d vectors agree\n", len(readVectors(t).Vectors)); err != nil || string(out) != want {
		t.Errorf("%v: %s", err, out)
	}
}

// Hashes are sent in place of the prompt.
func TestNoWordOfAHashedPromptIsSent(t *testing.T) {
	const marker = "quicksilver"
	sent := make(chan string, 2)
	router := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var b bytes.Buffer
		_, _ = b.ReadFrom(r.Body)
		sent <- b.String()
		_, _ = w.Write([]byte(decisionBody))
	}))
	defer router.Close()
	c, err := client.New(router.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	text := strings.Repeat(marker+" ", 100)
	byText, byBody := api.DecisionRequest{ModelType: "m", Prompt: text}, api.DecisionRequest{ModelType: "m", SessionID: "s", Turn: 2, ExpectedReturnMs: new(1500.0)}
	client.HashText(&byText, text)
	if err := client.HashBody(&byBody, []byte(`{"model":"m","prompt":"`+text+`"}`)); err != nil {
		t.Fatal(err)
	}
	if len(byText.PrefixHashes) != 4 || !slices.Equal(byText.PrefixHashes, byBody.PrefixHashes) || *byText.InputTokens != 300 {
		t.Errorf("%q and %q", byText.PrefixHashes, byBody.PrefixHashes)
	}
	for _, r := range []api.DecisionRequest{byText, byBody} {
		if _, err := c.Decide(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if got := <-sent; strings.Contains(got, marker) || !strings.Contains(got, byText.PrefixHashes[3]) || strings.Contains(got, `"session_id":"s","turn":2,"expected_return_ms":1500`) != (r.Turn == 2) {
			t.Errorf("%s was sent", got)
		}
	}
	if err := client.HashBody(&byBody, []byte(`{"messages":[]}`)); err == nil || !strings.Contains(err.Error(), "model") {
		t.Errorf("a body without a model: %v", err)
	}
	counted := api.DecisionRequest{ModelType: "m", InputTokens: new(int64(7))}
	if client.HashText(&counted, text); *counted.InputTokens != 7 {
		t.Errorf("%d tokens, which were counted", *counted.InputTokens)
	}
}
