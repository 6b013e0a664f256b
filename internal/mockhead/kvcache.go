package mockhead

import "container/list"

// pageTokens is the unit in which KV memory is given out, vLLM's default
// block_size. A prefix block is a whole number of pages.
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
	idle    list.List // of *block that nobody holds; the front is evicted first
	tier    lruSet
}

// block is the KV of one prefix block, found by the chained hash of all text
// up to its end.
type block struct {
	hash uint64
	refs int
	idle *list.Element // while refs is 0
}

func newKVCache(p *Profile) *kvCache {
	pages := p.KVTokens / pageTokens
	return &kvCache{
		total: pages, free: pages,
		blocks: make(map[uint64]*block),
		tier:   newLRUSet(p.CPUTokens / BlockTokens),
	}
}

// available is the number of pages that can be given out now, evicting idle
// blocks where needed.
func (c *kvCache) available() int { return c.free + c.idle.Len()*blockPages }

// used is the share of pages, 0..1, that sequences hold. Idle blocks are not
// counted, as vLLM does not count them.
func (c *kvCache) used() float64 { return 1 - float64(c.available())/float64(c.total) }

// take gives n pages to a sequence, or none and false when they do not fit.
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

// give takes n private pages back.
func (c *kvCache) give(n int) {
	c.free += n
	c.private -= n
}

func (c *kvCache) evict() {
	b := c.idle.Remove(c.idle.Front()).(*block) //nolint:forcetypeassert // the list holds nothing else
	delete(c.blocks, b.hash)
	c.free += blockPages
	c.tier.add(b.hash)
}

// match counts the leading hashes that are cached: in blocks, and in the CPU
// tier behind them.
func (c *kvCache) match(hashes []uint64) (resident, tiered int) {
	for _, h := range hashes {
		if _, ok := c.blocks[h]; ok && tiered == 0 {
			resident++
			continue
		}
		// A block behind one that has to be loaded counts as loaded too: the
		// run of blocks is brought in as one.
		if _, ok := c.blocks[h]; !ok && !c.tier.has(h) {
			break
		}
		tiered++
	}
	return resident, tiered
}

// hold takes a reference on a cached block.
func (c *kvCache) hold(hash uint64) *block {
	b := c.blocks[hash]
	if b.refs == 0 {
		c.idle.Remove(b.idle)
		b.idle = nil
	}
	b.refs++
	return b
}

// release gives references back. The last blocks of a prefix go idle first and
// are so evicted first: without them the rest is still of use, not the other
// way round.
func (c *kvCache) release(held []*block) {
	for i := len(held) - 1; i >= 0; i-- {
		b := held[i]
		if b.refs--; b.refs == 0 {
			b.idle = c.idle.PushBack(b)
		}
	}
}

// publish turns blockPages private pages into the block of the hash, held by
// the caller. When another sequence published it first, that one is held and
// the pages are free again.
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

// lruSet is a set of block hashes of a bounded size that forgets the least
// recently added.
type lruSet struct {
	limit int
	index map[uint64]*list.Element
	order list.List // of uint64; the front goes first
}

func newLRUSet(limit int) lruSet {
	return lruSet{limit: limit, index: make(map[uint64]*list.Element)}
}

func (s *lruSet) has(hash uint64) bool {
	_, ok := s.index[hash]
	return ok
}

func (s *lruSet) add(hash uint64) {
	if s.limit == 0 {
		return
	}
	s.remove(hash)
	if s.order.Len() == s.limit {
		delete(s.index, s.order.Remove(s.order.Front()).(uint64)) //nolint:forcetypeassert // the list holds nothing else
	}
	s.index[hash] = s.order.PushBack(hash)
}

func (s *lruSet) remove(hash uint64) {
	if e, ok := s.index[hash]; ok {
		s.order.Remove(e)
		delete(s.index, hash)
	}
}
