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
	idle := 0
	for h, b := range c.blocks {
		if b.refs != refs[h] {
			return fmt.Errorf("block %x has %d references, %d sequences hold it", h, b.refs, refs[h])
		}
		if b.refs == 0 {
			idle++
		}
	}
	if idle != c.idle.len() || private != c.private || c.free < 0 ||
		c.free+c.private+len(c.blocks)*blockPages != c.total {
		return fmt.Errorf("%d idle blocks (%d listed), %d private pages (%d held), %d free, %d blocks, %d pages in all",
			idle, c.idle.len(), c.private, private, c.free, len(c.blocks), c.total)
	}
	if c.tier.len() > c.tier.limit || c.tier.order.Len() != c.tier.len() || c.idle.order.Len() != c.idle.len() {
		return fmt.Errorf("the CPU tier lists %d blocks, indexes %d, may hold %d",
			c.tier.order.Len(), c.tier.len(), c.tier.limit)
	}
	return nil
}
