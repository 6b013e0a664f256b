package prefix

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func hashed(text []byte, cuts ...int) []uint64 {
	var c Chain
	from := 0
	for _, cut := range append(cuts, len(text)) {
		_, _ = c.Write(text[from:cut])
		from = cut
	}
	return c.Hashes
}

// However a text comes, its hashes are the same, and those of a longer text begin with
// them.
func TestHashesAreThoseOfTheText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 20_000).Draw(t, "bytes")
		text := bytes.Repeat([]byte("The quick brown fox. "), n/21+1)[:n]
		cuts := rapid.SliceOfN(rapid.IntRange(0, n), 0, 5).Draw(t, "cuts")
		slices.Sort(cuts)
		whole := hashed(text)
		if !slices.Equal(whole, hashed(text, cuts...)) {
			t.Fatal("in parts it has other hashes")
		}
		if Covered(len(whole)) > int64(n) || Covered(len(whole)+1) <= int64(n) {
			t.Fatalf("%d blocks of %d bytes", len(whole), n)
		}
		if longer := hashed(append(text, "more"...)); !slices.Equal(longer[:len(whole)], whole) {
			t.Fatal("a longer text does not begin with the same hashes")
		}
		if n > 0 {
			at := rapid.IntRange(0, n-1).Draw(t, "at")
			text[at]++
			for i, h := range hashed(text) {
				if changed := Covered(i+1) > int64(at); changed == (h == whole[i]) {
					t.Fatalf("byte %d is another: block %d is the same: %v", at, i, !changed)
				}
			}
		}
	})
}

func TestKeysShareNothingBetweenScopes(t *testing.T) {
	plain := hashed(bytes.Repeat([]byte("x"), 8192))
	one, other := NewKeys([16]byte{1}), NewKeys([16]byte{2})
	seen := map[uint64]bool{}
	for _, h := range plain {
		seen[h] = true
	}
	for _, k := range []*Keys{one, other} {
		for scope := range uint64(3) {
			list := slices.Clone(plain)
			k.Apply(list, scope, new(Scratch))
			for _, h := range list {
				if seen[h] {
					t.Fatal("a key occurs twice")
				}
				seen[h] = true
			}
			again := slices.Clone(plain)
			if k.Apply(again, scope, new(Scratch)); !slices.Equal(again, list) {
				t.Fatal("keys of the same text differ")
			}
		}
	}
}

// No more blocks have hashes than a decision may name.
func TestAChainHasAnEnd(t *testing.T) {
	var c Chain
	for range 9 {
		_, _ = c.Write(make([]byte, 1<<20))
	}
	if len(c.Hashes) != MaxHashes || c.Bytes() != 9<<20 {
		t.Errorf("%d hashes of %d bytes", len(c.Hashes), c.Bytes())
	}
}

// Nothing of a prompt is left in a chain that is used again.
func TestAChainForgetsItsText(t *testing.T) {
	for _, n := range []int{100, 5000, 6143, 6500} {
		var c Chain
		for range n / 7 {
			_, _ = c.Write([]byte("secrets"))
		}
		if c.Reset(nil); bytes.ContainsAny(c.block[:], "secrets") {
			t.Errorf("of %d bytes some are left", n)
		}
	}
}

func TestAScopeIsThatOfItsTexts(t *testing.T) {
	seen := map[uint64]bool{}
	for _, x := range [][4]string{{}, {"key", "a"}, {"keya"}, {"", "keya"}, {"key", "b"}, {"key", "a", "lora"}, {"key", "a", "", "lora"}, {"key", "a", "lo", "ra"}} {
		s := Scope(x[0], x[1], x[2], x[3])
		if seen[s] || s != Scope(x[0], x[1], x[2], x[3]) || (s == 0) != (x == [4]string{}) {
			t.Errorf("%q has the scope %x", x, s)
		}
		seen[s] = true
	}
}

func BenchmarkChain(b *testing.B) {
	for name, n := range map[string]int{"8k tokens": 32 << 10, "100k tokens": 400 << 10} {
		b.Run(name, func(b *testing.B) {
			text, keys := bytes.Repeat([]byte("abcdefgh"), n/8), NewKeys([16]byte{1})
			var c Chain
			var block Scratch
			b.ReportAllocs()
			for b.Loop() {
				c.Reset(c.Hashes[:0])
				_, _ = c.Write(text)
				keys.Apply(c.Hashes, 1, &block)
			}
		})
	}
}
