package engine

import "fmt"

// ProfileNamed is a profile of the table.
var ProfileNamed = profileNamed

// CheckMemory compares the cache's counts with what the sequences hold.
func (e *Engine) CheckMemory() error {
	c := e.cache
	private, refs := 0, map[uint64]int{}
	for _, s := range append(append([]*Sequence(nil), e.running...), e.waiting...) {
		private += s.pages
		for _, b := range s.held {
			refs[b.hash]++
		}
		if s.stage == stageRunning && pagesFor(s.computed) > s.pages+len(s.held)*blockPages {
			return fmt.Errorf("%d tokens computed in %d pages and %d blocks", s.computed, s.pages, len(s.held))
		}
		if s.stage == stageWaiting && s.pages+len(s.held) > 0 {
			return fmt.Errorf("a waiting sequence holds %d pages and %d blocks", s.pages, len(s.held))
		}
	}
	idle, tiered := 0, 0
	for h, b := range c.blocks {
		if b.refs != refs[h] {
			return fmt.Errorf("block %x has %d references, %d sequences hold it", h, b.refs, refs[h])
		}
		switch {
		case b.in == &c.tier:
			tiered++
		case b.refs == 0:
			idle++
		}
	}
	if idle != c.idle.n || private != c.private || c.free < 0 || c.resident+tiered != len(c.blocks) ||
		c.free+c.private+c.resident*blockPages != c.total {
		return fmt.Errorf("%d idle blocks (%d listed), %d private pages (%d held), %d free, %d and %d blocks of %d, %d pages in all",
			idle, c.idle.n, c.private, private, c.free, c.resident, tiered, len(c.blocks), c.total)
	}
	if tiered > c.tierMost || c.tier.hashes() != tiered || c.idle.hashes() != idle {
		return fmt.Errorf("the CPU tier has %d blocks, lists %d, may hold %d", tiered, c.tier.hashes(), c.tierMost)
	}
	return nil
}

// hashes counts the blocks of a list, there and back.
func (l *blockList) hashes() (n int) {
	for b := l.oldest; b != nil; b = b.next {
		n++
		if b.in != l || b.next == nil && b != l.newest || b.next != nil && b.next.prev != b {
			return -1
		}
	}
	return n
}
