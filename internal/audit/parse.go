package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

var errNoRecord = errors.New("this line is no record of an audit trail")

// ParseLine parses one line of a trail without its newline. It accepts only the
// journal's layout, and verifies no hash.
func ParseLine(line []byte) (Record, error) {
	raw, ok := Split(line)
	if !ok || !utf8.Valid(line) { // the journal writes no other
		return Record{}, errNoRecord
	}
	return raw.Record()
}

// Members are the parts of a line, still escaped and without quotes. They are
// valid as long as the line.
type Members struct {
	Seq                              uint64
	Time, ID, Node                   []byte
	Stage, Category, Action, Outcome []byte
	Reason                           []byte
	ActorType, ActorID, ActorVia     []byte
	IP, UserAgent                    []byte
	TargetType, TargetID             []byte
	Region, ModelType                []byte
	RequestID, TraceID               []byte
	Before, After                    []byte
	Prev, Hash                       []byte
}

// Split finds the members of a line.
func Split(line []byte) (m Members, ok bool) {
	s := splitter{rest: line}
	s.literal(lineHead)
	m.Seq = s.number()
	m.Time = s.text(`,"time":`)
	m.ID = s.text(`,"id":`)
	m.Node = s.text(`,"node":`)
	m.Stage = s.text(`,"stage":`)
	m.Category = s.text(`,"category":`)
	m.Action = s.text(`,"action":`)
	m.Outcome = s.optional(`,"outcome":`)
	m.Reason = s.optional(`,"reason":`)
	m.ActorType = s.text(`,"actor":{"type":`)
	m.ActorID = s.optional(`,"id":`)
	m.ActorVia = s.optional(`,"via":`)
	s.literal(`},"src":{`)
	if m.IP = s.optional(`"ip":`); m.IP == nil {
		m.UserAgent = s.optional(`"user_agent":`)
	} else {
		m.UserAgent = s.optional(`,"user_agent":`)
	}
	m.TargetType = s.text(`},"target":{"type":`)
	m.TargetID = s.optional(`,"id":`)
	m.Region = s.optional(`,"region":`)
	m.ModelType = s.optional(`,"model_type":`)
	s.literal(`}`)
	m.RequestID = s.optional(`,"request_id":`)
	m.TraceID = s.optional(`,"trace_id":`)
	m.Before = s.object(`,"before":`)
	m.After = s.object(`,"after":`)
	m.Prev = s.text(prevKey[:len(prevKey)-1])
	m.Hash = s.text(hashKey[:len(hashKey)-1])
	s.literal(`}`)
	return m, !s.failed && len(s.rest) == 0 && len(m.Prev) == HashLen && len(m.Hash) == HashLen
}

// Record unescapes the members.
func (m *Members) Record() (Record, error) {
	at, err := time.Parse(TimeFormat, string(m.Time))
	if err != nil {
		return Record{}, fmt.Errorf("%w: its time: %w", errNoRecord, err)
	}
	var bad error
	text := func(raw []byte) string {
		s, err := Unescape(raw)
		bad = errors.Join(bad, err)
		return s
	}
	r := Record{
		V: 1, Seq: m.Seq, Time: at, ID: text(m.ID), Node: text(m.Node),
		Stage: Stage(text(m.Stage)), Category: Category(text(m.Category)), Action: text(m.Action),
		Outcome: Outcome(text(m.Outcome)), Reason: text(m.Reason),
		Actor:     Actor{Type: text(m.ActorType), ID: text(m.ActorID), Via: text(m.ActorVia)},
		Src:       Source{IP: text(m.IP), UserAgent: text(m.UserAgent)},
		Target:    Target{Type: text(m.TargetType), ID: text(m.TargetID), Region: text(m.Region), ModelType: text(m.ModelType)},
		RequestID: text(m.RequestID), TraceID: text(m.TraceID),
		Before: bytes.Clone(m.Before), After: bytes.Clone(m.After),
		Prev: text(m.Prev), Hash: text(m.Hash),
	}
	return r, bad
}

// splitter parses a line from its beginning. After a mismatch failed stays set
// and nothing is returned.
type splitter struct {
	rest   []byte
	failed bool
}

func (s *splitter) literal(want string) {
	if s.failed = s.failed || !s.next(want); !s.failed {
		s.rest = s.rest[len(want):]
	}
}

func (s *splitter) next(want string) bool {
	return len(s.rest) >= len(want) && string(s.rest[:len(want)]) == want
}

func (s *splitter) number() uint64 {
	n := 0
	for n < len(s.rest) && s.rest[n] >= '0' && s.rest[n] <= '9' {
		n++
	}
	v, err := strconv.ParseUint(string(s.rest[:n]), 10, 64)
	s.failed = s.failed || err != nil
	s.rest = s.rest[n:]
	return v
}

// text returns the member with this key, which includes the colon.
func (s *splitter) text(key string) []byte {
	s.literal(key)
	s.literal(`"`)
	if s.failed {
		return nil
	}
	n := textLen(s.rest)
	if n < 0 {
		s.failed = true
		return nil
	}
	value := s.rest[:n:n]
	s.rest = s.rest[n+1:]
	return value
}

func (s *splitter) optional(key string) []byte {
	if s.failed || !s.next(key) {
		return nil
	}
	return s.text(key)
}

// object returns an optional JSON object, without parsing its content.
func (s *splitter) object(key string) []byte {
	if s.failed || !s.next(key+"{") {
		return nil
	}
	s.rest = s.rest[len(key):]
	depth := 0
	for i := 0; i < len(s.rest); i++ {
		switch s.rest[i] {
		case '"':
			n := textLen(s.rest[i+1:])
			if n < 0 {
				s.failed = true
				return nil
			}
			i += n + 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				value := s.rest[: i+1 : i+1]
				s.rest = s.rest[i+1:]
				return value
			}
		}
	}
	s.failed = true
	return nil
}

// textLen is the offset of the closing quote, -1 without one.
func textLen(b []byte) int {
	for i := 0; i < len(b); i++ {
		switch {
		case b[i] == '"':
			return i
		case b[i] == '\\':
			i++
		case b[i] < 0x20:
			return -1
		}
	}
	return -1
}

// Unescape decodes a JSON string, with U+FFFD for invalid UTF-8.
func Unescape(raw []byte) (s string, err error) {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw), nil
	}
	if err := json.Unmarshal(slices.Concat([]byte{'"'}, raw, []byte{'"'}), &s); err != nil { //nolint:forbidigo // one text, of our own
		return "", fmt.Errorf("%w: %w", errNoRecord, err)
	}
	return s, nil
}
