package proxy

import (
	"math/bits"
	"sync"
)

// The sizes of buffers that are kept for other bodies go from 1 KiB to 64 MiB in
// steps of a sixteenth: of a buffer at most that much is unused. Without them a
// thousand long prompts leave as much garbage as they take (bench, "prompts of
// 100,000 tokens"). The garbage collector takes what is not used again.
const (
	leastShift = 6 // of the smallest step
	mostShift  = 22
	steps      = 16 // to the double
)

var memory [(mostShift-leastShift)*steps + 1]sync.Pool

// sizeFor returns the size of a buffer for n bytes, and the place of its pool, -1
// if it is too large to be kept.
func sizeFor(n int) (size, pool int) {
	n = max(n, steps<<leastShift)
	shift := max(bits.Len(uint(n-1))-5, leastShift)
	count := (n + 1<<shift - 1) >> shift
	if pool = (shift-leastShift)*steps + count - steps; pool >= len(memory) {
		return n, -1
	}
	return count << shift, pool
}

// newMemory returns an empty buffer for n bytes.
func newMemory(n int) *[]byte {
	size, pool := sizeFor(n)
	if pool >= 0 {
		if b, ok := memory[pool].Get().(*[]byte); ok {
			return b
		}
	}
	b := make([]byte, 0, size)
	return &b
}

// freeMemory takes a buffer of newMemory back.
func freeMemory(b *[]byte) {
	if size, pool := sizeFor(cap(*b)); pool >= 0 && size == cap(*b) {
		*b = (*b)[:0]
		memory[pool].Put(b)
	}
}
