package demo

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"headway/internal/engine"
	"headway/internal/workload"
)

func FuzzReadStream(f *testing.F) {
	f.Add([]byte("data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\ndata: [DONE]\n\n"))
	f.Add([]byte(": comment\n\ndata: {\"error\":{\"message\":\"no\"}}\n\n"))
	f.Add([]byte("data: {\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		calls := 0
		_, err := readStream(bytes.NewReader(text), func() { calls++ })
		if calls > 1 {
			t.Fatalf("%d calls for a first token", calls)
		}
		if err == nil && !bytes.Contains(text, []byte("data: [DONE]")) {
			t.Fatal("a stream without [DONE] was taken as whole")
		}
	})
}

// Heads find a prompt in their cache block by block, so its text is as long as
// the blocks say and equal where they are.
func TestPromptsShareTextAsTheTraceSays(t *testing.T) {
	if workload.BlockTokens != engine.BlockTokens {
		t.Fatalf("a block of a trace has %d tokens, one of a head %d", workload.BlockTokens, engine.BlockTokens)
	}
	work := newWork(t, `{"timestamp": 0, "input_length": 1200, "output_length": 5, "hash_ids": [0, 7, 8]}
{"timestamp": 3000, "input_length": 1300, "output_length": 5, "hash_ids": [0, 7, 10]}
`)
	a, b := work.Next(), work.Next()
	first, later := prompt(&a), prompt(&b)
	if len(first) != 4*1200 || len(later) != 4*1300 {
		t.Errorf("%d and %d bytes for 1200 and 1300 tokens", len(first), len(later))
	}
	const shared = 2 * workload.BlockTokens * 4
	if !bytes.Equal(first[:shared], later[:shared]) || bytes.Equal(first[shared:], later[shared:shared+4*176]) {
		t.Error("the prompts do not share two blocks")
	}
}

// newWork plays a trace at ten requests a second.
func newWork(t *testing.T, trace string) *workload.Workload {
	t.Helper()
	file := filepath.Join(t.TempDir(), "trace.jsonl")
	if err := os.WriteFile(file, []byte(trace), 0o600); err != nil {
		t.Fatal(err)
	}
	read, err := workload.ReadTraceFile(file, 1)
	if err != nil {
		t.Fatal(err)
	}
	w, err := workload.New(workload.Options{Rows: read.Rows, Rate: 10, Models: []string{"m"}, Regions: []string{"r"}, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	return w
}
