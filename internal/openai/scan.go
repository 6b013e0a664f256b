package openai

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// MaxModel is the length of the longest name of a model, in bytes.
	MaxModel = 256
	// MaxKey is the length of the longest session key and user, in bytes.
	MaxKey  = 1024
	maxName = len("previous_response_id") // the longest name that is read
)

// Tri is a value that may be absent.
type Tri int8

// The values of a Tri.
const (
	Absent Tri = iota
	False
	True
)

// The parts of a prompt, in the order in which engines put them together.
const (
	PartTools        = iota // tools
	PartBefore              // previous_response_id
	PartConversation        // conversation
	PartSystem              // system
	PartInstructions        // instructions
	PartDocuments           // documents
	PartMessages            // messages
	PartPrompt              // prompt
	PartInput               // input
	PartQuery               // query, of rerank
	parts
)

// Request is what was read from a body. It keeps no reference to the body;
// spans and Rewrite need the same bytes again.
type Request struct {
	Model  string
	Stream bool
	// IncludeUsage is what stream_options says.
	IncludeUsage Tri
	// SessionKey is the first of prompt_cache_key, session_id and metadata.session_id
	// that is not blank, User of user, safety_identifier and metadata.user_id, or empty.
	SessionKey, User string
	// Adapter is the first of lora_path and adapter_id, CacheSalt is cache_salt: requests
	// that differ in one of them share nothing in a head's cache.
	Adapter, CacheSalt string
	// Prompt has the raw text of each part of the prompt.
	Prompt [parts]Span

	form    Form
	model   Span // the value with its quotes; in multipart the part's content
	options Span // the value of stream_options, or zero
	include Span // the value of include_usage, or zero
	top     int  // behind the first brace
}

// field is a name that is read at the top level.
type field uint8

const (
	fModel field = iota
	fStream
	fOptions
	fUser
	fSafety
	fCacheKey
	fSession
	fMetadata
	fLora
	fAdapter
	fSalt
	fPrompt // the first part; the others follow in their order
)

var (
	topNames = []string{
		"model", "stream", "stream_options", "user", "safety_identifier", "prompt_cache_key", "session_id", "metadata",
		"lora_path", "adapter_id", "cache_salt",
		"tools", "previous_response_id", "conversation", "system", "instructions", "documents", "messages", "prompt", "input", "query",
	}
	optionNames   = []string{"include_usage"}
	metadataNames = []string{"session_id", "user_id"}
)

// names notes which names of one object were seen.
type names struct {
	list []string
	seen uint32
}

// which returns the place of name in the list, or -1. A name that was seen, and
// one that differs from a name of the list in case alone, are faults: readers
// differ in which of them they take.
func (n *names) which(name []byte) (at int, fault string) {
	for i, known := range n.list {
		if string(name) == known {
			if n.seen&(1<<i) != 0 {
				return i, "is given twice"
			}
			n.seen |= 1 << i
			return i, ""
		}
	}
	if len(name) > 3*maxName { // a letter's other forms have at most 3 bytes
		return -1, ""
	}
	for i, known := range n.list {
		if len(name) >= len(known) && strings.EqualFold(string(name), known) {
			return i, "must be written in lower case"
		}
	}
	return -1, ""
}

// scan is one reading of a body.
type scan struct {
	cursor
	r        *Request
	err      *Error    // the first fault of a field, in what may be JSON otherwise
	sessions [3]string // by rank
	users    [3]string
	adapters [3]string
}

// Scan reads a body in JSON, which must stand in memory as one. It sets all of
// r, which may be used again. The whole body is checked: one object, valid
// UTF-8, nesting up to 256, nothing behind it. In objects that are read, no name
// that is read may stand twice or in another case; elsewhere nothing is read,
// and duplicates are the head's business. The error is 400 and names the field
// in Param; of a body that is no JSON it says that and no more. Nothing is decoded
// but the model, the user and the session key.
func Scan(body []byte, r *Request) *Error {
	*r = Request{}
	s := scan{cursor: cursor{b: body}, r: r}
	switch s.peek() {
	case '{':
		s.top()
	case 0:
		if s.i == len(body) {
			return emptyBody()
		}
		fallthrough
	default:
		s.skip()
		s.err = &Error{Status: http.StatusBadRequest, Message: "The body must be a JSON object"}
	}
	s.end()
	switch {
	case s.bad != "":
		return &Error{Status: http.StatusBadRequest, Message: "The body is not valid JSON: " + s.bad + " at byte " + strconv.Itoa(s.i)}
	case s.err != nil:
		return s.err
	case r.model == Span{}:
		return noModel()
	}
	r.SessionKey, r.User, r.Adapter = firstOf(&s.sessions), firstOf(&s.users), firstOf(&s.adapters)
	return nil
}

// firstOf is the first text that is not blank, or "".
func firstOf(list *[3]string) string {
	for _, text := range list {
		if strings.TrimSpace(text) != "" {
			return text
		}
	}
	return ""
}

func emptyBody() *Error {
	return &Error{Status: http.StatusBadRequest, Message: "The body is empty"}
}

func noModel() *Error {
	return &Error{Status: http.StatusBadRequest, Param: "model", Code: "missing_required_parameter", Message: "you must provide a model parameter"}
}

// refuse notes the first fault of a field. The reading goes on: a body that is no
// JSON is refused as that.
func (s *scan) refuse(param, why string) {
	if s.err == nil {
		s.err = &Error{Status: http.StatusBadRequest, Param: param, Message: "'" + param + "' " + why}
	}
}

func (s *scan) top() {
	n := names{list: topNames}
	s.r.top = s.i + 1
	s.members(func(name []byte) {
		switch at, fault := n.which(name); {
		case fault != "":
			s.refuse(topNames[at], fault)
			s.skip()
		case at < 0:
			s.skip()
		default:
			s.field(field(at), topNames[at])
		}
	})
}

func (s *scan) field(f field, name string) {
	r := s.r
	switch f {
	case fModel:
		if r.Model, r.model = s.text(name, MaxModel); r.Model == "" {
			s.refuse(name, "must be a string that is not empty")
		}
	case fStream:
		v, _ := s.boolean(name)
		r.Stream = v == True
	case fOptions:
		if s.is(name, '{', "must be an object") {
			r.options = s.object(name, optionNames, func(int) { r.IncludeUsage, r.include = s.boolean("stream_options.include_usage") })
		} else {
			r.options = s.skip()
		}
	case fUser:
		s.users[0] = s.name()
	case fSafety:
		s.users[1] = s.name()
	case fCacheKey:
		s.sessions[0], _ = s.text(name, MaxKey)
	case fSession:
		s.sessions[1], _ = s.text(name, MaxKey)
	case fMetadata:
		if s.peek() != '{' { // the head may say what it thinks of that
			s.skip()
			return
		}
		s.object(name, metadataNames, func(at int) {
			if at == 0 {
				s.sessions[2], _ = s.text("metadata.session_id", MaxKey)
			} else {
				s.users[2] = s.name()
			}
		})
	case fLora:
		s.adapters[0] = s.any()
	case fAdapter:
		s.adapters[1] = s.any()
	case fSalt:
		r.CacheSalt = s.any()
	default:
		r.Prompt[f-fPrompt] = s.skip()
	}
}

// is reports whether a value that begins with first is next; one that is neither
// that nor null is refused.
func (s *scan) is(param string, first byte, why string) bool {
	switch s.peek() {
	case first:
		return true
	case 'n':
	default:
		s.refuse(param, why)
	}
	return false
}

// object reads the object that is next.
func (s *scan) object(param string, list []string, f func(at int)) Span {
	start := s.i
	n := names{list: list}
	s.members(func(name []byte) {
		at, fault := n.which(name)
		switch {
		case fault != "":
			s.refuse(param+"."+list[at], fault)
			s.skip()
		case at < 0:
			s.skip()
		default:
			f(at)
		}
	})
	return Span{start, s.i}
}

// text reads a string of up to most bytes, or null, which counts as absent.
func (s *scan) text(param string, most int) (string, Span) {
	if !s.is(param, '"', "must be a string") {
		return "", s.skip()
	}
	v, at, whole := s.decoded(most)
	if !whole {
		s.refuse(param, "must have at most "+strconv.Itoa(most)+" bytes")
	}
	return v, at
}

// name reads the name of a user. One that is no string, or too long, is none: what
// else it is is the head's business.
func (s *scan) name() string {
	if s.peek() != '"' {
		s.skip()
		return ""
	}
	v, _, whole := s.decoded(MaxKey)
	if !whole {
		return ""
	}
	return v
}

// any reads a value of which only matters that it is the same: of null nothing.
func (s *scan) any() string {
	switch s.peek() {
	case '"':
		raw, _ := s.str()
		return unquote(raw)
	case 'n':
		s.skip()
		return ""
	}
	return string(s.skip().Of(s.b))
}

// decoded reads the string that is next, unless it is longer than most bytes.
func (s *scan) decoded(most int) (v string, at Span, whole bool) {
	start := s.i
	raw, escaped := s.str()
	at = Span{start, s.i}
	switch {
	case len(raw) > 6*most: // an escape has at most 6 bytes
		return "", at, false
	case escaped:
		v = unquote(raw)
	default:
		v = string(raw)
	}
	return v, at, len(v) <= most
}

func (s *scan) boolean(param string) (Tri, Span) {
	switch s.peek() {
	case 't':
		return True, s.skip()
	case 'f':
		return False, s.skip()
	case 'n':
	default:
		s.refuse(param, "must be true or false")
	}
	return Absent, s.skip()
}

// edit replaces a part of a body.
type edit struct {
	at   Span
	with string
}

// Rewrite appends to dst the pieces of the body with another name of the model
// (unless it is empty), and with stream_options.include_usage set to true where
// askUsage says so and the body does not say true or false. The body must be
// the one that was scanned; its bytes are not copied and not changed. It
// returns the pieces and their length in sum.
func (r *Request) Rewrite(dst [][]byte, body []byte, model string, askUsage bool) (pieces [][]byte, length int) {
	var edits [2]edit
	n := 0
	change := func(start, end int, with string) {
		edits[n] = edit{Span{start, end}, with}
		n++
	}
	if model != "" && model != r.Model {
		with := model
		if r.form == JSON {
			with = string(appendString(nil, model))
		}
		change(r.model.Start, r.model.End, with)
	}
	if askUsage && r.form == JSON && r.IncludeUsage == Absent {
		options := r.options.Of(body)
		switch {
		case r.include != Span{}: // null
			change(r.include.Start, r.include.End, "true")
		case r.options == Span{}:
			change(r.top, r.top, `"stream_options":{"include_usage":true},`)
		case options[0] == 'n':
			change(r.options.Start, r.options.End, `{"include_usage":true}`)
		case len(bytes.TrimSpace(options[1:len(options)-1])) == 0:
			change(r.options.Start+1, r.options.Start+1, `"include_usage":true`)
		default:
			change(r.options.Start+1, r.options.Start+1, `"include_usage":true,`)
		}
	}
	if n == 2 && edits[1].at.Start < edits[0].at.Start {
		edits[0], edits[1] = edits[1], edits[0]
	}
	from := 0
	length = len(body)
	for _, e := range edits[:n] {
		dst = add(dst, body[from:e.at.Start])
		dst = add(dst, []byte(e.with))
		from = e.at.End
		length += len(e.with) - (e.at.End - e.at.Start)
	}
	return add(dst, body[from:]), length
}

// printable says that a name in a multipart form has no control character and
// is valid UTF-8.
func printable(b []byte) bool {
	return utf8.Valid(b) && bytes.IndexFunc(b, func(r rune) bool { return r < 0x20 || r == 0x7f }) < 0
}
