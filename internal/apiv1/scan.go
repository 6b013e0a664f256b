package apiv1

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"headway/internal/fleet"
	"headway/internal/openai"
	"headway/internal/prefix"
	"headway/internal/strategy"
	"headway/internal/strict"
)

// work is the memory of one decision request, kept from one to the next.
type work struct {
	req     strategy.Request
	hashes  []uint64 // that were given
	chain   prefix.Chain
	returns float64 // ms until the session's next request
	ids     []string
	again   [3]string // names of the request before, which are often those of this one
}

func (d *work) reset() {
	clear(d.ids)
	d.req = strategy.Request{InputTokens: fleet.Unknown}
	d.hashes, d.ids, d.returns = d.hashes[:0], d.ids[:0], float64(fleet.Unknown)
	d.chain.Reset(d.chain.Hashes[:0])
}

// complete fills the request from what was read beside it. Of the prompt it keeps hashes
// alone.
func (d *work) complete() {
	req, bytes := &d.req, d.chain.Bytes()
	if req.InputTokens == fleet.Unknown {
		req.InputTokens = (bytes + bytesPerToken - 1) / bytesPerToken
	}
	req.PrefixHashes, req.Exclude = d.hashes, d.ids
	if len(d.hashes) == 0 {
		req.PrefixHashes, req.PromptBytes = d.chain.Hashes, bytes
	}
	d.chain.Reset(d.chain.Hashes)
	if d.returns >= 0 {
		req.Returns = max(time.Duration(d.returns*float64(time.Millisecond)), 1)
	}
}

// scan reads the usual request in one pass: an object of known fields, each at
// most once, with strings without escapes (the prompt aside, which is
// hashed), whole numbers without sign, and booleans. It returns false
// for everything else, right or wrong, which decode then reads; what it
// accepts means the same there.
//
// It takes 0.4 µs and one allocation where decode takes 1.8 µs and six. Over HTTP
// on one processor, clients included, that is 0.78 of a bare handler instead of
// 0.70 (medians of four runs in turn).
func (d *work) scan(body []byte) bool {
	d.reset()
	c := scanner{b: body}
	if !c.take('{') {
		return false
	}
	seen := 0 // one bit for each field
	for first := true; !c.take('}'); first = false {
		if !first && !c.take(',') {
			return false
		}
		name, ok := c.plain()
		if !ok || !c.take(':') {
			return false
		}
		field := d.value(&c, name)
		if field == 0 || seen&field != 0 {
			return false
		}
		seen |= field
	}
	d.complete()
	c.space()
	return c.at == len(c.b)
}

// value reads the value of a field and returns the bit of the field, 0 for what
// scan leaves to decode.
func (d *work) value(c *scanner, name []byte) (field int) {
	req, ok := &d.req, false
	switch string(name) {
	case "model_type":
		field = 1 << 0
		req.ModelType, ok = c.again(&d.again[0])
	case "region":
		field = 1 << 1
		req.Region, ok = c.again(&d.again[1])
	case "strategy":
		field = 1 << 2
		req.Strategy, ok = c.again(&d.again[2])
	case "session_key":
		field = 1 << 3
		req.SessionKey, ok = c.string()
	case "region_mode":
		field = 1 << 4
		var mode []byte
		if mode, ok = c.plain(); ok {
			req.RegionMode, ok = strategy.ParseRegionMode(string(mode))
		}
	case "prompt":
		field = 1 << 5
		var raw []byte
		if raw, _, ok = c.quoted(); ok {
			openai.WritePlain(raw, &d.chain)
		}
	case "input_tokens":
		field = 1 << 6
		var n uint64
		n, ok = c.number()
		req.InputTokens, ok = int64(n), ok && n <= maxInputTokens
	case "explain":
		field = 1 << 7
		req.Explain, ok = c.boolean()
	case "prefix_hashes":
		field = 1 << 8
		ok = c.list(maxPrefixHashes, func() bool {
			hash, ok := c.hash()
			d.hashes = append(d.hashes, hash)
			return ok
		})
	case "exclude":
		field = 1 << 9
		ok = c.list(maxExclude, func() bool {
			id, ok := c.string()
			d.ids = append(d.ids, id)
			return ok
		})
	case "session_id":
		field = 1 << 10
		req.SessionID, ok = c.string()
	case "turn":
		field = 1 << 11
		var n uint64
		n, ok = c.number()
		req.Turn, ok = int64(n), ok && n <= maxTurn
	case "expected_return_ms":
		field = 1 << 12
		var n uint64
		n, ok = c.number()
		d.returns, ok = float64(n), ok && n <= maxDurationMs
	}
	if !ok {
		return 0
	}
	return field
}

// scanner reads JSON from b.
type scanner struct {
	b  []byte
	at int
}

func (c *scanner) space() {
	for c.at < len(c.b) && (c.b[c.at] == ' ' || c.b[c.at] == '\n' || c.b[c.at] == '\t' || c.b[c.at] == '\r') {
		c.at++
	}
}

// next is the next character that is no white space, 0 at the end.
func (c *scanner) next() byte {
	c.space()
	if c.at < len(c.b) {
		return c.b[c.at]
	}
	return 0
}

// take reads a character, white space before it aside.
func (c *scanner) take(want byte) bool {
	if c.next() != want {
		return false
	}
	c.at++
	return true
}

// plain reads a string without escapes.
func (c *scanner) plain() ([]byte, bool) {
	raw, size, ok := c.quoted()
	return raw, ok && len(raw) == size // each escape is longer than what it stands for
}

func (c *scanner) string() (string, bool) {
	raw, ok := c.plain()
	return string(raw), ok
}

// again is string for names that recur: it gives last back if the name is the
// same, which takes no memory.
func (c *scanner) again(last *string) (string, bool) {
	raw, ok := c.plain()
	if string(raw) != *last {
		*last = string(raw)
	}
	return *last, ok
}

// quoted reads a string and returns the text between its quotes as it stands,
// and the bytes of UTF-8 that it means.
func (c *scanner) quoted() (raw []byte, size int, ok bool) {
	if !c.take('"') {
		return nil, 0, false
	}
	b, i, from := c.b, c.at, c.at
	saved := 0 // bytes that escapes take beyond what they mean
	for {
		i += harmless(b[i:])
		if i >= len(b) {
			return nil, 0, false
		}
		switch ch := b[i]; {
		case ch == '"':
			c.at = i + 1
			return b[from:i], i - from - saved, true
		case ch == '\\':
			n, means := escape(b[i:])
			if n == 0 {
				return nil, 0, false
			}
			i, saved = i+n, saved+n-means
		case ch < ' ':
			return nil, 0, false
		case ch < utf8.RuneSelf:
			i++
		default:
			r, n := utf8.DecodeRune(b[i:])
			if r == utf8.RuneError && n == 1 {
				return nil, 0, false
			}
			i += n
		}
	}
}

// harmless is how many bytes, in eights, b begins with that are ASCII and
// neither a quote, a backslash nor a control character. It looks at eight at
// once: a byte's high bit in the sum of tests is set if one of them holds (or,
// for the bytes above one that it holds for, may be set).
func harmless(b []byte) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	n := 0
	for ; n+8 <= len(b); n += 8 {
		x := binary.LittleEndian.Uint64(b[n:])
		quote, slash := x^ones*'"', x^ones*'\\'
		if (x|(x-ones*' ')&^x|(quote-ones)&^quote|(slash-ones)&^slash)&highs != 0 {
			break
		}
	}
	return n
}

// escape measures the escape that b begins with and the UTF-8 that it means; n
// is 0 when it is none.
func escape(b []byte) (n, means int) {
	if len(b) < 2 {
		return 0, 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2, 1
	}
	r := codeUnit(b)
	switch {
	case r < 0:
		return 0, 0
	case utf16.IsSurrogate(r):
		if utf16.DecodeRune(r, codeUnit(b[6:])) == utf8.RuneError {
			return 0, 0
		}
		return 12, 4
	}
	return 6, utf8.RuneLen(r)
}

// codeUnit reads \uXXXX, or returns -1.
func codeUnit(b []byte) rune {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	v, ok := hex(b[2:6])
	if !ok {
		return -1
	}
	return rune(v)
}

// hex reads 1 to 16 hexadecimal digits.
func hex(digits []byte) (uint64, bool) {
	if len(digits) > 16 {
		return 0, false
	}
	v, err := strconv.ParseUint(string(digits), 16, 64)
	return v, err == nil
}

// number reads a whole number of at most 16 digits. What follows them is for
// the caller to check, who wants a comma or the end of the object.
func (c *scanner) number() (n uint64, ok bool) {
	c.space()
	from := c.at
	for c.at < len(c.b) && c.b[c.at] >= '0' && c.b[c.at] <= '9' {
		c.at++
	}
	digits := c.b[from:c.at]
	if len(digits) < 1 || len(digits) > 16 || digits[0] == '0' && len(digits) > 1 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(digits), 10, 64)
	return n, err == nil
}

// hash reads a prefix hash: a whole number up to 2^53, or a string of 1 to 16
// hexadecimal digits.
func (c *scanner) hash() (uint64, bool) {
	if c.next() == '"' {
		raw, ok := c.plain()
		if !ok {
			return 0, false
		}
		return hex(raw)
	}
	n, ok := c.number()
	return n, ok && n <= strict.MaxExact
}

func (c *scanner) boolean() (value, ok bool) {
	c.space()
	rest, value := bytes.CutPrefix(c.b[c.at:], []byte("true"))
	if !value {
		rest, ok = bytes.CutPrefix(rest, []byte("false"))
	}
	c.at = len(c.b) - len(rest)
	return value, value || ok
}

// list reads an array of at most longest elements.
func (c *scanner) list(longest int, element func() bool) bool {
	if !c.take('[') {
		return false
	}
	for n := 0; !c.take(']'); n++ {
		if n >= longest || n > 0 && !c.take(',') || !element() {
			return false
		}
	}
	return true
}
