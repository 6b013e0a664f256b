package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"headway/internal/access"
	"headway/internal/openai"
	"headway/internal/prefix"
)

// asked is an exchange that has read a request.
func asked(t *testing.T, path, body string, key string) *exchange {
	t.Helper()
	e, _, wrong := openai.Lookup("POST", path)
	if wrong != nil {
		t.Fatal(wrong)
	}
	x := &exchange{caller: Caller{Endpoint: e, Principal: &access.Principal{Type: "key", ID: key}}}
	x.body.b = []byte(body)
	if wrong := openai.Scan(x.body.b, &x.fields); wrong != nil {
		t.Fatal(wrong)
	}
	x.hash()
	return x
}

func TestRequestsToGenerateHaveHashes(t *testing.T) {
	text := strings.Repeat("How far is it? ", 400)
	var want prefix.Chain
	_, _ = want.Write([]byte(text))
	x := asked(t, "/v1/completions", `{"model":"m","prompt":"`+text+`"}`, "a")
	if !slices.Equal(x.req.PrefixHashes, want.Hashes) || len(want.Hashes) != 16 || x.req.PromptBytes != int64(len(text)) || x.prompt != int64(len(text)+2) {
		t.Errorf("%x of %d bytes, %d in the body", x.req.PrefixHashes, x.req.PromptBytes, x.prompt)
	}
	chat := asked(t, "/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"`+text+`"}]}`, "a")
	again := asked(t, "/v1/responses", `{"model":"m","input":"`+text+`"}`, "a")
	if !slices.Equal(chat.req.PrefixHashes, again.req.PrefixHashes) || slices.Equal(chat.req.PrefixHashes, x.req.PrefixHashes) {
		t.Error("the forms of chat have other hashes, or those of a plain text")
	}
	for path, body := range map[string]string{"/v1/embeddings": `{"model":"m","input":"` + text + `"}`, "/v1/chat/completions": `{"model":"m","messages":[]}`} {
		if x := asked(t, path, body, "a"); len(x.req.PrefixHashes) > 0 || x.prompt < 2 {
			t.Errorf("%s has hashes %x of %d bytes", path, x.req.PrefixHashes, x.prompt)
		}
	}
	picture := asked(t, "/v1/messages", `{"model":"m","messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"`+text+`"}}]}]}`, "a")
	if picture.prompt > 200 {
		t.Errorf("a picture has %d bytes of text", picture.prompt)
	}
}

// The data plane makes the hashes that others make of the same body, in each form of the
// API: those of the vectors, by which the SDK and programs in other languages are checked.
func TestTheDataPlaneMakesTheHashesOfTheVectors(t *testing.T) {
	var v struct {
		Vectors []struct {
			Name   string
			Body   json.RawMessage
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
	forms := map[string]int{}
	for _, x := range v.Vectors {
		path := "/v1/chat/completions"
		switch has := func(field string) bool { return bytes.Contains(x.Body, []byte(`"`+field+`":`)) }; {
		case strings.HasSuffix(x.Name, ": messages"):
			path = "/v1/messages"
		case has("prompt"):
			path = "/v1/completions"
		case !has("messages"):
			path = "/v1/responses"
		}
		var hashes []string
		for _, h := range asked(t, path, string(x.Body), "a").req.PrefixHashes {
			hashes = append(hashes, fmt.Sprintf("%016x", h))
		}
		if !slices.Equal(hashes, x.Hashes) {
			t.Errorf("%s, by %s: %q, want %q", x.Name, path, hashes, x.Hashes)
		}
		forms[path]++
	}
	if len(forms) != 4 {
		t.Errorf("the vectors are of %v alone", forms)
	}
}

func TestWhatSharesNoCacheHasAScopeOfItsOwn(t *testing.T) {
	seen := map[uint64]string{}
	for _, key := range []string{"a", "b"} {
		for _, more := range []string{"", `,"cache_salt":"x"`, `,"cache_salt":"y"`, `,"lora_path":"x"`, `,"adapter_id":"y"`} {
			x := asked(t, "/v1/completions", `{"model":"m","prompt":"hi"`+more+`}`, key)
			if other, found := seen[x.req.Scope]; found || x.req.Scope == 0 {
				t.Errorf("%s%s shares the scope %x with %s", key, more, x.req.Scope, other)
			}
			seen[x.req.Scope] = key + more
		}
	}
	if x := asked(t, "/v1/completions", `{"model":"m","prompt":"hi"}`, "a"); x.req.Scope != prefix.Scope("key", "a", "", "") {
		t.Error("the decision API has another scope for the same caller")
	}
}

// Long prompts wait for one another, and short ones for none.
func TestPitfallS22LongPromptsLeaveProcessorsToShortOnes(t *testing.T) {
	long := `{"model":"m","prompt":"` + strings.Repeat("x", longPrompt) + `"}`
	for range cap(turns) {
		turns <- struct{}{}
	}
	if x := asked(t, "/v1/completions", `{"model":"m","prompt":"`+strings.Repeat("x", 1000)+`"}`, "a"); len(x.req.PrefixHashes) != 3 {
		t.Errorf("%d hashes of a short prompt", len(x.req.PrefixHashes))
	}
	hashed := make(chan int, 1)
	go func() { hashed <- len(asked(t, "/v1/completions", long, "a").req.PrefixHashes) }()
	select {
	case <-hashed:
		t.Fatal("a long prompt did not wait")
	case <-time.After(50 * time.Millisecond):
	}
	for range cap(turns) {
		<-turns
	}
	if n := <-hashed; n != 16+(longPrompt-4096)/2048 {
		t.Errorf("%d hashes of a long prompt", n)
	}
}

// The memory of a body that is used again has none of it.
func TestABodyIsForgotten(t *testing.T) {
	var b body
	to := newMemory(5000)
	b.b, b.from = append(*to, strings.Repeat("secret", 800)...), to
	whole := b.b[:cap(b.b)]
	if b.release(); bytes.ContainsAny(whole, "secret") {
		t.Error("it is kept")
	}
}
