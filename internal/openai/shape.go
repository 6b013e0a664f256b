package openai

import "bytes"

// maxShape bounds what is kept of an event's shape, in bytes.
const maxShape = 2 << 10

// shape is an event around its one text. Most events of a stream differ from one
// another in nothing else: they are recognised by their bytes, at a tenth of the cost of
// reading them. The text has no escape and no quote, so that an event of the shape
// reads as the one that it was learned from.
type shape struct{ before, after []byte }

func (s *shape) learn(event []byte, text Span) {
	if len(event) <= maxShape {
		s.before = append(s.before[:0], event[:text.Start]...)
		s.after = append(s.after[:0], event[text.End:]...)
	}
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
