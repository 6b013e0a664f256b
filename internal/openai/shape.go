package openai

import "bytes"

// maxShape bounds what is kept of an event's shape, in bytes.
const maxShape = 2 << 10

// shape is an event around its one text. Most events of a stream differ from one
// another in nothing else: they are recognised by their bytes, at a tenth of the cost of
// reading them. The text has no escape and no quote, so that an event of the shape
// reads as the one that it was learned from.
type shape struct {
	before, after []byte
	plain         bool // its lines end in LF
}

func (s *shape) learn(event []byte, text Span) {
	if len(event) <= maxShape {
		s.before = append(s.before[:0], event[:text.Start]...)
		s.after = append(s.after[:0], event[text.End:]...)
		s.plain = bytes.HasSuffix(s.after, []byte("\n\n")) && bytes.IndexByte(event, '\r') < 0
	}
}

// begins returns how long the event at the beginning of p is, and its text, if it
// has the shape. Its end need not be looked for then.
func (s *shape) begins(p []byte) (event, text int) {
	if !s.plain || !bytes.HasPrefix(p, s.before) {
		return 0, 0
	}
	for i := len(s.before); i < len(p); i++ {
		switch ch := p[i]; {
		case ch == '"':
			if text = i - len(s.before); text > 0 && bytes.HasPrefix(p[i:], s.after) {
				return i + len(s.after), text
			}
			return 0, 0
		case ch < ' ' || ch == '\\':
			return 0, 0
		}
	}
	return 0, 0
}

// text is how many bytes the text of an event has, 0 if the event is of another
// shape.
func (s *shape) text(event []byte) int {
	n := len(event) - len(s.before) - len(s.after)
	if n <= 0 || len(s.after) == 0 || !bytes.HasPrefix(event, s.before) || !bytes.HasSuffix(event, s.after) {
		return 0
	}
	for _, ch := range event[len(s.before) : len(s.before)+n] {
		if ch < ' ' || ch == '"' || ch == '\\' {
			return 0
		}
	}
	return n
}
