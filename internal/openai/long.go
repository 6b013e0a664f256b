package openai

import "bytes"

// beginning is the part of a long event in which its data has to begin.
const beginning = 1 << 10

// long is an event beyond the bound of its stream, as it goes by. Its data is read as a
// whole answer is, in pieces: an image, or a response with all that belongs to it, says
// its usage and its model too. Only data of one line is read.
type long struct {
	name   []byte // of the event
	answer Answer
	off    bool // the line of data has ended, or there was none
}

// tooLong begins with an event beyond the bound, of which s.held and piece are there.
func (s *Stream) tooLong(piece []byte, whole bool) Event {
	if len(s.held) > 0 {
		s.held = append(s.held, piece...)
		s.given, s.held = s.held, nil
		piece = s.given
	}
	f, _ := split(piece[:min(len(piece), beginning)], nil)
	s.long = &long{name: bytes.Clone(f.name), off: !f.any || f.at == 0}
	s.long.answer = Answer{Endpoint: s.Endpoint, Model: s.Model, within: true, total: s.total, any: s.any}
	return s.passLong(piece, f.at, whole)
}

// passLong passes on the next piece of a long event, of which the data begins at a place
// in it.
func (s *Stream) passLong(piece []byte, at int, whole bool) Event {
	l := s.long
	e := Event{Bytes: s.readLong(piece, at), Class: Content}
	if whole {
		s.long = nil
		s.total, s.any = l.answer.total, l.answer.any
		what := seen{choices: Unknown, failed: l.answer.Failed()}
		e.Class = what.class(l.name)
	}
	return e
}

// readLong returns what is passed on of a piece.
func (s *Stream) readLong(piece []byte, at int) []byte {
	l := s.long
	if l.off {
		return piece
	}
	end := len(piece)
	if i := lineEnd(piece[at:]); i >= 0 {
		end, l.off = at+i, true
	}
	var memory [8][]byte
	pieces := l.answer.Push(append(memory[:0], piece[:at]), piece[at:end])
	if l.off {
		pieces = l.answer.Flush(pieces)
	}
	if s.Model == "" {
		return piece // nothing was changed
	}
	s.out = s.out[:0]
	for _, p := range append(pieces, piece[end:]) {
		s.out = append(s.out, p...)
	}
	return s.out
}
