package prefix

import (
	"math/rand/v2"
	"testing"
)

func chain(seed uint64, n int) []uint64 {
	r := rand.New(rand.NewPCG(seed, 1))
	list := make([]uint64, n)
	for i := range list {
		list[i] = r.Uint64()
	}
	return list
}

func TestAHeadHasWhatItComputed(t *testing.T) {
	x := NewIndex(1 << 12)
	for h := range 20 {
		x.Open(h, uint64(h)+1, 1<<20)
	}
	shared := chain(1, 10)
	for h := range 20 {
		x.Add(append(shared[:10:10], chain(uint64(h)+2, h)...), h, 100)
	}
	var f Found
	for h := range 20 {
		x.Match(append(shared[:10:10], chain(uint64(h)+2, h)...), &f)
		for other := range 20 {
			want := 10
			if other == h {
				want += h
			}
			if got := f.Blocks(other, uint64(other)+1); got != want {
				t.Errorf("head %d has %d blocks of the prompt of head %d, want %d", other, got, h, want)
			}
		}
	}
	x.Match(chain(99, 5), &f)
	if f.Blocks(3, uint64(3)+1) != 0 {
		t.Error("a head has a prompt that went nowhere")
	}
}

func TestWhatACacheCannotHoldIsGone(t *testing.T) {
	x := NewIndex(1 << 12)
	x.Open(0, 1, 10_000)
	x.Open(1, 2, 10_000)
	first := chain(1, 4)
	x.Add(first, 0, 2000)
	x.Add(first, 1, 2000)
	var f Found
	for i := range uint64(4) {
		x.Add(chain(2+i, 4), 0, 2000)
	}
	if x.Match(first, &f); f.Blocks(0, uint64(0)+1) != 4 || f.Blocks(1, uint64(1)+1) != 4 {
		t.Errorf("%d and %d blocks after 10,000 tokens, want 4", f.Blocks(0, uint64(0)+1), f.Blocks(1, uint64(1)+1))
	}
	x.Add(chain(9, 4), 0, 4000)
	if x.Match(first, &f); f.Blocks(0, uint64(0)+1) != 0 || f.Blocks(1, uint64(1)+1) != 4 {
		t.Errorf("%d and %d blocks after 14,000 tokens at one, want 0 and 4", f.Blocks(0, uint64(0)+1), f.Blocks(1, uint64(1)+1))
	}
	x.Add(first, 0, 1)
	if x.Match(first, &f); f.Blocks(0, 1) != 4 {
		t.Error("a head does not have what it computed again")
	}
	x.Clear(0)
	if x.Match(first, &f); f.Blocks(0, 1) != 0 || f.Blocks(1, 2) != 4 {
		t.Error("an emptied cache has something, or another one has nothing")
	}
	x.Open(1, 3, 10_000)
	if x.Match(first, &f); f.Blocks(1, 3) != 0 {
		t.Error("another instance has what the one before it had")
	}
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
		x.Add(p, i%64, 6000)
	}
	var f Found
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		x.Match(prompts[i%len(prompts)], &f)
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
		x.Add(p, i%64, 6000)
	}
}
