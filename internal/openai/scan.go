package openai

import (
	"bytes"
	"math"
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
	maxName = len("max_completion_tokens") // the longest name that is read
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
	PartSystem       = iota // system
	PartInstructions        // instructions
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
	// MaxTokens is the limit of the answer, N how many answers are asked for;
	// Unknown where not given.
	MaxTokens, N int64
	// User names the end user. SessionKey is the first of prompt_cache_key,
	// session_id and metadata.session_id that is not blank, or empty.
	User, SessionKey string
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
	fMaxTokens
	fMaxCompletion
	fMaxOutput
	fN
	fUser
	fSafety
	fCacheKey
	fSession
	fMetadata
	fPrompt // the first part; the others follow in their order
)

var (
	topNames = []string{
		"model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "max_output_tokens",
		"n", "user", "safety_identifier", "prompt_cache_key", "session_id", "metadata",
		"system", "instructions", "messages", "prompt", "input", "query",
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
	r     *Request
	err   *Error
	blank [3]string // session keys by rank
	users [3]string
}

// Scan reads a body in JSON, which must stand in memory as one. It sets all of
// r, which may be used again. The whole body is checked: one object, valid
// UTF-8, nesting up to 256, nothing behind it. In objects that are read, no name
// that is read may stand twice or in another case; elsewhere nothing is read,
// and duplicates are the head's business. The error is 400 and names the field
// in Param. Nothing is decoded but the model, the user and the session key.
func Scan(body []byte, r *Request) *Error {
	*r = Request{MaxTokens: Unknown, N: Unknown}
	s := scan{cursor: cursor{b: body}, r: r}
	if s.peek() != '{' {
		s.fail("want an object")
	}
	s.top()
	s.end()
	switch {
	case s.err != nil:
		return s.err
	case s.bad != "":
		return &Error{Status: http.StatusBadRequest, Message: "The body is not valid JSON: " + s.bad + " at byte " + strconv.Itoa(s.i)}
	case r.model == Span{}:
		return noModel()
	}
	for i := range s.blank {
		if strings.TrimSpace(s.blank[i]) != "" && r.SessionKey == "" {
			r.SessionKey = s.blank[i]
		}
		if r.User == "" {
			r.User = s.users[i]
		}
	}
	return nil
}

func noModel() *Error {
	return &Error{Status: http.StatusBadRequest, Param: "model", Code: "missing_required_parameter", Message: "you must provide a model parameter"}
}

// refuse notes the first fault of a field and ends the reading.
func (s *scan) refuse(param, why string) {
	if s.bad == "" {
		s.err = &Error{Status: http.StatusBadRequest, Param: param, Message: "'" + param + "' " + why}
		s.fail(why)
	}
}

func (s *scan) top() {
	n := names{list: topNames}
	s.r.top = s.i + 1
	s.members(func(name []byte) {
		at, fault := n.which(name)
		if fault != "" {
			s.refuse(topNames[at], fault)
			return
		}
		if at < 0 {
			s.skip()
			return
		}
		s.field(field(at), topNames[at])
	})
}

func (s *scan) field(f field, name string) {
	r := s.r
	switch f {
	case fModel:
		r.Model, r.model = s.text(name, MaxModel)
		if s.bad == "" && r.Model == "" {
			s.refuse(name, "must be a string that is not empty")
		}
	case fStream:
		v, _ := s.boolean(name)
		r.Stream = v == True
	case fOptions:
		if r.options = s.object(name, optionNames, func(int) { r.IncludeUsage, r.include = s.boolean("stream_options.include_usage") }); s.bad != "" {
			return
		}
	case fMaxTokens, fMaxCompletion, fMaxOutput:
		if v := s.integer(name); v >= 0 && (r.MaxTokens == Unknown || v < r.MaxTokens) {
			r.MaxTokens = v
		}
	case fN:
		r.N = s.integer(name)
	case fUser:
		s.users[0], _ = s.text(name, MaxKey)
	case fSafety:
		s.users[1], _ = s.text(name, MaxKey)
	case fCacheKey:
		s.blank[0], _ = s.text(name, MaxKey)
	case fSession:
		s.blank[1], _ = s.text(name, MaxKey)
	case fMetadata:
		s.object(name, metadataNames, func(at int) {
			v, _ := s.text("metadata."+metadataNames[at], MaxKey)
			if at == 0 {
				s.blank[2] = v
			} else {
				s.users[2] = v
			}
		})
	default:
		r.Prompt[f-fPrompt] = s.skip()
	}
}

// object reads an object or null.
func (s *scan) object(param string, list []string, f func(at int)) Span {
	ch := s.peek()
	if ch == 'n' {
		return s.skip()
	}
	if ch != '{' {
		s.refuse(param, "must be an object")
		return Span{}
	}
	start := s.i
	n := names{list: list}
	s.members(func(name []byte) {
		at, fault := n.which(name)
		switch {
		case fault != "":
			s.refuse(param+"."+list[at], fault)
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
	switch s.peek() {
	case 'n':
		return "", s.skip()
	case '"':
	default:
		s.refuse(param, "must be a string")
		return "", Span{}
	}
	start := s.i
	raw, escaped := s.str()
	if len(raw) > 6*most {
		s.refuse(param, "is too long")
		return "", Span{}
	}
	v := string(raw)
	if escaped {
		v = unquote(raw)
	}
	if len(v) > most {
		s.refuse(param, "is too long")
	}
	return v, Span{start, s.i}
}

func (s *scan) boolean(param string) (Tri, Span) {
	switch s.peek() {
	case 't':
		return True, s.skip()
	case 'f':
		return False, s.skip()
	case 'n':
		return Absent, s.skip()
	}
	s.refuse(param, "must be true or false")
	return Absent, Span{}
}

// integer reads a whole number, or null. Negative ones stand for no limit with
// some engines, and count as absent; more than 2^53 counts as 2^53.
func (s *scan) integer(param string) int64 {
	ch := s.peek()
	if ch == 'n' {
		s.skip()
		return Unknown
	}
	if ch != '-' && (ch < '0' || ch > '9') {
		s.refuse(param, "must be a whole number")
		return Unknown
	}
	raw := s.skip().Of(s.b)
	if s.bad != "" {
		return Unknown
	}
	v, _ := strconv.ParseFloat(string(raw), 64) // infinite where out of range
	switch {
	case v != math.Trunc(v):
		s.refuse(param, "must be a whole number")
		return Unknown
	case v < 0:
		return Unknown
	}
	return int64(min(v, 1<<53))
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
