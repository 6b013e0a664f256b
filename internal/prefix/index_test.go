package prefix

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func chain(seed uint64, n int) []uint64 {
	r := rand.New(rand.NewPCG(seed, 1))
	list := make([]uint64, n)
	for i := range list {
		list[i] = r.Uint64()
	}
	return list
}

// heads is an index and its heads, of which head i has the number i.
type heads struct {
	*Index
	t         testing.TB
	instances []uint64
	found     Found
}

func newHeads(t testing.TB, entries, n int, capacity uint64) *heads {
	h := &heads{Index: NewIndex(entries), t: t}
	for i := range n {
		h.instances = append(h.instances, uint64(i)+1)
		h.Open(i, h.instances[i], capacity)
	}
	return h
}

// computes notes that the head computed tokens for a prompt of the blocks.
func (h *heads) computes(head int, tokens uint64, blocks ...uint64) {
	h.Add(blocks, head, h.instances[head], tokens)
}

// have checks how many of the first blocks each head has.
func (h *heads) have(when string, blocks []uint64, want ...int) {
	h.t.Helper()
	h.Match(blocks, &h.found)
	for i, n := range want {
		if got := h.found.Blocks(i, h.instances[i]); got != n {
			h.t.Errorf("%s: head %d has %d blocks, want %d", when, i, got, n)
		}
	}
}

func TestAHeadHasWhatItComputed(t *testing.T) {
	x := newHeads(t, 1<<12, 20, 1<<20)
	shared := chain(1, 10)
	prompt := func(head int) []uint64 { return append(shared[:10:10], chain(uint64(head)+2, head)...) }
	for h := range 20 {
		x.computes(h, 100, prompt(h)...)
	}
	for h := range 20 {
		want := slices.Repeat([]int{10}, 20)
		want[h] += h
		x.have(fmt.Sprint("the prompt of head ", h), prompt(h), want...)
	}
	x.have("a prompt that went nowhere", chain(99, 5), make([]int, 20)...)
}

func TestWhatACacheCannotHoldIsGone(t *testing.T) {
	x := newHeads(t, 1<<12, 2, 10_000)
	first := chain(1, 4)
	x.computes(0, 2000, first...)
	x.computes(1, 2000, first...)
	for i := range uint64(4) {
		x.computes(0, 2000, chain(2+i, 4)...)
	}
	x.have("10,000 tokens later", first, 4, 4)
	x.computes(0, 4000, chain(9, 4)...)
	x.have("14,000 tokens later at one", first, 0, 4)
	x.computes(0, 1, first...)
	x.have("computed again", first, 4, 4)
	x.Clear(0, 1)
	x.have("the cache of one is empty", first, 0, 4)
}

// A conversation that grows with each turn keeps its beginning, which others share,
// however often its later blocks were used lately.
func TestAConversationKeepsItsBeginning(t *testing.T) {
	x := newHeads(t, 1<<12, 1, 16_000)
	conversation := chain(1, 60)
	for turn := range 60 {
		x.computes(0, 900, conversation[:turn+1]...)
	}
	x.have("another conversation with the same beginning", append(conversation[:1:1], chain(2, 3)...), 1)
	x.have("the conversation", conversation, 60)
}

// Of a block that thousands of heads have not all of them are found, but those that have
// more of the prompt are.
func TestABlockOfThousandsOfHeads(t *testing.T) {
	x := newHeads(t, 1<<15, 3000, 1<<30)
	prompt := chain(1, 6)
	for h := range 3000 {
		x.computes(h, 500, prompt[0], uint64(h)<<32|1)
	}
	warm := []int32{17, 471, 2999}
	for _, h := range warm {
		x.computes(int(h), 2000, prompt[:5]...)
	}
	x.Match(prompt, &x.found)
	for _, h := range warm {
		if n := x.found.Blocks(int(h), x.instances[h]); n != 5 {
			t.Errorf("head %d has %d blocks, want 5", h, n)
		}
	}
	most := x.found.Most(nil, 3, 1)
	if slices.Sort(most); !slices.Equal(most, warm) {
		t.Errorf("%v have the most, want %v", most, warm)
	}
	if n := len(x.found.first) + len(x.found.more); n < 256 || n > (1+furtherEntries)*perEntry {
		t.Errorf("%d of 3,000 heads were found", n)
	}
}

// However many prompts share all but their last block, and however many heads have
// those, as few entries are looked at and taken as for the first of them.
func TestWhatAllPromptsShareCostsNoMore(t *testing.T) {
	for _, c := range []struct{ heads, looked int }{
		{6, 2},               // of the first block, and of the last that all have
		{64, 2 * 11},         // and their further ones
		{10_000, maxMatched}, // where it ends
	} {
		x := newHeads(t, 1<<18, c.heads, 1<<40)
		prompt := chain(1, 31)
		for i := range uint64(20_000) {
			prompt[30] = i + 7
			if i%1000 == 0 {
				if x.Match(prompt, &x.found); x.found.looked > c.looked {
					t.Fatalf("%d heads: prompt %d looks at %d entries, want at most %d", c.heads, i, x.found.looked, c.looked)
				}
			}
			x.computes(int(i)%c.heads, 500, prompt...)
		}
		if taken, most := x.inserted.Load(), uint64(20_000+30*(1+furtherEntries)); taken > most {
			t.Errorf("%d heads: %d entries are taken, want at most %d", c.heads, taken, most)
		}
		entries := 0
		for n := range furtherEntries {
			if x.find(furtherKey(prompt[0], n)) != nil {
				entries++
			}
		}
		if want := min(furtherEntries, (c.heads-1)/perEntry); entries != want {
			t.Errorf("%d heads: %d further entries of a block that all have, want %d", c.heads, entries, want)
		}
	}
}

// What comes late of an instance that is over changes nothing for that which has its
// number now.
func TestAnotherInstanceHasItsOwnCache(t *testing.T) {
	x := newHeads(t, 1<<12, 2, 10_000)
	first, second := chain(1, 4), chain(2, 4)
	x.computes(1, 2000, first...)
	x.instances[1] = 7
	x.have("before it is open", first, 0, 0)
	x.Open(1, 7, 10_000)
	x.have("another instance", first, 0, 0)
	x.computes(1, 2000, second...)
	x.Open(1, 2, 10_000)
	x.Add(first, 1, 2, 2000)
	x.Clear(1, 2)
	x.have("what came late", first, 0, 0)
	x.have("what is its own", second, 0, 4)
}

// The index says of no head that it has more than its cache can hold of what it
// computed, and forgets, where it has room, nothing that the cache surely holds.
func TestTheIndexIsRightWithinASixteenth(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const capacity, block, heads = 20_000, 500, 3
		x := newHeads(t, 1<<17, heads, capacity) // so many groups that none has more blocks than entries
		var computed [heads]uint64
		var last [heads]map[uint64]uint64 // by block: what was computed when it was used last
		for h := range last {
			last[h] = map[uint64]uint64{}
		}
		for range rapid.IntRange(1, 200).Draw(rt, "prompts") {
			head := rapid.IntRange(0, heads-1).Draw(rt, "head")
			prompt := append(chain(uint64(rapid.IntRange(0, 5).Draw(rt, "application")), rapid.IntRange(1, 8).Draw(rt, "shared")),
				chain(uint64(rapid.IntRange(10, 40).Draw(rt, "conversation")), rapid.IntRange(0, 8).Draw(rt, "own"))...)
			for i := range prompt[1:] { // a hash is that of all text up to it
				prompt[i+1] ^= prompt[i] * 31
			}
			x.Match(prompt, &x.found)
			for h := range heads {
				sure, most := 0, 0
				for i, b := range prompt {
					at, ever := last[h][b]
					age := computed[h] - at
					if ever && most == i && age <= capacity+capacity/freshShare+stampUnit {
						most++
					}
					if ever && sure == i && age+capacity/freshShare+stampUnit <= capacity {
						sure++
					}
				}
				if n := x.found.Blocks(h, x.instances[h]); n < sure || n > most {
					rt.Fatalf("head %d has %d of %d blocks, want %d to %d", h, n, len(prompt), sure, most)
				}
			}
			fresh := uint64(block * (len(prompt) - x.found.Blocks(head, x.instances[head])))
			computed[head] += fresh
			for _, b := range prompt {
				last[head][b] = computed[head]
			}
			x.computes(head, fresh, prompt...)
		}
	})
}

// The index keeps its size, and answers.
func TestTheIndexIsBounded(t *testing.T) {
	x := newHeads(t, 1<<10, 4, 1<<40)
	size, hot := x.Len(), chain(1<<40, 10)
	for i := range uint64(20_000) {
		x.computes(int(i%4), 1000, chain(i, 10)...)
		if i%10 == 0 {
			x.computes(3, 0, hot...)
		}
	}
	x.have("a prompt that comes again and again", hot, 0, 0, 0, 10)
	if x.Len() != size || x.Evictions() < 100_000 {
		t.Errorf("%d entries, %d before; %d evictions", x.Len(), size, x.Evictions())
	}
	last := chain(77, 10)
	x.computes(2, 1000, last...)
	x.have("the newest prompt", last, 0, 0, 10, 0)
}

func BenchmarkMatch(b *testing.B) {
	x := NewIndex(1 << 18)
	for h := range 64 {
		x.Open(h, uint64(h)+1, 1<<20)
	}
	shared := chain(1, 20)
	var prompts [][]uint64
	for i := range 4096 {
		p := append(shared[:20:20], chain(uint64(i)+2, 12)...)
		prompts = append(prompts, p)
		x.Add(p, i%64, uint64(i%64)+1, 6000)
	}
	var f Found
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		x.Match(prompts[i%len(prompts)], &f)
	}
}

// BenchmarkMatchShared is of a prompt whose first block all of 10,000 heads have.
func BenchmarkMatchShared(b *testing.B) {
	x := newHeads(b, 1<<18, 10_000, 1<<30)
	prompt := chain(1, 30)
	for h := range 10_000 {
		x.computes(h, 500, prompt[:1+h%3]...)
	}
	for b.Loop() {
		x.Match(prompt, &x.found)
	}
}

func BenchmarkAdd(b *testing.B) {
	x := NewIndex(1 << 18)
	for h := range 64 {
		x.Open(h, uint64(h)+1, 1<<20)
	}
	p := chain(1, 32)
	for i := 0; b.Loop(); i++ {
		for j := 20; j < 32; j++ {
			p[j] = p[j]*0x9e3779b97f4a7c15 + 1
		}
		x.Add(p, i%64, uint64(i%64)+1, 6000)
	}
}
