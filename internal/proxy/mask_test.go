package proxy

import (
	"bytes"
	"strings"
	"testing"
)

const maskedKey = "key-of-the-head-1"

// However an answer is cut into parts, the key stands nowhere in it, nothing else
// changes, and no part that ends a line waits for the next.
func TestAKeyIsMaskedAcrossParts(t *testing.T) {
	for _, text := range []string{
		maskedKey, "a " + maskedKey + " b", maskedKey + maskedKey, "key-of-" + maskedKey, "key-of-the-head-", "kkk" + maskedKey + "k", "data: {\"a\":\"" + maskedKey + "\"}\n\ndata: key\n\n", "nothing",
	} {
		want := strings.ReplaceAll(text, maskedKey, strings.Repeat("*", len(maskedKey)))
		for size := 1; size <= len(text); size++ {
			m := mask{}
			m.of(maskedKey)
			var got []byte
			for rest := []byte(text); len(rest) > 0; {
				part := rest[:min(size, len(rest))]
				rest = rest[len(part):]
				before := string(part)
				got = append(got, m.apply(part)...)
				if before != string(part) {
					t.Fatalf("the bytes of %q were changed", text)
				}
				if before[len(before)-1] == '\n' && len(m.tail) > 0 {
					t.Errorf("%q: after a line %q is held back", text, m.tail)
				}
			}
			if got = append(got, m.rest()...); string(got) != want {
				t.Errorf("%q in parts of %d is passed on as %q", text, size, got)
			}
		}
	}
	m := mask{}
	m.of("none")
	if got := m.apply([]byte("none of these")); string(got) != "none of these" {
		t.Errorf("a word: %q", got)
	}
}

func FuzzMask(f *testing.F) {
	f.Add([]byte("a "+maskedKey+" b"), maskedKey, uint8(3))
	f.Add([]byte("aaaaaaaaaaaaaaaaaaaaaaab"), "aaaaaaaaaaaaab", uint8(2))
	f.Fuzz(func(t *testing.T, text []byte, key string, size uint8) {
		m := mask{}
		m.of(key)
		var got []byte
		for rest := text; len(rest) > 0; {
			n := min(int(size)+1, len(rest))
			got, rest = append(got, m.apply(rest[:n])...), rest[n:]
		}
		got = append(got, m.rest()...)
		if len(got) != len(text) || m.key == "" && !bytes.Equal(got, text) || m.key != "" && !strings.Contains(m.key, "*") && bytes.Contains(got, []byte(key)) {
			t.Fatalf("%q without %q is %q", text, key, got)
		}
	})
}
