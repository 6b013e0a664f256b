package decisionlog

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Damage is a part of a file that cannot be read. Lines at its beginning may have been.
type Damage struct {
	File        string
	From, Bytes int64
}

// chunks reads those of a file or of memory.
type chunks struct {
	in     io.ReaderAt
	size   int64
	before uint64 // the number of a chunk that is not read any more
}

// read yields the lines of the chunks up to the one that is not read, which is the end
// (done). Where a chunk is damaged or ends too soon it goes on with the next there is,
// and damaged is called.
func (c chunks) read(ctx context.Context, yield func(line []byte) error, damaged func(from, bytes int64)) (done bool, err error) {
	for at := int64(0); at < c.size; {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		next, err := c.one(at, yield)
		var torn *tornError
		switch {
		case errors.Is(err, errBefore):
			return true, nil
		case errors.As(err, &torn):
			if next, err = c.after(at + 1); err != nil {
				return false, err
			}
			damaged(at, next-at)
		case err != nil:
			return false, err
		}
		at = next
	}
	return false, nil
}

// errBefore says that a chunk is not read any more.
var errBefore = errors.New("the chunk is read from elsewhere")

// one yields the lines of the chunk that begins there, and returns where it ends.
func (c chunks) one(at int64, yield func(line []byte) error) (end int64, err error) {
	section := io.NewSectionReader(c.in, at, c.size-at)
	in := bufio.NewReaderSize(section, 64<<10) // of which no byte beyond the chunk is taken
	unpacked, err := gzip.NewReader(in)
	if err != nil {
		return 0, &tornError{err}
	}
	if numberOf(&unpacked.Header) >= c.before {
		return 0, errBefore
	}
	unpacked.Multistream(false)
	if err := eachLine(bufio.NewReaderSize(unpacked, 64<<10), yield); err != nil {
		return 0, err
	}
	read, _ := section.Seek(0, io.SeekCurrent)
	return at + read - int64(in.Buffered()), nil
}

// What the header of a chunk begins with, and what stands in it before chunkMark: the
// length of the extra field.
var (
	chunkHeader = []byte{0x1f, 0x8b, 8, 4}
	chunkExtra  = append([]byte{12, 0}, chunkMark...)
)

const extraAt = 10 // in a header

// after is where the first chunk begins from there on, or the end.
func (c chunks) after(from int64) (int64, error) {
	const step = 64 << 10
	window := make([]byte, step+extraAt+len(chunkExtra))
	for ; from < c.size; from += step {
		n, err := c.in.ReadAt(window, from)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, fmt.Errorf("read the decision log: %w", err)
		}
		for at := 0; at < step; at++ {
			i := bytes.Index(window[at:n], chunkHeader)
			if i < 0 {
				break
			}
			if at += i; n-at > extraAt && bytes.HasPrefix(window[at+extraAt:n], chunkExtra) {
				return from + int64(at), nil
			}
		}
	}
	return c.size, nil
}

// tornError says that lines cannot be read on.
type tornError struct{ error }

// eachLine yields the lines that are whole and look like those of the log.
func eachLine(in *bufio.Reader, yield func(line []byte) error) error {
	for {
		line, err := readLine(in)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return &tornError{err}
		case !bytes.HasPrefix(line, atPrefix) || !json.Valid(line): // the sum of a chunk is read behind its lines
			continue
		}
		if err := yield(line); err != nil {
			return err
		}
	}
}

// readLine reads a line whole, of any length.
func readLine(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return line, err
	}
	long := bytes.Clone(line)
	rest, err := in.ReadBytes('\n')
	return append(long, rest...), err
}
