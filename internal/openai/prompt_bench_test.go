package openai_test

import (
	"strconv"
	"strings"
	"testing"

	"headway/internal/openai"
	"headway/internal/prefix"
)

// conversation is the body of a chat of about so many bytes, as an agent's: text with
// escapes, calls of tools and their results.
func conversation(bytes int) []byte {
	var b strings.Builder
	b.WriteString(`{"model":"m","messages":[{"role":"system","content":"` + strings.Repeat("Be brief, and say what you do not know. ", 20) + `"}`)
	for i := 0; b.Len() < bytes; i++ {
		line := `Line ` + strconv.Itoa(i) + ` of a file that somebody reads, with a \"name\".\n`
		b.WriteString(`,{"role":"user","content":[{"type":"text","text":"` + strings.Repeat(line, 20) + `"}]}`)
		b.WriteString(`,{"role":"assistant","content":"` + strings.Repeat("I see what that is about. ", 20) + `","tool_calls":[{"id":"call_` + strconv.Itoa(i) + `","type":"function","function":{"name":"look","arguments":"{\"path\": \"a/b/c\", \"line\": ` + strconv.Itoa(i) + `}"}}]}`)
		b.WriteString(`,{"role":"tool","tool_call_id":"call_` + strconv.Itoa(i) + `","content":"` + strings.Repeat(line, 40) + `"}`)
	}
	b.WriteString(`]}`)
	return []byte(b.String())
}

func BenchmarkPrompt(b *testing.B) {
	for _, c := range []struct {
		name string
		body []byte
	}{
		{"8k tokens", conversation(32 << 10)},
		{"100k tokens", conversation(400 << 10)},
		{"8k plain", []byte(`{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("abcdefgh", 4<<10) + `"}]}`)},
		{"100k plain", []byte(`{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("abcdefgh", 50<<10) + `"}]}`)},
	} {
		var r openai.Request
		b.Run(c.name+"/scan", func(b *testing.B) {
			b.SetBytes(int64(len(c.body)))
			for b.Loop() {
				if err := openai.Scan(c.body, &r); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(c.name+"/hash", func(b *testing.B) {
			b.SetBytes(int64(len(c.body)))
			b.ReportAllocs()
			var chain prefix.Chain
			if err := openai.Scan(c.body, &r); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				chain.Reset(chain.Hashes[:0])
				r.WriteText(c.body, &chain)
			}
		})
	}
}

// BenchmarkScanShort is the reading of a usual short body.
func BenchmarkScanShort(b *testing.B) {
	body := []byte(`{"model":"m","max_tokens":20,"temperature":0.7,"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"How far is it?"}],"stream":true}`)
	b.ReportAllocs()
	var r openai.Request
	for b.Loop() {
		if err := openai.Scan(body, &r); err != nil {
			b.Fatal(err)
		}
	}
}
