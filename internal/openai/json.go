package openai

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxDepth is how deep arrays and objects may nest.
const maxDepth = 256

// Span is a part of a body: [Start, End). The zero Span is none.
type Span struct{ Start, End int }

// Of returns the part, without a copy.
func (s Span) Of(body []byte) []byte { return body[s.Start:s.End] }

// cursor walks over one JSON text in memory (RFC 8259, UTF-8). It decodes
// nothing that it passes over. After a fault, bad says what was wrong at i, and
// all methods do nothing.
type cursor struct {
	b     []byte
	i     int
	depth int // of what members and elements walk over
	bad   string
}

func (c *cursor) fail(why string) {
	if c.i >= len(c.b) {
		why = "the text ends too early"
	}
	if c.bad == "" {
		c.bad = why
	}
}

// peek returns the next byte that is no white space, or 0 at the end.
func (c *cursor) peek() byte {
	for c.i < len(c.b) {
		switch ch := c.b[c.i]; ch {
		case ' ', '\n', '\t', '\r':
			c.i++
		default:
			return ch
		}
	}
	return 0
}

// take passes over ch if it is next.
func (c *cursor) take(ch byte) bool {
	if c.bad != "" || c.peek() != ch || c.i >= len(c.b) {
		return false
	}
	c.i++
	return true
}

// members calls f for each member of the object that is next, with the name
// decoded when it is short enough to be one that is looked for. f passes over
// the value.
func (c *cursor) members(f func(name []byte)) {
	if !c.take('{') {
		c.fail("want an object")
		return
	}
	if c.take('}') {
		return
	}
	c.depth++
	defer func() { c.depth-- }()
	for c.bad == "" {
		name, escaped := c.str()
		if escaped && len(name) <= 6*maxName {
			name = []byte(unquote(name))
		}
		if !c.take(':') {
			c.fail("want a colon")
			return
		}
		if c.bad == "" {
			f(name)
		}
		if c.take(',') {
			continue
		}
		if !c.take('}') {
			c.fail("want a comma or the end of the object")
		}
		return
	}
}

// elements calls f for each element of the array that is next; f passes over it.
func (c *cursor) elements(f func()) {
	if !c.take('[') {
		c.fail("want an array")
		return
	}
	if c.take(']') {
		return
	}
	c.depth++
	defer func() { c.depth-- }()
	for c.bad == "" {
		f()
		if c.take(',') {
			continue
		}
		if !c.take(']') {
			c.fail("want a comma or the end of the array")
		}
		return
	}
}

// str passes over a string and returns what stands between its quotes.
func (c *cursor) str() (raw []byte, escaped bool) {
	if !c.take('"') {
		c.fail("want a string")
		return nil, false
	}
	start := c.i
	for {
		c.plain()
		if c.i >= len(c.b) {
			c.fail("") // the string has no end
			return nil, false
		}
		switch ch := c.b[c.i]; {
		case ch == '"':
			c.i++
			return c.b[start : c.i-1], escaped
		case ch == '\\':
			escaped = true
			if !c.escape() {
				c.fail("bad escape in a string")
				return nil, false
			}
		case ch >= utf8.RuneSelf:
			end := c.i + 1
			for end < len(c.b) && c.b[end] >= utf8.RuneSelf {
				end++
			}
			if !utf8.Valid(c.b[c.i:end]) {
				if end == len(c.b) && cutShort(c.b[c.i:]) {
					c.i = end
				}
				c.fail("invalid UTF-8")
				return nil, false
			}
			c.i = end
		default:
			c.fail("control character in a string")
			return nil, false
		}
	}
}

// cutShort reports whether a text ends within a character, and is valid up to that.
func cutShort(b []byte) bool {
	for n := 1; n < min(len(b)+1, utf8.UTFMax); n++ {
		if last := b[len(b)-n:]; utf8.RuneStart(last[0]) {
			return !utf8.FullRune(last) && utf8.Valid(b[:len(b)-n])
		}
	}
	return false
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// odd marks in a word the bytes that are no plain ASCII, a quote or a
// backslash. The lowest mark is right; those above it may be false.
func odd(x uint64) uint64 {
	return ((x - ones*0x20) | x | ((x ^ ones*'"') - ones) | ((x ^ ones*'\\') - ones)) & highs
}

// plain passes over plain ASCII, 32 bytes at a time: prompts are long, and this
// is nearly all of the time that reading them takes.
func (c *cursor) plain() {
	b, i := c.b, c.i
	for len(b)-i >= 32 {
		w := b[i : i+32 : i+32]
		x0, x1 := binary.LittleEndian.Uint64(w), binary.LittleEndian.Uint64(w[8:])
		x2, x3 := binary.LittleEndian.Uint64(w[16:]), binary.LittleEndian.Uint64(w[24:])
		if odd(x0)|odd(x1)|odd(x2)|odd(x3) != 0 {
			break
		}
		i += 32
	}
	for len(b)-i >= 8 {
		if m := odd(binary.LittleEndian.Uint64(b[i:])); m != 0 {
			c.i = i + bits.TrailingZeros64(m)/8
			return
		}
		i += 8
	}
	for i < len(b) && b[i] >= 0x20 && b[i] < utf8.RuneSelf && b[i] != '"' && b[i] != '\\' {
		i++
	}
	c.i = i
}

// escape passes over one escape. A half of a surrogate pair by itself is within
// the grammar, and heads read it in their own ways: it is passed on as it is.
func (c *cursor) escape() bool {
	if c.i+1 >= len(c.b) {
		c.i = len(c.b)
		return false
	}
	switch c.b[c.i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		c.i += 2
		return true
	case 'u':
		for n := c.i + 2; n < c.i+6; n++ {
			if n == len(c.b) {
				c.i = n
				return false
			}
			if ch := c.b[n]; (ch < '0' || ch > '9') && (ch|0x20 < 'a' || ch|0x20 > 'f') {
				return false
			}
		}
		c.i += 6
		return true
	}
	return false
}

// skip passes over any one value, strictly.
func (c *cursor) skip() Span {
	c.peek()
	start := c.i
	var inObject [maxDepth / 64]uint64 // one bit for each level
	depth := 0
	for c.bad == "" {
		ch := c.peek()
		opened := ch == '{' || ch == '['
		if !opened {
			c.scalar(ch)
		} else {
			if c.depth+depth == maxDepth {
				c.fail("nested too deep")
				return Span{}
			}
			c.i++
			inObject[depth/64] &^= 1 << (depth % 64)
			if ch == '{' {
				inObject[depth/64] |= 1 << (depth % 64)
			}
			depth++
		}
		// Close what ends here, up to the next value.
		for c.bad == "" {
			if depth == 0 {
				return Span{start, c.i}
			}
			object := inObject[(depth-1)/64]>>((depth-1)%64)&1 == 1
			if !c.closes(object, opened) {
				break
			}
			depth--
			opened = false
		}
	}
	return Span{}
}

// closes passes over the end of what is open, or over all up to its next value.
func (c *cursor) closes(object, first bool) bool {
	if object && c.take('}') || !object && c.take(']') {
		return true
	}
	if !first && !c.take(',') {
		c.fail("want a comma or the end of what is open")
	}
	if object {
		if c.str(); !c.take(':') {
			c.fail("want a colon")
		}
	}
	return false
}

// scalar passes over what begins with ch and is no array or object.
func (c *cursor) scalar(ch byte) {
	switch {
	case ch == '"':
		c.str()
	case ch == '-' || ch >= '0' && ch <= '9':
		c.number()
	default:
		c.literal()
	}
}

func (c *cursor) digits() bool {
	start := c.i
	for c.i < len(c.b) && c.b[c.i] >= '0' && c.b[c.i] <= '9' {
		c.i++
	}
	return c.i > start
}

func (c *cursor) number() {
	if c.b[c.i] == '-' {
		c.i++
	}
	if c.i < len(c.b) && c.b[c.i] == '0' {
		c.i++
	} else if !c.digits() {
		c.fail("bad number")
		return
	}
	if c.i < len(c.b) && c.b[c.i] == '.' {
		if c.i++; !c.digits() {
			c.fail("bad number")
			return
		}
	}
	if c.i < len(c.b) && c.b[c.i]|0x20 == 'e' {
		c.i++
		if c.i < len(c.b) && (c.b[c.i] == '+' || c.b[c.i] == '-') {
			c.i++
		}
		if !c.digits() {
			c.fail("bad number")
		}
	}
}

func (c *cursor) literal() {
	rest := c.b[c.i:]
	for _, word := range [...]string{"true", "false", "null"} {
		switch n := min(len(rest), len(word)); {
		case string(rest[:n]) != word[:n]:
		case n < len(word):
			c.i = len(c.b)
		default:
			c.i += n
			return
		}
	}
	c.fail("want a value")
}

// end reports that nothing but white space is left.
func (c *cursor) end() bool {
	if c.peek(); c.bad == "" && c.i < len(c.b) {
		c.fail("text after the end")
	}
	return c.bad == ""
}

// unquote decodes what stands between the quotes of a string that str took.
// A half of a surrogate pair becomes U+FFFD.
func unquote(raw []byte) string { return string(appendUnquoted(nil, raw)) }

func appendUnquoted(dst, raw []byte) []byte {
	dst = slices.Grow(dst, len(raw))
	for {
		slash := bytes.IndexByte(raw, '\\')
		if slash < 0 {
			return append(dst, raw...)
		}
		dst = append(dst, raw[:slash]...)
		dst, raw = appendEscaped(dst, raw[slash:])
	}
}

// appendEscaped appends what the escape means that raw begins with, and returns
// what follows it.
func appendEscaped(dst, raw []byte) (decoded, rest []byte) {
	if len(raw) < 2 {
		return append(dst, raw...), nil
	}
	switch ch := raw[1]; ch {
	case 'u':
		r, n := hex4(raw)
		if low, m := hex4(raw[n:]); r >= 0xd800 && r < 0xdc00 && low >= 0xdc00 && low < 0xe000 {
			r, n = (r-0xd800)<<10|(low-0xdc00)+0x10000, n+m
		}
		return utf8.AppendRune(dst, r), raw[max(n, 2):] // U+FFFD for half a pair
	case 'b', 'f', 'n', 'r', 't':
		return append(dst, "\b\f\n\r\t"[strings.IndexByte("bfnrt", ch)]), raw[2:]
	default:
		return append(dst, ch), raw[2:]
	}
}

// hex4 reads an escape \uXXXX, if raw begins with one, and how long it is.
func hex4(raw []byte) (r rune, n int) {
	const length = len(`\u0000`)
	if len(raw) < length || raw[0] != '\\' || raw[1] != 'u' {
		return utf8.RuneError, 0
	}
	for _, ch := range raw[2:length] {
		if ch > '9' {
			ch = ch | 0x20 - 'a' + 10
		}
		r = r<<4 | rune(ch&0xf)
	}
	return r, length
}
