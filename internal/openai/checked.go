package openai

import "bytes"

// checked walks over JSON that was read before and found valid: it looks for the ends
// of values alone, several times faster than cursor. In other text it finds something,
// and comes to the end.
type checked struct {
	b    []byte
	i    int
	name []byte // of the last member, as it stands there
}

// peek returns the next byte that is no white space, or 0 at the end.
func (c *checked) peek() byte {
	for ; c.i < len(c.b); c.i++ {
		if ch := c.b[c.i]; ch > ' ' {
			return ch
		}
	}
	return 0
}

// value passes over the value that is next, and returns it.
func (c *checked) value() []byte {
	ch, start := c.peek(), c.i
	switch {
	case ch == '"':
		c.quoted()
	case ch == '{' || ch == '[':
		c.nested()
	case start < len(c.b): // a number or a literal
		for c.i++; c.i < len(c.b) && !ends[c.b[c.i]]; c.i++ {
		}
	}
	return c.b[start:c.i]
}

// nested passes over the object or array that is next.
func (c *checked) nested() {
	for depth := 0; c.i < len(c.b); {
		switch c.b[c.i] {
		case '"':
			c.quoted()
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		default:
			c.i += plainRun(c.b[c.i:])
			continue
		}
		if c.i++; depth == 0 {
			return
		}
	}
}

// ends are the bytes that end a number or a literal.
var ends = [256]bool{',': true, ':': true, ']': true, '}': true, '"': true, ' ': true, '\t': true, '\r': true, '\n': true}

// quoted passes over the string that is next.
func (c *checked) quoted() {
	start := c.i + 1
	for i := start; ; {
		end := bytes.IndexByte(c.b[i:], '"')
		if end < 0 {
			c.i = len(c.b)
			return
		}
		i += end + 1
		slash := i - 2
		for slash >= start && c.b[slash] == '\\' {
			slash--
		}
		if (i-2-slash)%2 == 0 {
			c.i = i
			return
		}
	}
}

// element goes to the next element of the array that it stands in or before, and reports
// whether there is one. The caller passes over it.
func (c *checked) element() bool {
	if ch := c.peek(); ch == '[' || ch == ',' {
		c.i++
	}
	if ch := c.peek(); ch != ']' {
		return c.i < len(c.b)
	}
	c.i++
	return false
}

// member goes to the value of the next member of the object that it stands in or before,
// and returns the name, decoded. The caller passes over the value.
func (c *checked) member() (name []byte, ok bool) {
	if ch := c.peek(); ch == '{' || ch == ',' {
		c.i++
	}
	if ch := c.peek(); ch != '"' {
		c.i = min(c.i+1, len(c.b))
		return nil, false
	}
	c.name = c.value()
	if c.peek() == ':' {
		c.i++
	}
	return word(c.name), true
}

// inside is what stands between the quotes of a string.
func inside(value []byte) []byte {
	if len(value) < 2 {
		return nil
	}
	return value[1 : len(value)-1]
}

// word is what a string means, nil of another value.
func word(value []byte) []byte {
	if !isString(value) {
		return nil
	}
	if value = inside(value); bytes.IndexByte(value, '\\') >= 0 {
		return []byte(unquote(value))
	}
	return value
}

func isString(value []byte) bool { return len(value) > 1 && value[0] == '"' }

func begins(value []byte, ch byte) bool { return len(value) > 0 && value[0] == ch }

// given reports whether there is a value, other than null.
func given(value []byte) bool { return len(value) > 0 && value[0] != 'n' }
