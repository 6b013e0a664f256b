package prefix

import (
	"slices"
	"testing"
)

// The heads that have the most of a prompt come first; of equals any may.
func TestMostOfAPrompt(t *testing.T) {
	x, prompt := NewIndex(1<<12), []uint64{0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9, 0x94d049bb133111eb}
	const heads = 40
	for n := range heads {
		x.Open(n, 1, 1e6)
		depth := 1 // of heads 0 to 19
		if n >= 20 {
			depth = 2 + n/30 // 2 of the next ten, 3 of the last
		}
		x.Add(prompt[:depth], n, 1, 100)
	}
	var f Found
	for random := range uint64(200) {
		x.Match(prompt, &f)
		for _, want := range []int{0, 1, 10, 15, 20, 30, 40, 50} {
			got := f.Most(nil, want, random)
			if len(got) != min(want, heads) {
				t.Fatalf("%d heads of %d: %v", len(got), want, got)
			}
			seen := map[int32]bool{}
			last := 3
			for _, n := range got {
				depth := f.Blocks(int(n), 1)
				if seen[n] || depth > last {
					t.Fatalf("head %d, which has %d blocks, twice or after one that has %d: %v", n, depth, last, got)
				}
				seen[n], last = true, depth
			}
		}
	}
	x.Match(prompt, &f)
	var all []int32
	for random := range uint64(100) {
		all = append(all, f.Most(nil, 3, random)...)
	}
	slices.Sort(all)
	if all = slices.Compact(all); len(all) != 10 {
		t.Errorf("of ten heads that have as much %d are ever among the first three", len(all))
	}
	x.Match([]uint64{0x5851f42d4c957f2d}, &f)
	if got := f.Most(nil, 5, 1); len(got) != 0 {
		t.Errorf("%v have what no head has", got)
	}
}
