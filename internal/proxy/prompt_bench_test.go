package proxy

import (
	"strings"
	"testing"

	"headway/internal/access"
	"headway/internal/openai"
)

// BenchmarkHash is what a request costs beyond the reading of its body.
func BenchmarkHash(b *testing.B) {
	for name, n := range map[string]int{"short": 1, "8k tokens": 32 << 10 / 5, "100k tokens": 400 << 10 / 5} {
		b.Run(name, func(b *testing.B) {
			e, _, _ := openai.Lookup("POST", "/v1/chat/completions")
			x := &exchange{caller: Caller{Endpoint: e, Principal: &access.Principal{Type: "key", ID: "k"}}}
			x.body.b = []byte(`{"model":"m","max_tokens":20,"messages":[{"role":"user","content":"` + strings.Repeat("word ", n) + `"}]}`)
			if wrong := openai.Scan(x.body.b, &x.fields); wrong != nil {
				b.Fatal(wrong)
			}
			b.ReportAllocs()
			for b.Loop() {
				x.hash()
			}
		})
	}
}
