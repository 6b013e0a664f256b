package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// Body is the body of an answer.
type Body struct {
	c      *conn
	left   int64 // of the body, or of the chunk; below 0: until the connection ends
	coded  bool  // in chunks
	within bool  // the end of a chunk comes next
	idle   int   // bytes of the extensions of chunks, less what was in them
	usable bool  // by the answer's header
	ended  bool
	failed *Error
	closed bool
	again  []byte // is read first
}

// Unread puts back what was read: it is read again first. The body keeps p.
func (b *Body) Unread(p []byte) { b.again = append(p, b.again...) }

// Read returns io.EOF at the end, with the last bytes where it came with them or the
// length is known, or an *Error.
func (b *Body) Read(p []byte) (n int, err error) {
	switch {
	case len(b.again) > 0:
		n = copy(p, b.again)
		b.again = b.again[n:]
		return n, nil
	case b.failed != nil:
		return 0, b.failed
	case b.ended:
		return 0, io.EOF
	case b.closed:
		return 0, http.ErrBodyReadAfterClose
	case b.coded:
		n, err = b.chunks(p)
	case b.left < 0:
		n, err = b.c.r.Read(p)
	default:
		if n, err = b.some(p); err == nil && b.left == 0 {
			err = io.EOF
		}
	}
	switch {
	case err == io.EOF: //nolint:errorlint // it is no error of the connection
		b.ended = true
	case err != nil:
		b.failed = b.c.fail(readKind(err, b.c.timeout), err)
		return n, b.failed
	}
	return n, err
}

// some reads some of what is left.
func (b *Body) some(p []byte) (int, error) {
	n, err := b.c.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// chunks reads what has come of one or more chunks; io.EOF after the last. It waits
// only if it has read nothing.
func (b *Body) chunks(p []byte) (n int, err error) {
	for n < len(p) {
		if b.left == 0 {
			if n > 0 && !b.hasNext() {
				return n, nil
			}
			if err = b.next(); err != nil {
				return n, err
			}
		}
		if n > 0 && b.c.r.Buffered() == 0 && !b.c.hasMore() {
			return n, nil
		}
		b.c.noWait = n > 0
		got, err := b.some(p[n:])
		b.c.noWait = false
		if n += got; errors.Is(err, errNotYet) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		if b.left == 0 { // or Wait would find it, and nothing to read behind it
			b.within = true
			if b.c.r.Buffered() >= len(lineEnd) {
				if err = b.endOfChunk(); err != nil {
					return n, err
				}
			}
		}
	}
	return n, nil
}

const lineEnd = "\r\n"

// lastChunk ends a body, without a trailer.
const lastChunk = "0\r\n\r\n"

// hasNext reports whether the next chunk has begun, or the last has come whole: after
// the first bytes of that may come what has to be waited for.
func (b *Body) hasNext() bool {
	got, _ := b.c.r.Peek(b.c.r.Buffered())
	if b.within {
		got = got[min(len(lineEnd), len(got)):]
	}
	return bytes.IndexByte(got, '\n') > 0 && (got[0] != '0' || bytes.HasPrefix(got, []byte(lastChunk)))
}

// line reads a line of the framing, which has to end with CRLF, without its end.
func (b *Body) line() ([]byte, error) {
	line, err := b.c.r.ReadSlice('\n')
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	line, ok := bytes.CutSuffix(line, []byte(lineEnd))
	if !ok {
		return nil, errors.New("a line of a chunk does not end with CRLF")
	}
	return line, nil
}

func (b *Body) endOfChunk() error {
	b.within = false
	line, err := b.line()
	if err == nil && len(line) > 0 {
		err = errors.New("a chunk is longer than it says")
	}
	return err
}

// next reads the line before a chunk; after the last one, the trailer and io.EOF.
func (b *Body) next() error {
	if b.within {
		if err := b.endOfChunk(); err != nil {
			return err
		}
	}
	line, err := b.line()
	if err != nil {
		return err
	}
	size, extension, _ := bytes.Cut(line, []byte{';'})
	if b.left, err = hexadecimal(size); err != nil {
		return fmt.Errorf("the size of a chunk: %w", err)
	}
	b.idle = max(b.idle+len(extension)-int(min(b.left, maxIdle)), 0)
	if b.idle > maxIdle || bytes.ContainsFunc(extension, isControl) {
		return errors.New("the extensions of chunks are too long or have control characters")
	}
	if b.left > 0 {
		return nil
	}
	return b.trailer()
}

// maxIdle is by how many bytes the extensions of chunks may be more than what is in
// them.
const maxIdle = 16 << 10

func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// hexadecimal reads the size of a chunk: strconv takes signs and underscores too.
func hexadecimal(b []byte) (int64, error) {
	if len(b) == 0 || len(b) > 15 { // 16 digits may be above the largest size
		return 0, strconv.ErrSyntax
	}
	n := int64(0)
	for _, ch := range b {
		switch {
		case ch >= '0' && ch <= '9':
			ch -= '0'
		case ch|0x20 >= 'a' && ch|0x20 <= 'f':
			ch = ch | 0x20 - 'a' + 10
		default:
			return 0, strconv.ErrSyntax
		}
		n = n<<4 | int64(ch)
	}
	return n, nil
}

// trailer passes over the fields behind the last chunk, which no caller reads.
func (b *Body) trailer() error {
	for size := 0; size <= maxHeader; {
		line, err := b.line()
		if err != nil {
			return err
		}
		if len(line) == 0 {
			return io.EOF
		}
		if _, _, err := field(string(line)); err != nil {
			return err
		}
		size += len(line)
	}
	return errors.New("the trailer is too long")
}

// EndBy is until when all of the body has to have come, where that is before the end
// of the whole exchange; what comes later is an error of TotalTimeout. undo takes it
// back.
func (b *Body) EndBy(t time.Time) (undo func()) {
	was := b.c.end
	b.c.end = earlier(was, t)
	return func() { b.c.end = was }
}

// Wait returns when there is something to read, or Read has an error to tell: until
// then the caller need not hold memory to read into.
func (b *Body) Wait() {
	if len(b.again) > 0 || b.failed != nil || b.ended || b.closed {
		return
	}
	if _, err := b.c.r.Peek(1); err != nil && err != io.EOF {
		b.failed = b.c.fail(readKind(err, b.c.timeout), err)
	}
}

// Close ends the exchange. The connection is kept if the body was read to its
// end and the head keeps it too, else it is closed.
func (b *Body) Close() error {
	if !b.closed {
		b.closed = true
		b.c.done(b.usable && b.ended && b.failed == nil)
	}
	return nil
}
