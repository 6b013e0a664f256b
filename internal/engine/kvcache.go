package engine

import "container/list"

// pageTokens is the allocation unit, vLLM's default block_size. A prefix block
// is a whole number of pages.
const (
	pageTokens = 16
	blockPages = BlockTokens / pageTokens
)

func pagesFor(tokens int) int { return (tokens + pageTokens - 1) / pageTokens }

// kvCache accounts for the pages of one accelerator's KV memory. A page is
// free, private to a sequence, or part of a prefix block. A block that no
// sequence holds stays until its pages are needed, least recently used first;
// with a CPU tier it then moves there.
//
//	free + private + blockPages·len(blocks) = total
type kvCache struct {
	total   int
	free    int
	private int
	blocks  map[uint64]*block
	idle    lruSet // blocks that no sequence holds
	tier    lruSet // blocks in the CPU tier
}

// block is the KV of one prefix block, keyed by the chained hash of all text up
// to its end.
type block struct {
	hash uint64
	refs int
}

func newKVCache(p *Profile) *kvCache {
	pages := p.KVTokens / pageTokens
	return &kvCache{
		total: pages, free: pages,
		blocks: make(map[uint64]*block),
		idle:   newLRUSet(pages / blockPages), // there are never more blocks
		tier:   newLRUSet(p.CPUTokens / BlockTokens),
	}
}

// available counts the pages that can be allocated, evicting idle blocks.
func (c *kvCache) available() int { return c.free + c.idle.len()*blockPages }

// used is the share of pages that sequences hold. As in vLLM, idle blocks are
// not counted.
func (c *kvCache) used() float64 { return 1 - float64(c.available())/float64(c.total) }

// take allocates n private pages, or none.
func (c *kvCache) take(n int) bool {
	if c.available() < n {
		return false
	}
	for c.free < n {
		c.evict()
	}
	c.free -= n
	c.private += n
	return true
}

func (c *kvCache) give(n int) {
	c.free += n
	c.private -= n
}

func (c *kvCache) evict() {
	hash := c.idle.oldest()
	c.idle.remove(hash)
	delete(c.blocks, hash)
	c.free += blockPages
	c.tier.add(hash)
}

// match counts the leading hashes that are resident, then in the CPU tier.
func (c *kvCache) match(hashes []uint64) (resident, tiered int) {
	for _, h := range hashes {
		if _, ok := c.blocks[h]; ok && tiered == 0 {
			resident++
			continue
		}
		// A block behind a loaded one counts as loaded: the run is loaded as
		// one.
		if _, ok := c.blocks[h]; !ok && !c.tier.has(h) {
			break
		}
		tiered++
	}
	return resident, tiered
}

func (c *kvCache) hold(hash uint64) *block {
	b := c.blocks[hash]
	if b.refs == 0 {
		c.idle.remove(hash)
	}
	b.refs++
	return b
}

// release drops references. The last blocks of a prefix are evicted first,
// since an end is useless without its beginning.
func (c *kvCache) release(held []*block) {
	for i := len(held) - 1; i >= 0; i-- {
		b := held[i]
		if b.refs--; b.refs == 0 {
			c.idle.add(b.hash)
		}
	}
}

// publish turns blockPages private pages into the block of the hash, held by
// the caller. If the block exists, that one is held and the pages are freed.
func (c *kvCache) publish(hash uint64) *block {
	c.private -= blockPages
	if _, ok := c.blocks[hash]; ok {
		c.free += blockPages
		return c.hold(hash)
	}
	c.tier.remove(hash)
	b := &block{hash: hash, refs: 1}
	c.blocks[hash] = b
	return b
}

// lruSet is a bounded set of block hashes that evicts the least recently added.
type lruSet struct {
	limit int
	index map[uint64]*list.Element
	order *list.List // of hashes, the oldest first
}

func newLRUSet(limit int) lruSet {
	return lruSet{limit: limit, index: make(map[uint64]*list.Element), order: list.New()}
}

func (s *lruSet) len() int { return len(s.index) }

// oldest is the next to be evicted; the set must not be empty.
func (s *lruSet) oldest() uint64 { return s.order.Front().Value.(uint64) } //nolint:errcheck // only hashes are added

func (s *lruSet) has(hash uint64) bool {
	_, ok := s.index[hash]
	return ok
}

func (s *lruSet) add(hash uint64) {
	if s.limit == 0 {
		return
	}
	s.remove(hash)
	if s.len() == s.limit {
		s.remove(s.oldest())
	}
	s.index[hash] = s.order.PushBack(hash)
}

func (s *lruSet) remove(hash uint64) {
	if e, ok := s.index[hash]; ok {
		s.order.Remove(e)
		delete(s.index, hash)
	}
}
