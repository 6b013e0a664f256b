package openai

import "bytes"

// Class is what an event means to a router.
type Class uint8

const (
	// StartUp comes before the first content, and says nothing that would be
	// missed if another head began again: comments, pings, a delta that has a
	// role only, response.created, message_start.
	StartUp Class = iota
	// Content is what a user sees, and all that is not known.
	Content
	// UsageOnly has usage and no choice: the chunk that include_usage adds.
	UsageOnly
	// Failed has an error.
	Failed
	// Done ends a stream as it should.
	Done
)

// typed classes events by their type (responses, messages, audio, images). One
// that is not listed is content.
var typed = map[string]Class{
	"ping":                        StartUp,
	"message_start":               StartUp,
	"content_block_start":         StartUp,
	"response.created":            StartUp,
	"response.queued":             StartUp,
	"response.in_progress":        StartUp,
	"response.output_item.added":  StartUp,
	"response.content_part.added": StartUp,
	"error":                       Failed,
	"response.failed":             Failed,
	"message_stop":                Done,
	"response.completed":          Done,
	"response.incomplete":         Done,
	"response.cancelled":          Done,
	"transcript.text.done":        Done,
	"speech.audio.done":           Done,
	"image_generation.completed":  Done,
	"image_edit.completed":        Done,
}

// seen is what one event was read to have.
type seen struct {
	kind     []byte // its type
	models   [3]Span
	count    int // of models
	failed   bool
	usage    bool
	choices  int // Unknown without the member
	content  bool
	finished bool // a choice was
	text     int  // bytes of text
	at       Span // of the text, if it is one string
	pieces   int  // of text and other content
}

// event reads the data of one event.
func (u *usage) event(data []byte, d Dialect) (seen, bool) {
	s := seen{choices: Unknown}
	c := cursor{b: data}
	if c.peek() != '{' {
		return s, false
	}
	u.object(&c, &s, d, true)
	return s, c.end()
}

// object reads the event, and the response or message that it may have inside.
func (u *usage) object(c *cursor, s *seen, d Dialect, outer bool) {
	c.members(func(name []byte) {
		next := c.peek()
		switch string(name) {
		case "model":
			if at := c.skip(); next == '"' && s.count < len(s.models) {
				s.models[s.count] = at
				s.count++
			}
		case "usage":
			s.usage = s.usage || next == '{'
			u.merge(c, d)
		case "error":
			s.failed = !c.none() || s.failed
		case "type":
			if next != '"' {
				c.skip()
			} else if raw, _ := c.str(); outer {
				s.kind = raw
			}
		case "choices":
			if outer && (next == '[' || next == 'n') { // null, as servers in Go write an empty list
				s.choices = 0
			}
			if next != '[' || !outer {
				c.skip()
				return
			}
			c.elements(func() {
				s.choices++
				c.choice(s)
			})
		case "response", "message":
			if next != '{' || !outer {
				c.skip()
				return
			}
			u.object(c, s, d, false)
		case "delta": // of an event with a type
			if next != '{' {
				s.text += c.length()
				return
			}
			c.texts(&s.text)
		default:
			c.skip()
		}
	})
}

// choice reads one choice of a chunk.
func (c *cursor) choice(s *seen) {
	if c.peek() != '{' {
		c.skip()
		return
	}
	c.members(func(name []byte) {
		switch string(name) {
		case "delta", "message":
			if c.peek() != '{' {
				c.skip()
				return
			}
			c.members(func(name []byte) {
				if string(name) == "role" {
					c.skip()
					return
				}
				c.piece(s)
			})
		case "text":
			c.piece(s)
		case "finish_reason":
			if !c.empty() {
				s.content, s.finished = true, true
			}
		default:
			c.skip()
		}
	})
}

// piece reads a value that is content unless it is empty.
func (c *cursor) piece(s *seen) {
	quoted := c.peek() == '"'
	from := c.i
	n := c.length()
	if n == 0 {
		return
	}
	s.content = true
	s.text += n
	if s.pieces++; quoted {
		s.at = Span{from + 1, from + 1 + n}
	}
}

// empty passes over a value and says whether it has nothing in it.
func (c *cursor) empty() bool {
	c.peek()
	switch v := c.skip().Of(c.b); string(v) {
	case "null", `""`, "[]", "{}":
		return true
	}
	return false
}

// none passes over the value of an "error" and says whether it is none.
func (c *cursor) none() bool {
	c.peek()
	switch v := c.skip().Of(c.b); string(v) {
	case "null", "false", "0", `""`, "[]", "{}":
		return true
	}
	return false
}

// length passes over a value and returns how many bytes it has, without quotes;
// 0 where nothing is in it.
func (c *cursor) length() int {
	text := c.peek() == '"'
	at := c.skip()
	switch n := at.End - at.Start; {
	case c.bad != "":
		return 0
	case text:
		return n - 2
	case n <= len("null"):
		if v := string(at.Of(c.b)); v == "null" || v == "[]" || v == "{}" {
			return 0
		}
		fallthrough
	default:
		return n
	}
}

// TextLength is how many bytes of text the model wrote in a whole answer.
func TextLength(answer []byte) (n int) {
	c := cursor{b: answer}
	if c.texts(&n); !c.end() {
		return 0
	}
	return n
}

// texts adds the length of each text in the value that is next, by the names that
// texts have in answers.
func (c *cursor) texts(n *int) {
	inside := func() {
		if next := c.peek(); c.depth < maxDepth && (next == '{' || next == '[') {
			c.texts(n)
			return
		}
		c.skip()
	}
	switch c.peek() {
	case '{':
		c.members(func(name []byte) {
			switch string(name) {
			case "content", "text", "reasoning", "reasoning_content", "thinking", "arguments", "partial_json", "refusal":
				if c.peek() == '"' {
					*n += c.length()
					return
				}
			}
			inside()
		})
	case '[':
		c.elements(inside)
	default:
		c.skip()
	}
}

// plain reports whether the event has one text and nothing else that counts.
func (s *seen) plain() bool {
	return s.choices == 1 && s.pieces == 1 && s.at.End > 0 && !s.failed && !s.usage && !s.finished
}

// class is the meaning of an event by what it has and by its name.
func (s *seen) class(name []byte) Class {
	kind := s.kind
	if len(kind) == 0 {
		kind = name
	}
	switch class, known := typed[string(kind)]; {
	case s.failed:
		return Failed
	case s.choices > 0 && s.content:
		return Content
	case s.choices > 0:
		return StartUp
	case s.choices == 0 && s.usage:
		return UsageOnly
	case s.choices == 0:
		return StartUp
	case known:
		return class
	}
	return Content
}

// fields are what the lines of an event have.
type fields struct {
	name []byte // of its last event: line
	data []byte // as long as the event where it has several lines of data
	at   int    // where data begins in the event
	any  bool   // whether it has data at all
}

// split takes an event apart. Of several lines of data, a copy of the event is
// made in scratch in which all else is white space, so that places in it are
// places in the event.
func split(event, scratch []byte) (f fields, used []byte) {
	lines := 0
	i := 0
	if bytes.HasPrefix(event, []byte("\ufeff")) {
		i = 3
	}
	for i < len(event) {
		end := len(event)
		if j := lineEnd(event[i:]); j >= 0 {
			end = i + j
		}
		line := event[i:end]
		key, _, _ := bytes.Cut(line, []byte{':'})
		from := min(i+len(key)+1, end)
		if from < end && event[from] == ' ' {
			from++
		}
		switch string(key) {
		case "event":
			f.name = event[from:end]
		case "data":
			switch lines++; lines {
			case 1:
				f.data, f.at, f.any = event[from:end], from, true
			case 2:
				scratch = append(scratch[:0], event...)
				for k := range scratch {
					if k < f.at || k >= f.at+len(f.data) {
						scratch[k] = ' '
					}
				}
				f.data, f.at = scratch, 0
				fallthrough
			default:
				copy(scratch[from:end], event[from:end])
				scratch[from-1] = '\n' // of the lines' own; outside of strings only
			}
		}
		i = end + 1
	}
	return f, scratch
}

// lineEnd is the place of the next CR or LF, or -1.
func lineEnd(p []byte) int {
	n := bytes.IndexByte(p, '\n')
	if n >= 0 {
		p = p[:n]
	}
	if r := bytes.IndexByte(p, '\r'); r >= 0 {
		return r
	}
	return n
}
