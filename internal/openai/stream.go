package openai

import "bytes"

// DefaultEvent is the bound of one event in bytes where none is set.
const DefaultEvent = 1 << 20

// Stream reads Server-Sent Events as they come, in pieces with borders anywhere
// (LF, CRLF and CR; comments; a byte order mark; events of several lines). It
// passes on all bytes in their order, event by event, unchanged but for the name
// of the model. The zero Stream with its options set is ready. It is for one
// goroutine; it keeps at most one event that is not whole yet, up to Limit.
type Stream struct {
	// Endpoint is where the stream comes from.
	Endpoint *Endpoint
	// Model is put in place of the model that events name; empty for none.
	Model string
	// Limit is the bound of one event in bytes; DefaultEvent if 0. A longer
	// event is passed on in pieces, with what long reads of it, and is content,
	// unless its event line says more.
	Limit int

	total    usage
	any      bool // total is set
	finished bool
	shape    shape // of events with content
	held     []byte
	out      []byte // of the last event, if it was changed
	scratch  []byte
	given    []byte // of the last event: held, to be used again
	long     *long  // the event beyond Limit that goes by; nil: none does

	// Of framing.
	inLine  bool // the line has bytes
	inEvent bool // the event has lines, or bytes in its first
	comment bool // the line is a comment and stands before the event's lines
	cr      bool // the last byte was CR: LF would belong to it
	crlf    bool // the line before ended in CRLF
	ended   bool // the event ended in CR; wait for the LF
}

// Event is one event, or a piece of one that is longer than the bound.
type Event struct {
	// Bytes is what to pass on, valid until the next call of the Stream.
	Bytes []byte
	Class Class
	// Usage says that the event reported usage.
	Usage bool
	// Text is how many bytes of text the model wrote in it.
	Text int
}

// Next takes the next event out of p: rest is to be given to the next call.
// Without ok there is no whole event in p, and all of it was kept or returned.
// Bytes of p are not copied where p has the whole event and nothing in it
// changes.
func (s *Stream) Next(p []byte) (e Event, rest []byte, ok bool) {
	s.reuse()
	if s.Between() && !s.inLine && !s.inEvent && !s.cr {
		if n, text := s.shape.begins(p); n > 0 {
			return Event{Bytes: p[:n], Class: Content, Text: text}, p[n:], true
		}
	}
	end := s.end(p)
	limit := s.Limit
	if limit <= 0 {
		limit = DefaultEvent
	}
	piece := p
	if end >= 0 {
		piece = p[:end]
	}
	rest = p[len(piece):]
	switch {
	case s.long != nil:
		return s.passLong(piece, 0, end >= 0), rest, end >= 0 || len(piece) > 0
	case len(s.held)+len(piece) > limit:
		return s.tooLong(piece, end >= 0), rest, true
	case end < 0:
		s.held = append(s.held, piece...)
		return Event{}, nil, false
	case len(s.held) > 0:
		s.held = append(s.held, piece...)
		s.given, s.held = s.held, nil
		piece = s.given
	}
	return s.read(piece), rest, true
}

// Flush returns what is left at the end of a stream, which may lack its blank
// line.
func (s *Stream) Flush() (e Event, ok bool) {
	s.reuse()
	if len(s.held) == 0 {
		return Event{}, false
	}
	s.given, s.held = s.held, nil
	return s.read(s.given), true
}

// Between says that the stream stands between events, so that an event or a
// comment of one's own may be put in.
func (s *Stream) Between() bool { return len(s.held) == 0 && s.long == nil }

// Usage is what was reported so far.
func (s *Stream) Usage() Usage {
	if !s.any {
		return Usage{Unknown, Unknown, Unknown}
	}
	return s.total.report()
}

// Finished says that a choice came to its end, with or without the event that ends
// a stream.
func (s *Stream) Finished() bool { return s.finished }

// reuse takes back the memory of the last event, unless it was an uncommonly
// long one.
func (s *Stream) reuse() {
	const most = 16 << 10
	if s.given != nil && s.held == nil && cap(s.given) <= most {
		s.held = s.given[:0]
	}
	s.given = nil
	if cap(s.out) > most {
		s.out = nil
	}
	if cap(s.scratch) > most {
		s.scratch = nil
	}
}

// read classes a whole event.
func (s *Stream) read(event []byte) Event {
	if n := s.shape.text(event); n > 0 {
		return Event{Bytes: event, Class: Content, Text: n}
	}
	var f fields
	f, s.scratch = split(event, s.scratch)
	data := bytes.TrimRight(f.data, " ")
	switch {
	case !f.any:
		return Event{Bytes: event}
	case string(data) == "[DONE]":
		return Event{Bytes: event, Class: Done}
	}
	if !s.any {
		s.total, s.any = newUsage(), true
	}
	was := s.total
	what, valid := s.total.event(f.data, s.Endpoint.Dialect)
	if !valid {
		s.total = was
		what = seen{choices: Unknown}
	}
	s.finished = s.finished || what.finished
	e := Event{Bytes: event, Class: what.class(f.name), Usage: what.usage, Text: what.text}
	if renamed := s.Model != "" && what.count > 0; !renamed && f.at > 0 && what.plain() {
		s.shape.learn(event, Span{f.at + what.at.Start, f.at + what.at.End})
	} else if renamed {
		s.out = s.out[:0]
		from := 0
		for _, m := range what.models[:what.count] {
			s.out = append(s.out, event[from:f.at+m.Start]...)
			s.out = appendString(s.out, s.Model)
			from = f.at + m.End
		}
		s.out = append(s.out, event[from:]...)
		e.Bytes = s.out
	}
	return e
}

// end returns the place in p behind the end of the event, or -1. An event ends
// with a blank line; comments before the first line of an event are passed on
// each for itself. Where lines end in CRLF, the LF of the blank line is waited
// for; a CR that stands by itself ends the event at once.
func (s *Stream) end(p []byte) int {
	for i := 0; i < len(p); {
		if s.cr {
			n, over := s.afterCR(p[i])
			if i += n; over {
				return i
			}
			if n > 0 {
				continue
			}
		}
		if !s.inLine && !s.inEvent && p[i] != '\n' && p[i] != '\r' {
			s.comment = p[i] == ':'
		}
		j := lineEnd(p[i:])
		if j < 0 {
			s.inLine = true
			return -1
		}
		blank := j == 0 && !s.inLine
		s.inLine = false
		i += j + 1
		over := blank || s.comment
		s.comment = false
		s.inEvent = !over
		switch {
		case p[i-1] == '\n' || i < len(p) && p[i] != '\n':
			s.crlf = false
		case i < len(p):
			s.crlf = true
			i++
		default:
			s.cr, s.ended = true, over && s.crlf
		}
		if over && !s.ended {
			return i
		}
	}
	return -1
}

// afterCR looks at the byte behind a CR: whether it belongs to it, and whether
// what is passed on ends before or with it.
func (s *Stream) afterCR(ch byte) (n int, over bool) {
	s.cr, s.crlf = false, ch == '\n'
	if s.crlf {
		n = 1
	}
	// Or it is the LF of a blank line that was passed on without it.
	over = s.ended || s.crlf && !s.inEvent && !s.inLine
	s.ended = false
	return n, over
}
