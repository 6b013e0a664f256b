package proxy

import (
	"bytes"
	"strings"
)

// leastMasked is the length of the shortest key that is looked for in answers. Shorter
// ones are words like none, which an answer may well have.
const leastMasked = 12

// mask has a head's key stand as stars in its answer, one for each byte, as that goes
// by. The zero value changes nothing.
type mask struct {
	key  string
	tail []byte // the end of what was given, while it may be the key's begin
}

func (m *mask) of(key string) {
	if len(key) >= leastMasked {
		m.key = key
	}
}

// apply returns what to pass on of the next bytes of an answer. It changes none of
// them, and holds back only an end that the key begins with.
func (m *mask) apply(b []byte) []byte {
	if m.key == "" || len(b) == 0 {
		return b
	}
	if len(m.tail) > 0 {
		b = append(m.tail, b...)
		m.tail = nil
	}
	if bytes.Contains(b, []byte(m.key)) {
		b = bytes.ReplaceAll(b, []byte(m.key), bytes.Repeat([]byte("*"), len(m.key)))
	}
	for n := min(len(m.key)-1, len(b)); n > 0; n-- {
		if strings.HasPrefix(m.key, string(b[len(b)-n:])) {
			m.tail = bytes.Clone(b[len(b)-n:])
			return b[:len(b)-n]
		}
	}
	return b
}

// rest is what is held back, at the end of an answer.
func (m *mask) rest() []byte {
	tail := m.tail
	m.tail = nil
	return tail
}
