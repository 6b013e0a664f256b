package trail

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"headway/internal/audit"
)

// tail reads the lines of a file that may still grow.
type tail struct {
	in     io.Reader
	closed bool // a file that does not grow: what of it cannot be read is for Verify to tell
	buf    []byte
	at     int  // of the next line in buf
	prev   int  // of the line that was returned last
	held   bool // there is a line that was returned and taken back
	skip   bool // the rest of a line that is too long
}

// next returns a whole line without its newline, valid until the next call, or
// nil if there is none yet. Lines that are too long for a record are skipped.
func (t *tail) next() ([]byte, error) {
	for {
		if n := bytes.IndexByte(t.buf[t.at:], '\n'); n >= 0 {
			t.prev = t.at
			t.at += n + 1
			if t.skip {
				t.skip = false
				continue
			}
			return t.buf[t.prev : t.prev+n], nil
		}
		if len(t.buf)-t.at > maxTail {
			t.at, t.skip = len(t.buf), true
		}
		t.buf = append(t.buf[:0], t.buf[t.at:]...)
		t.at = 0
		at := len(t.buf)
		t.buf = slices.Grow(t.buf, 64<<10)[:at+64<<10]
		n, err := t.in.Read(t.buf[at:])
		t.buf = t.buf[:at+n]
		if n == 0 {
			if err == nil || errors.Is(err, io.EOF) || t.closed {
				return nil, nil
			}
			return nil, fmt.Errorf("read the audit trail: %w", err)
		}
	}
}

// back has the line that was returned last returned again.
func (t *tail) back() { t.at, t.held = t.prev, true }

// maxTail is longer than any record.
const maxTail = 4 * audit.MaxLine
