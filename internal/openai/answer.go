package openai

import (
	"bytes"
	"slices"
)

// maxCaptured is the longest value of usage, error or model that is read in an
// answer, in bytes.
const maxCaptured = 8 << 10

// maxMember is the longest form of one of their names: each letter escaped.
const maxMember = len("model") * len(`\u0000`)

// Answer passes on a whole answer in JSON, of any size, in pieces with borders
// anywhere. It reads the top level of an object only: usage, model and error. Other JSON
// passes unchanged. The zero Answer with its options set is ready; it is
// for one goroutine, and keeps at most one of these values, up to 8 KiB.
type Answer struct {
	Endpoint *Endpoint
	// Model is put in place of the answer's model; empty for none.
	Model string

	within bool // the members of a response or message within are read as its own

	total  usage
	any    bool // total is set
	failed bool
	longer int

	depth    int
	off      bool // the object or list has ended, or there was none
	inner    bool // in the response or message within
	list     bool // it is a list, whose depth begins with 2: nothing in it is on the top level
	inString bool
	escaped  bool   // the last byte was a backslash that escapes
	naming   bool   // a name is next, or read, on the top level
	name     []byte // of the member, without its quotes
	captures bool   // the value is kept
	holds    bool   // the value is kept back: it is the model's
	value    []byte
}

// Reset makes the Answer ready for another one, with the memory that it has.
func (a *Answer) Reset(e *Endpoint, model string) {
	*a = Answer{Endpoint: e, Model: model, name: a.name[:0], value: a.value[:0]}
}

// Read reads an answer that is there as a whole and is to be passed on as it is. It
// is faster than Push, and does nothing where p is not one object of valid JSON.
func (a *Answer) Read(p []byte) bool {
	c := cursor{b: p}
	if c.peek() != '{' {
		return false
	}
	total, failed := newUsage(), false
	found := false
	c.members(func(name []byte) {
		switch string(name) {
		case "usage":
			found = true
			total.merge(&c, a.Endpoint.Dialect)
		case "error":
			failed = !c.none() || failed
		default:
			c.skip()
		}
	})
	if !c.end() {
		return false
	}
	a.total, a.any, a.failed, a.off = total, found, failed, true
	return true
}

// Push takes the next piece and appends to dst what is to be passed on, in
// order: parts of p, and the name of the model. They are valid until the next
// call.
func (a *Answer) Push(dst [][]byte, p []byte) [][]byte {
	from := 0 // what stands before it in p is in dst or held
	for i := 0; i < len(p) && !a.off; {
		start := i
		ended := false // a value on the top level
		switch ch := p[i]; {
		case a.inString:
			i += a.string(p[i:])
			if a.naming {
				a.named(p[start:i])
				start = i
			} else {
				ended = !a.inString && a.depth == 1
			}
		case a.depth > 1 && !a.captures && !structural[ch]:
			i += plainRun(p[i:])
		default:
			i++
			if ch == '"' && a.depth == 1 && a.captures && a.Model != "" && string(a.name) == "model" {
				dst = add(dst, p[from:start])
				from, a.holds, a.value = start, true, a.value[:0]
			}
			ended = a.structure(ch)
			if a.depth == 1 && (ch == ',' || ch == ':') || a.off {
				start = i // no part of a value
			}
		}
		a.keep(p[start:i])
		switch {
		case a.holds && (ended || len(a.value) > maxCaptured):
			dst = a.release(dst, len(a.value) <= maxCaptured)
			from = i
		case len(a.value) > maxCaptured:
			a.captures = false
			a.failed = a.failed || string(a.name) == "error" && len(bytes.TrimLeft(a.value, " \t\r\n")) > 0
		}
		if ended {
			a.read()
		}
	}
	if !a.holds {
		dst = add(dst, p[from:])
	}
	return dst
}

// add appends a piece that is not empty.
func add(dst [][]byte, piece []byte) [][]byte {
	if len(piece) == 0 {
		return dst
	}
	return append(dst, piece)
}

// Flush appends what is still held at the end of an answer that was cut off.
func (a *Answer) Flush(dst [][]byte) [][]byte {
	if a.holds {
		return a.release(dst, false)
	}
	return dst
}

// Usage is what was reported so far.
func (a *Answer) Usage() Usage {
	if !a.any {
		return Usage{Unknown, Unknown, Unknown}
	}
	return a.total.report()
}

// Failed says that the answer has an error.
func (a *Answer) Failed() bool { return a.failed }

// Whole says that the object has ended.
func (a *Answer) Whole() bool { return a.off && a.depth == 0 }

// Broken says that the answer has begun and not ended.
func (a *Answer) Broken() bool { return a.depth > 0 || a.inString }

// Longer is how many bytes more were passed on than were pushed; below 0 for
// fewer.
func (a *Answer) Longer() int { return a.longer }

// structural are the bytes that matter outside of strings below the top level.
var structural = [256]bool{'"': true, '{': true, '}': true, '[': true, ']': true}

// plainRun is how many bytes stand before the next that is structural.
func plainRun(p []byte) int {
	for i, ch := range p {
		if structural[ch] {
			return i
		}
	}
	return len(p)
}

// string passes over the rest of a string, and returns how many bytes.
func (a *Answer) string(p []byte) int {
	i := 0
	if a.escaped {
		a.escaped = false
		i = 1
	}
	for {
		end := bytes.IndexByte(p[i:], '"')
		part := p[i:]
		if end >= 0 {
			part = p[i : i+end]
		}
		slashes := 0
		for slashes < len(part) && part[len(part)-1-slashes] == '\\' {
			slashes++
		}
		switch {
		case end < 0:
			a.escaped = slashes%2 == 1
			return len(p)
		case slashes%2 == 0:
			a.inString = false
			return i + end + 1
		}
		i += end + 1
	}
}

// structure takes one byte outside of strings, and says whether a value on the
// top level ends with it or has ended before it.
func (a *Answer) structure(ch byte) (ended bool) {
	switch ch {
	case '"':
		a.inString = true
		if a.naming {
			a.name = a.name[:0]
		}
	case '{', '[':
		if a.depth == 0 && ch == '[' {
			a.list, a.depth = true, 2
			return false
		}
		if ch == '{' && a.enters() {
			a.inner, a.naming = true, true
			return false
		}
		a.naming = a.depth == 0
		a.depth++
	case '}', ']':
		if a.depth == 1 && a.inner {
			a.inner, a.naming = false, false
			return true
		}
		if a.depth--; a.list && a.depth == 1 {
			a.depth = 0
		}
		a.off = a.depth <= 0
		return a.depth <= 1
	case ',':
		if a.depth == 1 {
			a.naming = true
			return true
		}
	case ':':
		if a.depth == 1 {
			a.naming = false
			a.decode()
			name := string(a.name)
			a.captures = name == "model" || name == "usage" || name == "error"
			a.value = a.value[:0]
			return false
		}
	case ' ', '\t', '\r', '\n':
	default:
		if a.depth == 0 {
			a.off, a.depth = true, -1 // no object
		}
	}
	return false
}

// enters reports whether the object that begins is a response or message within.
func (a *Answer) enters() bool {
	name := string(a.name)
	return a.within && a.depth == 1 && !a.inner && !a.naming && (name == "response" || name == "message")
}

// named adds to a name; a longer one than all that are read is cut.
func (a *Answer) named(part []byte) {
	a.name = append(a.name, part[:min(len(part), maxMember+1-len(a.name))]...)
	if !a.inString {
		a.name = bytes.TrimSuffix(a.name, []byte{'"'})
	}
}

// decode decodes a name that is escaped.
func (a *Answer) decode() {
	if bytes.IndexByte(a.name, '\\') < 0 {
		return
	}
	c := cursor{b: slices.Concat([]byte{'"'}, a.name, []byte{'"'})}
	if raw, _ := c.str(); c.end() {
		a.name = append(a.name[:0], unquote(raw)...)
	}
}

// keep adds to a value that is captured. What is held is passed on later, and
// kept whole.
func (a *Answer) keep(part []byte) {
	switch {
	case !a.captures:
	case a.holds:
		a.value = append(a.value, part...)
	default:
		a.value = append(a.value, part[:min(len(part), maxCaptured+1)]...)
	}
}

// release appends the value that was held, or what stands in its place.
func (a *Answer) release(dst [][]byte, whole bool) [][]byte {
	held := a.value
	a.holds, a.captures, a.value = false, false, nil
	if !whole {
		return append(dst, held)
	}
	name := appendString(nil, a.Model)
	a.longer += len(name) - len(held)
	return append(dst, name)
}

// read takes what was captured of a value that has ended.
func (a *Answer) read() {
	if !a.captures {
		return
	}
	a.captures = false
	c := cursor{b: a.value}
	switch string(a.name) {
	case "usage":
		if !a.any {
			a.total, a.any = newUsage(), true
		}
		was := a.total
		if a.total.merge(&c, a.Endpoint.Dialect); !c.end() {
			a.total = was
		}
	case "error":
		a.failed = !c.none() || a.failed
	}
}
