package proxy

import (
	"bytes"
	"net/url"
	"path"
	"strings"
	"testing"

	"headway/internal/fleet"
)

// A path is passed on as it came, or refused: what is passed on names no place
// outside of itself for a head that resolves it.
func FuzzPassThroughPaths(f *testing.F) {
	for _, s := range []string{"/heads/m/a/b", "/heads/m", "/heads/m//a%2f..%2fb", "/heads/m/%2e%2e/x", "/heads/org/m/x", "/heads/m/..%5cx", "/heads/%ff/x"} {
		f.Add(s)
	}
	known := func(model string) bool { return model == "m" || model == "org/m" }
	f.Fuzz(func(t *testing.T, escaped string) {
		if !strings.HasPrefix(escaped, passThroughPath) {
			return
		}
		model, rest, wrong := split(escaped, known)
		if wrong != nil {
			return
		}
		if !strings.HasSuffix(escaped, strings.TrimPrefix(rest, "/")) || !strings.HasPrefix(rest, "/") || !fleet.ValidModelType(model) {
			t.Fatalf("%q became %q and %q", escaped, model, rest)
		}
		decoded, err := url.PathUnescape(rest)
		if err != nil {
			t.Fatalf("%q cannot be decoded", rest)
		}
		for part := range strings.SplitSeq(strings.ReplaceAll(decoded, `\`, "/"), "/") {
			if part == "." || part == ".." {
				t.Fatalf("%q resolves to %q", rest, path.Clean(decoded))
			}
		}
	})
}

// Names are replaced where they stand for themselves, and nothing else changes.
func FuzzRenamed(f *testing.F) {
	f.Add("The model `llama` does not exist, llama-2 does.", "llama", "gpt-4")
	f.Add("llama", "llama", "")
	f.Fuzz(func(t *testing.T, text, own, model string) {
		if own == "" {
			return
		}
		a := &attempt{real: own, model: model}
		got := a.renamed([]byte(text))
		if model == "" && string(got) != text {
			t.Fatalf("%q became %q without an alias", text, got)
		}
		if model != "" && !strings.Contains(text, own) && !bytes.Equal(got, []byte(text)) {
			t.Fatalf("%q became %q", text, got)
		}
		a = &attempt{real: own, model: own}
		if got := a.renamed([]byte(text)); string(got) != text {
			t.Fatalf("%q became %q by the same name", text, got)
		}
	})
}
