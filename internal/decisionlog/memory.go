package decisionlog

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// chunk is a number of lines, compressed as a member of a gzip file. It never changes.
type chunk struct {
	number uint64    // of all runs, growing
	to     time.Time // when it was made; nothing in it ended later
	packed []byte
}

// chunkBytes is how many bytes of lines a chunk has, or a line more.
const chunkBytes = 256 << 10

// memory is the newest chunks and the lines of the next one. Log.mu guards it.
type memory struct {
	most   int64
	chunks []chunk
	bytes  int64
	lines  []byte
	since  time.Time // when the first of lines came
	first  uint64    // number of the first chunk, also while it is made; 0: there was none
	last   uint64    // of the newest
}

// next is the lines that become a chunk, and its number.
func (m *memory) next(now time.Time) (lines []byte, number uint64) {
	m.last = max(m.last+1, uint64(now.UnixNano()))
	if m.first == 0 {
		m.first = m.last
	}
	return m.lines, m.last
}

// add keeps a chunk, and drops the oldest beyond the bound. Its lines are no more to come.
func (m *memory) add(c chunk) {
	m.lines = nil
	m.chunks = append(m.chunks, c)
	m.bytes += int64(len(c.packed))
	for m.bytes > m.most && len(m.chunks) > 1 {
		m.bytes -= int64(len(m.chunks[0].packed))
		m.chunks[0] = chunk{}
		m.chunks = m.chunks[1:]
	}
	m.first = m.chunks[0].number
}

// packing makes chunks. It is used by one goroutine.
type packing struct {
	gzip *gzip.Writer // nil at first: it has nearly a megabyte
}

// pack makes a chunk of lines.
func (p *packing) pack(lines []byte, number uint64, now time.Time) (chunk, error) {
	var out bytes.Buffer
	if p.gzip == nil {
		p.gzip, _ = gzip.NewWriterLevel(&out, gzip.BestSpeed) // it is a level
	}
	p.gzip.Reset(&out)
	p.gzip.Extra = binary.LittleEndian.AppendUint64(slices.Clone(chunkMark), number)
	if _, err := p.gzip.Write(lines); err != nil {
		return chunk{}, fmt.Errorf("compress: %w", err)
	}
	if err := p.gzip.Close(); err != nil {
		return chunk{}, fmt.Errorf("compress: %w", err)
	}
	return chunk{number, now, out.Bytes()}, nil
}

// chunkMark begins the extra field of a chunk's header: a name of two letters and the
// length of what follows, the chunk's number.
var chunkMark = []byte{'H', 'W', 8, 0}

// numberOf is the number of a chunk by its header, 0: it is none of ours.
func numberOf(h *gzip.Header) uint64 {
	number, ours := bytes.CutPrefix(h.Extra, chunkMark)
	if !ours || len(number) != 8 {
		return 0
	}
	return binary.LittleEndian.Uint64(number)
}
