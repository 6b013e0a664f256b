package engine

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
//	free + private + blockPages·resident = total
type kvCache struct {
	total    int
	free     int
	private  int
	resident int               // blocks that have pages
	blocks   map[uint64]*block // those and the ones in the CPU tier
	idle     blockList         // resident ones that no sequence holds
	tier     blockList         // those in the CPU tier
	tierMost int
}

// block is the KV of one prefix block, keyed by the chained hash of all text up
// to its end.
type block struct {
	hash       uint64
	refs       int
	in         *blockList // nil: a sequence holds it
	prev, next *block     // there
}

func newKVCache(p *Profile) *kvCache {
	pages := p.KVTokens / pageTokens
	return &kvCache{total: pages, free: pages, blocks: make(map[uint64]*block), tierMost: p.CPUTokens / BlockTokens}
}

// available counts the pages that can be allocated, evicting idle blocks.
func (c *kvCache) available() int { return c.free + c.idle.n*blockPages }

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
	b := c.idle.oldest
	b.leave()
	c.resident--
	c.free += blockPages
	b.enter(&c.tier)
	if c.tier.n > c.tierMost {
		lost := c.tier.oldest
		lost.leave()
		delete(c.blocks, lost.hash)
	}
}

// match counts the leading hashes that are resident, then in the CPU tier.
func (c *kvCache) match(hashes []uint64) (resident, tiered int) {
	for _, h := range hashes {
		b := c.blocks[h]
		if b == nil {
			break
		}
		// A block behind a loaded one counts as loaded: the run is loaded as
		// one.
		if b.in != &c.tier && tiered == 0 {
			resident++
			continue
		}
		tiered++
	}
	return resident, tiered
}

func (c *kvCache) hold(hash uint64) *block { return c.blocks[hash].hold() }

func (b *block) hold() *block {
	b.leave()
	b.refs++
	return b
}

// release drops references. The last blocks of a prefix are evicted first,
// since an end is useless without its beginning.
func (c *kvCache) release(held []*block) {
	for i := len(held) - 1; i >= 0; i-- {
		b := held[i]
		if b.refs--; b.refs == 0 {
			b.enter(&c.idle)
		}
	}
}

// publish turns blockPages private pages into the block of the hash, held by
// the caller. If the block exists, that one is held and the pages are freed.
func (c *kvCache) publish(hash uint64) *block {
	c.private -= blockPages
	b := c.blocks[hash]
	switch {
	case b == nil:
		b = &block{hash: hash}
		c.blocks[hash] = b
		c.resident++
	case b.in == &c.tier:
		c.resident++
	default:
		c.free += blockPages
	}
	return b.hold()
}

// blockList is a list of blocks in the order in which they came.
type blockList struct {
	n              int
	oldest, newest *block
}

// enter puts a block that is in no list at the end of one.
func (b *block) enter(l *blockList) {
	b.in, b.prev = l, l.newest
	if l.n++; l.newest != nil {
		l.newest.next = b
	} else {
		l.oldest = b
	}
	l.newest = b
}

// leave takes the block out of the list that it is in, if any.
func (b *block) leave() {
	l := b.in
	if l == nil {
		return
	}
	if l.n--; b.prev != nil {
		b.prev.next = b.next
	} else {
		l.oldest = b.next
	}
	if b.next != nil {
		b.next.prev = b.prev
	} else {
		l.newest = b.prev
	}
	b.in, b.prev, b.next = nil, nil, nil
}
