package strict

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// Bounds of every input; its size is for the caller to bound.
const (
	maxDepth     = 32  // of values in one another
	maxFieldName = 256 // bytes of the name of a member
)

// Options say how an input is read.
type Options struct {
	// Most is the most faults that are listed; one more says how many there are
	// besides.
	Most int
	// Document is for what people write: null is not the same as leaving out, and
	// each name that is given twice is noted. Otherwise null leaves a field
	// out, and JSON with a name twice is broken.
	Document bool
	// Loose is for files of YAML that a library read before: aliases and merge
	// keys are written out, tags are ignored, and a number, a boolean or a date is
	// a string as well.
	Loose bool
}

// Kind is what a value is.
type Kind byte

// The kinds. Nothing is a value that was refused, or text that is broken.
const (
	Nothing Kind = 0
	Null    Kind = 'n'
	Bool    Kind = 't'
	Number  Kind = '0'
	String  Kind = '"'
	Date    Kind = 'd' // text that YAML takes for one
	Array   Kind = '['
	Object  Kind = '{'
)

func (k Kind) String() string {
	return map[Kind]string{
		Nothing: "nothing", Null: "null", Bool: "a boolean", Number: "a number", String: "a string",
		Date: "a date", Array: "an array", Object: "an object",
	}[k]
}

// Reader reads one value of JSON or YAML, from the outside in: each method
// reads the next value, and notes a fault if that is of another kind. Text that
// is not JSON or YAML ends the reading; everything else that is wrong is noted,
// so that a caller learns all of it at once. It is for one goroutine.
type Reader struct {
	o      Options
	data   []byte
	json   *decoder // nil for YAML
	yaml   cursor
	faults List
	broken *SyntaxError
}

// SyntaxError is the error for text that is not JSON or not YAML.
type SyntaxError struct {
	Pointer      string // to the place, as far as it is known
	Reason       string // what the text does or has
	line, column int    // of JSON
}

func (e *SyntaxError) Error() string {
	if e.line == 0 {
		return "not YAML: " + e.Reason
	}
	return fmt.Sprintf("not JSON: line %d, column %d: it %s", e.line, e.column, e.Reason)
}

// decoder is one that is kept from one input to the next, with names that it
// has seen, which are often those of the next.
type decoder struct {
	*jsontext.Decoder
	text  bytes.Buffer
	names map[string]string
}

// Bounds of the names that a decoder keeps.
const (
	maxNames    = 64
	maxKeptName = 32 // bytes
)

var decoders = sync.Pool{New: func() any { return &decoder{Decoder: new(jsontext.Decoder), names: map[string]string{}} }}

// NewJSON makes a reader of JSON. The data must stay as it is until Done.
func NewJSON(data []byte, o Options) *Reader {
	d, _ := decoders.Get().(*decoder)
	d.text = *bytes.NewBuffer(data) // is decoded where it stands
	d.Reset(&d.text, jsontext.AllowDuplicateNames(o.Document))
	return &Reader{o: o, data: data, json: d, faults: List{Most: o.Most}}
}

// ReadObject reads a message: one JSON object and nothing after it. field reads
// the value of a field; it returns false, having read nothing, for a name that
// it does not know.
func ReadObject(data []byte, most int, field func(r *Reader, name string) bool) ([]Fault, error) {
	r := NewJSON(data, Options{Most: most})
	if r.Kind() == Object {
		r.Object(func(name string) bool { return field(r, name) })
	} else if r.Skip() {
		r.broken = &SyntaxError{Reason: "is not a JSON object", line: 1, column: 1}
	}
	return r.Done()
}

// Done ends the reading. The faults are in the order of the lines, where there
// are some; the error is a *SyntaxError.
func (r *Reader) Done() ([]Fault, error) {
	if r.json != nil {
		if r.broken == nil {
			if _, err := r.json.ReadToken(); !errors.Is(err, io.EOF) {
				r.fail(&jsontext.SyntacticError{ByteOffset: r.json.InputOffset(), Err: errMore})
			}
		}
		r.json.text = bytes.Buffer{}
		r.json.Reset(&r.json.text) // forgets the data
		decoders.Put(r.json)
		r.json = nil
	}
	if r.broken != nil {
		return nil, r.broken
	}
	return r.faults.All(), nil
}

var (
	errMore = errors.New("more")
	errDeep = errors.New("nested too deeply")
)

// Fault notes what is wrong with the value that was read last.
func (r *Reader) Fault(format string, args ...any) { r.FaultIn("", format, args...) }

// FaultIn notes what is wrong with a member of the value that was read last,
// which has none of the name.
func (r *Reader) FaultIn(member, format string, args ...any) {
	if r.faults.Full() {
		return
	}
	f := Fault{Reason: fmt.Sprintf(format, args...)}
	if r.json != nil {
		f.Pointer = string(r.json.StackPointer())
	} else {
		f.Pointer, f.Line = r.yaml.pointer(), r.yaml.line()
	}
	if member != "" {
		f.Pointer += "/" + Escape(member)
	}
	f.Pointer = Clip(f.Pointer)
	r.faults.list = append(r.faults.list, f)
}

// Merge adds faults that were found in what was read; see the function. Those
// of YAML get the lines of their places.
func (r *Reader) Merge(later *List) {
	r.locate(later.list)
	if len(r.faults.list) == 0 { // with some, it is not known how many of them are others
		r.faults.more = later.more
	}
	r.faults.list = Merge(r.faults.list, later.list)
}

// fail ends the reading with what the decoder says.
func (r *Reader) fail(err error) bool {
	if r.broken != nil {
		return false
	}
	e, offset := &SyntaxError{}, r.json.InputOffset()
	syntax, ok := errors.AsType[*jsontext.SyntacticError](err)
	if ok {
		e.Pointer, offset = string(syntax.JSONPointer), syntax.ByteOffset
	}
	switch {
	case errors.Is(err, errMore):
		e.Reason = "has more after the end of its JSON"
	case errors.Is(err, errDeep):
		e.Pointer, e.Reason = string(r.json.StackPointer()), fmt.Sprintf("nests more than %d levels deep", maxDepth)
	case len(bytes.TrimSpace(r.data)) == 0:
		e.Reason = "is empty; want a JSON object"
	case !ok || errors.Is(err, io.ErrUnexpectedEOF):
		e.Reason = "ends in the middle of its JSON"
	case errors.Is(err, jsontext.ErrDuplicateName):
		e.Reason = "has a field twice: " + Clip(e.Pointer)
	default:
		e.Reason = fmt.Sprintf("is not valid JSON in UTF-8 at byte %d", offset)
	}
	before := r.data[:min(max(offset, 0), int64(len(r.data)))]
	e.line, e.column = 1+bytes.Count(before, []byte("\n")), len(before)-bytes.LastIndexByte(before, '\n')
	r.broken = e
	return false
}

// Kind is the kind of the next value.
func (r *Reader) Kind() Kind {
	switch {
	case r.broken != nil:
		return Nothing
	case r.json == nil:
		return r.yamlKind()
	}
	k := r.json.PeekKind()
	if k == 'f' {
		k = 't'
	}
	return Kind(k)
}

// Skip reads past the next value and reports whether there was one to read.
func (r *Reader) Skip() bool {
	if r.broken != nil {
		return false
	}
	if r.json == nil {
		r.yaml.next = nil
		return true
	}
	outside := r.json.StackDepth()
	for {
		if _, err := r.json.ReadToken(); err != nil {
			return r.fail(err)
		}
		switch depth := r.json.StackDepth(); {
		case depth == outside:
			return true
		case depth > maxDepth && !r.o.Document:
			return r.fail(errDeep)
		}
	}
}

// want reads past a value of the wrong kind and notes what it should have been.
func (r *Reader) want(what string) {
	k := r.Kind()
	if !r.Skip() || k == Nothing || k == Null && !r.o.Document {
		return
	}
	advice := ""
	if strings.HasPrefix(what, "a string") && (k == Number || k == Bool || k == Date) {
		advice = "; put it in quotes"
	}
	r.Fault("want %s, not %s%s", what, k, advice)
}

// Object reads an object; see ReadObject for field.
func (r *Reader) Object(field func(name string) bool) {
	if r.Kind() != Object {
		r.want("an object")
		return
	}
	if !r.open() {
		return
	}
	var seen map[string]bool
	if r.o.Document || r.json == nil {
		seen = map[string]bool{}
	}
	for r.another() {
		name, ok := r.name()
		if !ok || seen != nil && !r.first(seen, name) {
			continue
		}
		if !field(name) && r.Skip() {
			if name != strings.ToLower(name) {
				r.Fault("is not a known field; names are in lower case")
			} else {
				r.Fault("is not a known field")
			}
		}
	}
	r.close()
}

// first refuses a name that is too long or was there before.
func (r *Reader) first(seen map[string]bool, name string) bool {
	reason := ""
	switch {
	case len(name) > maxFieldName:
		reason = fmt.Sprintf("the name is longer than %d bytes", maxFieldName)
	case seen[name]:
		reason = "is given twice"
	}
	seen[name] = true
	if reason != "" && r.Skip() {
		r.Fault("%s", reason)
	}
	return reason == ""
}

// Fields reads an object with the functions under the names of its fields.
func (r *Reader) Fields(read map[string]func()) {
	r.Object(func(name string) bool {
		f := read[name]
		switch {
		case f != nil:
			f()
		case !r.Skip():
		case !r.faults.Full():
			r.Fault("%s", Unknown("field", name, slices.Sorted(maps.Keys(read))))
		}
		return true
	})
}

// Array reads an array of at most longest elements, 0: of any number; element
// reads one.
func (r *Reader) Array(longest int, element func(i int)) {
	if r.Kind() != Array {
		r.want("an array")
		return
	}
	if !r.open() {
		return
	}
	n := 0
	for ; r.another(); n++ {
		if n < longest || longest == 0 {
			element(n)
		} else {
			r.Skip()
		}
	}
	if r.close(); r.broken == nil && n > longest && longest > 0 {
		r.Fault("has %d elements; at most %d are allowed", n, longest)
	}
}

// open goes into the next value, an array or object, unless that stands in too
// many others.
func (r *Reader) open() bool {
	depth := len(r.yaml.in)
	if r.json != nil {
		depth = r.json.StackDepth()
	}
	if depth >= maxDepth {
		if r.Skip() {
			r.Fault("nested deeper than %d levels", maxDepth)
		}
		return false
	}
	if r.json == nil {
		r.yaml.open()
	} else if _, err := r.json.ReadToken(); err != nil {
		return r.fail(err)
	}
	return true
}

// another reports whether the array or object goes on.
func (r *Reader) another() bool {
	if r.broken != nil {
		return false
	}
	if r.json == nil {
		return r.yaml.another()
	}
	k := r.json.PeekKind()
	return k != ']' && k != '}'
}

// close leaves an array or object.
func (r *Reader) close() {
	switch {
	case r.broken != nil:
	case r.json == nil:
		r.yaml.close()
	default:
		if _, err := r.json.ReadToken(); err != nil {
			r.fail(err)
		}
	}
}

// name reads the name of a member.
func (r *Reader) name() (string, bool) {
	if r.json == nil {
		return r.yamlName()
	}
	raw, err := r.json.ReadValue()
	if err != nil {
		return "", r.fail(err)
	}
	if name, seen := r.json.names[string(raw)]; seen {
		return name, true
	}
	unquoted, _ := jsontext.AppendUnquote(nil, raw)
	name := string(unquoted)
	if len(raw) <= maxKeptName && len(r.json.names) < maxNames {
		r.json.names[string(raw)] = name
	}
	return name, true
}
