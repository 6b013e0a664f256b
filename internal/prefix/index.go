// Package prefix knows which blocks of prompts are in the caches of which heads. It
// makes the hashes of blocks, and keeps a bounded index from a block to the heads
// that computed it.
package prefix

import (
	"math"
	"math/bits"
	"sort"
	"sync"
	"sync/atomic"
)

// Index is which heads have which blocks in their caches, as far as is known from
// the prompts that went there. It has a fixed size and forgets what was used least
// lately. It is a hint: an entry may be lost at any time, and one that changes while
// it is read may be missed.
//
// A head's cache holds what it computed last. The index counts the tokens that each
// head computed: a block is gone when its head has computed more since its last use
// than the cache holds. So nothing is removed one by one, and there is no list.
//
// All methods are safe for concurrent use. None blocks, and none allocates but for a
// head that is new.
type Index struct {
	entries   []entry
	mask      uint64 // of groups
	caches    atomic.Pointer[[]*cache]
	growing   sync.Mutex
	inserted  atomic.Uint64 // entries that were taken for another block
	evictions atomic.Uint64 // of those, that some head still had
}

// The table is searched in groups of entries that stand beside one another.
const (
	groupSize = 4
	perEntry  = 6 // heads
)

// entry is a block and heads that have it: one cache line. The first heads of a block
// are in its own entry, each of the others in the further entry of its number, whose key
// is made of the block's. So a head is found in one of two entries, however many have
// the block.
type entry struct {
	key   atomic.Uint64 // 0: free
	meta  atomic.Uint64 // which further entries there are, one bit for each, and the use
	heads [perEntry]atomic.Uint64
}

// The use of an entry is the number of entries taken until then, in useUnit: the
// age of what the table forgets. It takes the lowest bits of entry.meta.
const (
	useUnit = 256
	useBits = 20
	useMask = 1<<useBits - 1
)

// A block has at most so many further entries: with its own they have room for all heads
// of a pool in which each is looked at for a request, and for the newest of more. The
// more heads have a block, the less that distinguishes them.
const furtherEntries = 64 - useBits

// A word of entry.heads is a head's number and a stamp: the tokens that its cache
// had computed, in stampUnit.
const (
	stampBits = 44
	stampUnit = 16
	stampMask = 1<<stampBits - 1

	// MaxHeads is how many heads an index tells apart. Those with greater numbers
	// are not known to have anything.
	MaxHeads = 1<<(64-stampBits) - 1
)

// cache is what is known of one head's cache.
type cache struct {
	instance atomic.Uint64
	computed atomic.Uint64 // tokens
	capacity atomic.Uint64 // tokens
}

func (c *cache) stamp() uint64 { return c.computed.Load() / stampUnit & stampMask }

// age is how many tokens were computed since the stamp of a word.
func (c *cache) age(word uint64) uint64 { return (c.stamp() - word) & stampMask * stampUnit }

func (c *cache) has(word uint64) bool { return c.age(word) <= c.capacity.Load() }

// NewIndex makes an index of at least so many entries, of 64 bytes each.
func NewIndex(entries int) *Index {
	groups := uint64(1) << bits.Len64(uint64(max(entries, 1)-1)/groupSize)
	x := &Index{entries: make([]entry, groups*groupSize), mask: groups - 1}
	x.caches.Store(new([]*cache))
	return x
}

// Len is how many entries there are room for.
func (x *Index) Len() int { return len(x.entries) }

// Evictions is how many blocks that a head still had made room for others.
func (x *Index) Evictions() uint64 { return x.evictions.Load() }

// Open says which head has a number now, and how many tokens its cache holds. What
// an earlier instance had under that number is gone; instances count up, and what
// comes late of one that is over changes nothing.
func (x *Index) Open(number int, instance, capacity uint64) {
	c := x.cache(number)
	if c == nil {
		if c = x.grow(number); c == nil {
			return
		}
	}
	old := c.instance.Load()
	if old > instance {
		return
	}
	c.capacity.Store(capacity)
	if old < instance && c.instance.CompareAndSwap(old, instance) {
		c.clear()
	}
}

// Clear notes that the cache of a head is empty, if the number is still its own.
func (x *Index) Clear(number int, instance uint64) {
	if c := x.cache(number); c != nil && c.instance.Load() == instance {
		c.clear()
	}
}

func (c *cache) clear() { c.computed.Add(c.capacity.Load() + 2*stampUnit) }

func (x *Index) cache(number int) *cache {
	if list := *x.caches.Load(); number < len(list) {
		return list[number]
	}
	return nil
}

func (x *Index) grow(number int) *cache {
	if number >= MaxHeads {
		return nil
	}
	x.growing.Lock()
	defer x.growing.Unlock()
	list := *x.caches.Load()
	if number < len(list) {
		return list[number]
	}
	next := make([]*cache, max(number+1, 2*len(list), 16))
	copy(next, list)
	made := make([]cache, len(next)-len(list))
	for i := range made {
		next[len(list)+i] = &made[i]
	}
	x.caches.Store(&next)
	return next[number]
}

// ownKey is the key of a block's own entry.
func ownKey(block uint64) uint64 { return max(block, 1) }

// furtherKey is the key of further entry n of a block.
func furtherKey(block uint64, n int) uint64 {
	key := (block ^ uint64(n+1)) * 0x9e3779b97f4a7c15
	return max(key^key>>29, 1)
}

// furtherOf is the further entry of the head of a word.
func furtherOf(word uint64) int { return int((word>>stampBits - 1) / perEntry % furtherEntries) }

func (x *Index) group(key uint64) []entry {
	at := (key * 0xff51afd7ed558ccd >> 20 & x.mask) * groupSize
	return x.entries[at : at+groupSize : at+groupSize]
}

func (x *Index) find(key uint64) *entry {
	group := x.group(key)
	for i := range group {
		if group[i].key.Load() == key {
			return &group[i]
		}
	}
	return nil
}

// Found is what Match found, for heads by their numbers. It is reused, and belongs
// to one goroutine.
type Found struct {
	caches []*cache
	depth  []uint64 // round <<16 | blocks
	round  uint64
	more   []int32 // numbers of the heads that have more than the first block, the most first
	first  []int32 // and of those that have it
	looked int     // entries with heads that were looked at
}

// maxBlocks is how many blocks of a prompt are looked at.
const maxBlocks = 1<<16 - 1

// Blocks is how many of the prompt's first blocks the head has. What was known of
// another instance under its number is not its own.
func (f *Found) Blocks(number int, instance uint64) int {
	if f.Knows(number) && f.caches[number].instance.Load() == instance {
		return int(f.depth[number] & maxBlocks)
	}
	return 0
}

// Knows reports whether the head, or one that had its number before, has some of the
// prompt.
func (f *Found) Knows(number int) bool {
	return number < len(f.depth) && f.depth[number]>>16 == f.round
}

func (f *Found) begin(caches []*cache) {
	if f.caches = caches; len(f.depth) < len(caches) {
		f.depth = append(f.depth, make([]uint64, len(caches)-len(f.depth))...)
	}
	f.round++
	f.more, f.first, f.looked = f.more[:0], f.first[:0], 0
}

// Most appends to list the numbers of at most n heads that have some of the prompt,
// those that have the most first. Of equals it takes any, by a random number.
func (f *Found) Most(list []int32, n int, random uint64) []int32 {
	for at := 0; at < len(f.more) && n > 0; { // a group of equals after another
		end := at + 1
		for end < len(f.more) && f.depth[f.more[end]] == f.depth[f.more[at]] {
			end++
		}
		group := f.more[at:end]
		for i := range min(n, len(group)) {
			list = append(list, group[(random+uint64(i))%uint64(len(group))])
		}
		n -= min(n, len(group))
		at = end
	}
	for i := 0; i < len(f.first) && n > 0; i++ {
		if number := f.first[(random+uint64(i))%uint64(len(f.first))]; f.depth[number] == f.round<<16|1 {
			list = append(list, number)
			n--
		}
	}
	return list
}

// maxMatched bounds the entries that a Match looks at, so that those are found that have
// the most. A block with more than manyEntries further ones is one that many heads have.
const (
	maxMatched  = 256
	manyEntries = 32
)

// Match finds for each head how many of a prompt's first blocks it has. A head that
// has a block has those before it, since each use of a prompt uses all of its
// blocks; so it looks for the last block that is known, and goes back from there until
// each head is found that has the first.
func (x *Index) Match(blocks []uint64, f *Found) {
	list := *x.caches.Load()
	f.begin(list)
	blocks = blocks[:min(len(blocks), maxBlocks)]
	last := sort.Search(len(blocks), func(i int) bool { return x.find(ownKey(blocks[i])) == nil })
	if last == 0 {
		return
	}
	m := matching{x, f, list, maxMatched}
	defer func() { f.looked = maxMatched - m.left }()
	many, left := x.many(blocks[0]), math.MaxInt
	if !many {
		left = m.block(blocks[0], 1, func(depth uint64) bool { return depth>>16 != f.round })
	}
	for ; last > 1 && left > 0; last-- {
		left -= m.block(blocks[last-1], uint64(last), func(depth uint64) bool {
			return depth == f.round<<16|1 || many && depth>>16 != f.round
		})
	}
	if many {
		m.block(blocks[0], 1, func(depth uint64) bool { return depth>>16 != f.round })
	}
}

// many reports whether so many heads have the block that they are not counted.
func (x *Index) many(block uint64) bool {
	e := x.find(ownKey(block))
	return e != nil && bits.OnesCount64(e.meta.Load()>>useBits) > manyEntries
}

// matching is a Match under way.
type matching struct {
	*Index
	found *Found
	list  []*cache
	left  int // entries that may be looked at
}

// block notes so many blocks for the heads that have this one, which is the last of
// them, if wanted says so of what is noted of them. It returns how many they are.
func (m *matching) block(block, blocks uint64, wanted func(depth uint64) bool) (heads int) {
	e := m.find(ownKey(block))
	if e == nil {
		return 0
	}
	left := e.meta.Load() >> useBits
	for m.left > 0 {
		if m.left--; e != nil {
			heads += m.entry(e, blocks, wanted)
		}
		if left == 0 {
			break
		}
		e = m.find(furtherKey(block, bits.TrailingZeros64(left)))
		left &= left - 1
	}
	return heads
}

// entry is block for the heads of one entry.
func (m *matching) entry(e *entry, blocks uint64, wanted func(depth uint64) bool) (heads int) {
	f := m.found
	for i := range e.heads {
		word := e.heads[i].Load()
		number := word>>stampBits - 1
		if !alive(word, m.list) || !wanted(f.depth[number]) {
			continue
		}
		f.depth[number] = f.round<<16 | blocks
		if heads++; blocks == 1 {
			f.first = append(f.first, int32(number))
		} else {
			f.more = append(f.more, int32(number))
		}
	}
	return heads
}

// Add notes that a head computed so many tokens for a prompt, and has its blocks. It
// does nothing if the number is another's.
func (x *Index) Add(blocks []uint64, number int, instance, tokens uint64) {
	c := x.cache(number)
	if c == nil || c.instance.Load() != instance {
		return
	}
	c.computed.Add(tokens)
	word := uint64(number+1)<<stampBits | c.stamp()
	blocks = blocks[:min(len(blocks), maxBlocks)]
	for _, block := range blocks {
		x.put(block, word, c)
	}
}

// freshShare is the part of a cache's capacity that it computes, and of the table that
// it takes in, before a block is noted as used again.
const freshShare = 16

// put notes a head's word at a block. It does nothing if the older word of the head is
// nearly as new.
func (x *Index) put(block, word uint64, c *cache) {
	list := *x.caches.Load()
	own := x.take(ownKey(block), list)
	e := x.entryOf(own, block, word, list)
	at := e.place(word, list, e != own)
	if at < 0 { // another head took the last place meanwhile
		return
	}
	if e.holds(at, word) && c.age(e.heads[at].Load()) < c.capacity.Load()/freshShare && x.usedLately(own) {
		return
	}
	e.heads[at].Store(word)
	now := x.inserted.Load() / useUnit & useMask
	meta := own.meta.Load()&^useMask | now
	if e != own {
		e.meta.Store(now)
		meta |= 1 << (useBits + furtherOf(word))
	}
	own.meta.Store(meta)
}

// entryOf is the entry of a block where the head of a word is noted: where it is, else
// the block's own if that has a free place.
func (x *Index) entryOf(own *entry, block, word uint64, list []*cache) *entry {
	at, n := own.place(word, list, false), furtherOf(word)
	if own.holds(at, word) || at >= 0 && own.meta.Load()>>(useBits+n)&1 == 0 {
		return own
	}
	key := furtherKey(block, n)
	if at >= 0 {
		if e := x.find(key); e == nil || !e.holds(e.place(word, list, true), word) {
			return own
		}
	}
	return x.take(key, list)
}

// usedLately reports whether the table took in less than a share of what it holds since
// the entry was used last.
func (x *Index) usedLately(e *entry) bool {
	return x.unused(e)*useUnit < uint64(len(x.entries)/freshShare)
}

// unused is how many entries, in useUnit, were taken since the entry was used last.
func (x *Index) unused(e *entry) uint64 {
	return (x.inserted.Load()/useUnit - e.meta.Load()) & useMask
}

// holds reports whether the word at a place is an older one of the same head.
func (e *entry) holds(at int, word uint64) bool {
	return at >= 0 && e.heads[at].Load()>>stampBits == word>>stampBits
}

// place is where the head of a word is, else a free place, else, if one has to give way,
// that of the head that has computed most since; -1: there is none.
func (e *entry) place(word uint64, list []*cache, giveWay bool) int {
	at, most := -1, uint64(0)
	for i := range e.heads {
		old := e.heads[i].Load()
		if old>>stampBits == word>>stampBits {
			return i
		}
		age := uint64(math.MaxUint64)
		if alive(old, list) {
			if age = list[old>>stampBits-1].age(old) + 1; !giveWay {
				continue
			}
		}
		if age > most {
			at, most = i, age
		}
	}
	return at
}

func alive(word uint64, list []*cache) bool {
	number := word >> stampBits
	return number > 0 && number <= uint64(len(list)) && list[number-1].has(word)
}

// take finds the entry of the key, or takes one of its group: a free one, one that no
// head has any more, or the one that was used least lately.
func (x *Index) take(key uint64, list []*cache) *entry {
	group := x.group(key)
	victim, oldest := 0, int64(-1)
	for i := range group {
		e := &group[i]
		if e.key.Load() == key {
			return e
		}
		age := int64(x.unused(e))
		if e.key.Load() == 0 || !e.alive(list) {
			age = 1 << 32
		}
		if age > oldest {
			victim, oldest = i, age
		}
	}
	x.inserted.Add(1)
	e := &group[victim]
	if oldest < 1<<32 {
		x.evictions.Add(1)
	}
	e.key.Store(0) // it is not found while it changes
	for i := range e.heads {
		e.heads[i].Store(0)
	}
	e.meta.Store(x.inserted.Load() / useUnit & useMask)
	e.key.Store(key)
	return e
}

func (e *entry) alive(list []*cache) bool {
	for i := range e.heads {
		if alive(e.heads[i].Load(), list) {
			return true
		}
	}
	return false
}
