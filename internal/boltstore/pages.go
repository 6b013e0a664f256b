package boltstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// bbolt's file format, version 2; numbers are in the machine's byte order. A
// page is a header of 16 bytes (id uint64, flags and count uint16, overflow
// uint32: how many pages it goes on for) and its elements.
const (
	pageHeader  = 16
	elementSize = 16 // branch: pos, ksize uint32, page uint64; leaf: flags, pos, ksize, vsize uint32
	metaSize    = 64 // magic, version, pageSize, flags uint32, root, sequence, freelist, pages, txid, FNV-1a of these uint64

	bboltMagic   = 0xED0CDAED
	bboltVersion = 2

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10
	flagBucket   = 0x01 // of a leaf's element
)

var order = binary.NativeEndian

// pageWalk reads a file's pages without bbolt, which trusts what they say of
// themselves: with a flipped bit in a page's header or in the list of free
// pages it opens the file as if nothing were wrong and overwrites live pages
// later, and with one in a branch it no longer finds keys that are there. Its
// own Tx.Check does not end on some damaged headers.
type pageWalk struct {
	file  io.ReaderAt
	size  int64  // of a page
	pages uint64 // that are in use or free
	taken []bool // by page: reached already
	tree  struct{ root, freelist uint64 }
}

// checkPages returns the first thing that is wrong with the structure of a file
// of size bytes. When there is none, each page is either one page of the tree,
// or of the free list, or free, and all keys stand where a search looks.
func checkPages(file io.ReaderAt, pageSize, size int64) error {
	w := pageWalk{file: file, size: pageSize}
	if err := w.metas(); err != nil {
		return err
	}
	if have := uint64(size / pageSize); have < w.pages {
		return fmt.Errorf("it was cut: pages that are there: %d of %d", have, w.pages)
	}
	w.taken = make([]bool, w.pages)
	w.taken[0], w.taken[1] = true, true
	if err := w.free(); err != nil {
		return err
	}
	if err := w.walk(w.tree.root, nil, nil, 0); err != nil {
		return err
	}
	for id, taken := range w.taken {
		if !taken {
			return fmt.Errorf("page %d is neither used nor free", id)
		}
	}
	return nil
}

// metas checks both of bbolt's meta pages and takes the later. Commits write
// them in turn, and where one is damaged bbolt goes on from the other, without
// a word and without the last commit. It can't be a commit that a crash cut
// short: what is checked lies within one sector, which disks write whole.
func (w *pageWalk) metas() error {
	var txs [2]uint64
	for id := range txs {
		meta := make([]byte, metaSize)
		if _, err := w.file.ReadAt(meta, int64(id)*w.size+pageHeader); err != nil {
			return fmt.Errorf("meta page %d: %w", id, err)
		}
		h := fnv.New64a()
		_, _ = h.Write(meta[:56])
		if h.Sum64() != order.Uint64(meta[56:]) {
			return fmt.Errorf("meta page %d is damaged, and with it what was written last", id)
		}
		// bbolt leaves aside a meta page that is of another format, and then takes
		// the other for the newest.
		if order.Uint32(meta) != bboltMagic || order.Uint32(meta[4:]) != bboltVersion || int64(order.Uint32(meta[8:])) != w.size {
			return fmt.Errorf("meta page %d is of another format", id)
		}
		if txs[id] = order.Uint64(meta[48:]); id == 0 || txs[1] > txs[0] {
			w.tree.root, w.tree.freelist, w.pages = order.Uint64(meta[16:]), order.Uint64(meta[32:]), order.Uint64(meta[40:])
		}
	}
	if txs[0]%2 != 0 || txs[1]+1 != txs[0] && txs[0]+1 != txs[1] {
		return fmt.Errorf("its meta pages are of commits %d and %d, which do not follow each other", txs[0], txs[1])
	}
	if w.pages < 2 || w.pages > 1<<48 {
		return fmt.Errorf("its number of pages cannot be: %d", w.pages)
	}
	return nil
}

// take marks pages as reached, which each must be exactly once.
func (w *pageWalk) take(first, n uint64) error {
	if first >= w.pages || n > w.pages-first {
		return fmt.Errorf("page %d and %d more lie beyond the last page", first, n-1)
	}
	for id := first; id < first+n; id++ {
		if w.taken[id] {
			return fmt.Errorf("page %d is used twice", id)
		}
		w.taken[id] = true
	}
	return nil
}

// read returns a whole page and takes it.
func (w *pageWalk) read(id uint64) (page []byte, flags, count uint16, err error) {
	if id < 2 || id >= w.pages {
		return nil, 0, 0, fmt.Errorf("page %d is pointed to, and there is none", id)
	}
	header := make([]byte, pageHeader)
	if _, err := w.file.ReadAt(header, int64(id)*w.size); err != nil {
		return nil, 0, 0, fmt.Errorf("page %d: %w", id, err)
	}
	if is := order.Uint64(header); is != id {
		return nil, 0, 0, fmt.Errorf("page %d says that it is page %d", id, is)
	}
	n := uint64(order.Uint32(header[12:])) + 1
	if err := w.take(id, n); err != nil {
		return nil, 0, 0, err
	}
	page = make([]byte, int64(n)*w.size)
	if _, err := w.file.ReadAt(page, int64(id)*w.size); err != nil {
		return nil, 0, 0, fmt.Errorf("page %d: %w", id, err)
	}
	return page, order.Uint16(header[8:]), order.Uint16(header[10:]), nil
}

// free takes the list of free pages and each page that it names. A count of
// 0xFFFF says that the true one is the first number of the list.
func (w *pageWalk) free() error {
	page, flags, small, err := w.read(w.tree.freelist)
	if err != nil {
		return fmt.Errorf("the list of free pages: %w", err)
	}
	ids, count := page[pageHeader:], uint64(small)
	if small == 0xFFFF {
		count, ids = order.Uint64(ids), ids[8:]
	}
	if flags != flagFreelist || count > uint64(len(ids)/8) {
		return errors.New("the list of free pages is damaged")
	}
	last := uint64(0)
	for ; count > 0; count, ids = count-1, ids[8:] {
		id := order.Uint64(ids)
		if id <= last {
			return errors.New("the list of free pages is out of order")
		}
		if err := w.take(id, 1); err != nil {
			return fmt.Errorf("the list of free pages: %w", err)
		}
		last = id
	}
	return nil
}

// maxDepth is far above what a tree of bbolt's reaches: a page has at least two
// others below it. A file that was made to go on and on must not fill the stack.
const maxDepth = 64

// walk takes a page and all below it, whose keys are from low on and below
// high; nil is no bound. The first key is low: bbolt finds the entry of a page
// in the branch above by it, and adds a second one when it is another.
func (w *pageWalk) walk(id uint64, low, high []byte, depth int) error {
	page, flags, count, err := w.read(id)
	if err != nil {
		return err
	}
	if flags != flagBranch && flags != flagLeaf || pageHeader+int(count)*elementSize > len(page) ||
		count == 0 && (flags == flagBranch || low != nil) {
		return fmt.Errorf("page %d has a damaged header", id)
	}
	keys := make([][]byte, count)
	for i := range keys {
		at := pageHeader + i*elementSize
		element := page[at:]
		pos, size := element, element[4:] // of a branch
		if flags == flagLeaf {
			pos, size = element[4:], element[8:]
		}
		start := at + int(order.Uint32(pos))
		end := start + int(order.Uint32(size))
		if end > len(page) {
			return fmt.Errorf("page %d: a key lies beyond its end", id)
		}
		keys[i] = page[start:end]
		if i == 0 && low != nil && !bytes.Equal(keys[i], low) || i > 0 && bytes.Compare(keys[i], keys[i-1]) <= 0 ||
			high != nil && bytes.Compare(keys[i], high) >= 0 {
			return fmt.Errorf("page %d: its keys are out of order", id)
		}
		if flags == flagLeaf {
			if err := w.leaf(page, end, element, depth); err != nil {
				return fmt.Errorf("page %d: %w", id, err)
			}
		}
	}
	if flags == flagLeaf {
		return nil
	}
	return w.below(page, keys, high, depth+1)
}

// below walks the pages below a branch with its keys.
func (w *pageWalk) below(branch []byte, keys [][]byte, high []byte, depth int) error {
	if depth > maxDepth {
		return errors.New("its pages lie deeper than those of a tree can")
	}
	for i := range keys {
		end := high
		if i+1 < len(keys) {
			end = keys[i+1]
		}
		if err := w.walk(order.Uint64(branch[pageHeader+i*elementSize+8:]), keys[i], end, depth); err != nil {
			return err
		}
	}
	return nil
}

// leaf checks the value that starts at a place of a page, and follows it when
// it is a bucket: its root page, or 0 when its one page is in the value, and
// its sequence.
func (w *pageWalk) leaf(page []byte, start int, element []byte, depth int) error {
	end := start + int(order.Uint32(element[12:]))
	if end > len(page) {
		return errors.New("a value lies beyond its end")
	}
	value := page[start:end]
	switch flags := order.Uint32(element); {
	case flags == 0:
		return nil
	case flags != flagBucket || len(value) < 16:
		return errors.New("an element is damaged")
	}
	if root := order.Uint64(value); root != 0 {
		return w.walk(root, nil, nil, depth+1)
	}
	return inlinePage(value[16:])
}

// inlinePage checks the page of a small bucket, which lies in its value.
func inlinePage(page []byte) error {
	if len(page) < pageHeader || order.Uint16(page[8:]) != flagLeaf {
		return errors.New("a small bucket has a damaged header")
	}
	count := int(order.Uint16(page[10:]))
	if pageHeader+count*elementSize > len(page) {
		return errors.New("a small bucket has a damaged header")
	}
	for i := range count {
		at := pageHeader + i*elementSize
		element := page[at:]
		end := at + int(order.Uint32(element[4:])) + int(order.Uint32(element[8:])) + int(order.Uint32(element[12:]))
		if order.Uint32(element) != 0 || end > len(page) {
			return errors.New("an element of a small bucket is damaged")
		}
	}
	return nil
}
