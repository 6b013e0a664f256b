package proxy

import (
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
