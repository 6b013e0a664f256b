package calls

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"headway/api"
	"headway/internal/fleet"
	"headway/internal/strict"
)

// maxDepth is how deeply a body may nest.
const maxDepth = 32

// MaxFaults is the most faults that one answer lists.
const MaxFaults = 50

// maxExact is the largest whole number up to which every JSON reader agrees on
// all of them (RFC 8259, section 6).
const maxExact = 1 << 53

// form reads the JSON object of a body field by field. Text that is no valid
// JSON ends the reading; whatever else is wrong is noted, and the reading goes
// on, so that a client learns of everything at once.
//
// A null counts as a field that was left out.
type form struct {
	d      *jsontext.Decoder
	faults []strict.Fault
	broken *Problem
}

// readForm reads a body strictly: no duplicate names, no invalid UTF-8, nothing
// after the object. field is called for each field with the decoder before the
// value, and returns false, having read nothing, for a name it does not know.
// The error is for what is not valid JSON; the rest is in the faults.
func readForm(body []byte, field func(f *form, name string) bool) ([]strict.Fault, error) {
	f := &form{d: jsontext.NewDecoder(bytes.NewBuffer(body))}
	switch kind := f.d.PeekKind(); {
	case kind == '{':
		f.object(func(name string) bool { return field(f, name) })
	case len(bytes.TrimSpace(body)) == 0:
		return nil, InvalidJSON("", "The body is empty; want a JSON object.")
	default:
		if !f.skip() {
			return nil, f.broken
		}
		return nil, InvalidJSON("", "The body is not a JSON object.")
	}
	if f.broken == nil {
		if _, err := f.d.ReadToken(); !errors.Is(err, io.EOF) {
			f.broken = InvalidJSON("", "There is something after the JSON object.")
		}
	}
	if f.broken != nil {
		return nil, f.broken
	}
	return f.faults, nil
}

// InvalidJSON is the problem of a body that is not JSON at the place that the
// pointer names.
func InvalidJSON(pointer, detail string) *Problem {
	p := &Problem{Code: api.CodeInvalidJSON, Detail: detail}
	p.Faults = []api.Fault{{Pointer: Clip(pointer), Reason: strings.ToLower(detail[:1]) + strings.TrimSuffix(detail[1:], ".")}}
	return p
}

// Clip makes what a client sent fit to be sent back: bounded, and UTF-8.
func Clip(s string) string {
	const longest = 200
	if len(s) > longest {
		return strings.ToValidUTF8(s[:longest], "") + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// fault notes what is wrong with the value that was read last.
func (f *form) fault(format string, args ...any) {
	switch {
	case len(f.faults) < MaxFaults:
		f.faults = append(f.faults, strict.Fault{Pointer: Clip(string(f.d.StackPointer())), Reason: fmt.Sprintf(format, args...)})
	case len(f.faults) == MaxFaults:
		f.faults = append(f.faults, strict.Fault{Reason: "and more"})
	}
}

// fail ends the reading with what the decoder says.
func (f *form) fail(err error) bool {
	if f.broken != nil {
		return false
	}
	syntax, ok := errors.AsType[*jsontext.SyntacticError](err)
	switch {
	case !ok: // the end of the body
		f.broken = InvalidJSON("", "The body ends in the middle of its JSON.")
	case errors.Is(err, jsontext.ErrDuplicateName):
		f.broken = &Problem{
			Code: api.CodeInvalidJSON, Detail: "The body has a field twice: " + Clip(string(syntax.JSONPointer)) + ".",
			Faults: []api.Fault{{Pointer: Clip(string(syntax.JSONPointer)), Reason: "is there twice"}},
		}
	case errors.Is(err, io.ErrUnexpectedEOF):
		f.broken = InvalidJSON(string(syntax.JSONPointer), "The body ends in the middle of its JSON.")
	default:
		f.broken = InvalidJSON(string(syntax.JSONPointer), "The body is not valid JSON in UTF-8 at byte "+strconv.FormatInt(syntax.ByteOffset, 10)+".")
	}
	return false
}

// skip reads past one value of any kind.
func (f *form) skip() bool {
	outside := f.d.StackDepth()
	for {
		if _, err := f.d.ReadToken(); err != nil {
			return f.fail(err)
		}
		switch depth := f.d.StackDepth(); {
		case depth == outside:
			return true
		case depth > maxDepth:
			f.broken = InvalidJSON(string(f.d.StackPointer()), fmt.Sprintf("The body nests more than %d levels deep.", maxDepth))
			return false
		}
	}
}

// want reads past a value of the wrong kind and notes what it should have been.
func (f *form) want(what string) {
	if f.skip() {
		f.fault("want %s", what)
	}
}

// null reports whether the value is null and reads past it.
func (f *form) null() bool { return f.d.PeekKind() == 'n' && f.skip() }

// object reads an object; see readForm for field.
func (f *form) object(field func(name string) bool) {
	if f.d.PeekKind() != '{' {
		if !f.null() {
			f.want("an object")
		}
		return
	}
	if _, err := f.d.ReadToken(); err != nil {
		f.fail(err)
		return
	}
	for f.broken == nil && f.d.PeekKind() != '}' {
		name, err := f.d.ReadToken()
		if err != nil {
			f.fail(err)
			return
		}
		if text := name.String(); !field(text) && f.skip() {
			if text != strings.ToLower(text) {
				f.fault("is not a known field; names are in lower case")
			} else {
				f.fault("is not a known field")
			}
		}
	}
	if f.broken == nil {
		if _, err := f.d.ReadToken(); err != nil {
			f.fail(err)
		}
	}
}

// array reads an array of at most longest elements; element reads one.
func (f *form) array(longest int, element func(i int)) {
	if f.d.PeekKind() != '[' {
		if !f.null() {
			f.want("an array")
		}
		return
	}
	if _, err := f.d.ReadToken(); err != nil {
		f.fail(err)
		return
	}
	n := 0
	for ; f.broken == nil && f.d.PeekKind() != ']'; n++ {
		if n < longest {
			element(n)
		} else {
			f.skip()
		}
	}
	if f.broken != nil {
		return
	}
	if _, err := f.d.ReadToken(); err != nil {
		f.fail(err)
	} else if n > longest {
		f.fault("has %d elements; at most %d are allowed", n, longest)
	}
}

// text reads a string.
func (f *form) text(to *string) {
	switch f.d.PeekKind() {
	case '"':
		token, err := f.d.ReadToken()
		if err != nil {
			f.fail(err)
			return
		}
		*to = token.String()
	case 'n':
		f.skip()
	default:
		f.want("a string")
	}
}

// choice reads a string that set takes.
func (f *form) choice(allowed string, set func(string) bool) {
	if f.d.PeekKind() != '"' {
		if !f.null() {
			f.want("a string: " + allowed)
		}
		return
	}
	var text string
	if f.text(&text); f.broken == nil && !set(text) {
		f.fault("want %s", allowed)
	}
}

// texts reads an array of at most longest strings.
func (f *form) texts(longest int, to *[]string) {
	f.array(longest, func(int) {
		var s string
		f.text(&s)
		*to = append(*to, s)
	})
}

// labels reads an object of strings.
func (f *form) labels(to *map[string]string) {
	if f.d.PeekKind() != '{' {
		if !f.null() {
			f.want("an object of strings")
		}
		return
	}
	m := map[string]string{}
	f.object(func(name string) bool {
		if f.null() {
			return true
		}
		var s string
		f.text(&s)
		if len(m) <= fleet.MaxLabels { // one too many is enough to tell
			m[name] = s
		}
		return true
	})
	*to = m
}

// boolean reads true or false.
func (f *form) boolean(to *bool) {
	switch kind := f.d.PeekKind(); kind {
	case 't', 'f':
		if f.skip() {
			*to = kind == 't'
		}
	case 'n':
		f.skip()
	default:
		f.want("true or false")
	}
}

// literal reads the text of a number; ok is false when there is none.
func (f *form) literal(what string) (text string, ok bool) {
	switch f.d.PeekKind() {
	case '0':
		raw, err := f.d.ReadValue()
		if err != nil {
			return "", f.fail(err)
		}
		return string(raw), true
	case 'n':
		return "", f.skip() && false
	}
	f.want(what)
	return "", false
}

// whole reads a whole number from least to most, in any notation: 12, 12.0 and
// 1.2e1 are the same number in JSON.
func (f *form) whole(to **int64, least, most int64) {
	const what = "a whole number"
	text, ok := f.literal(what)
	if !ok {
		return
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		v, err := strconv.ParseFloat(text, 64)
		switch {
		case err != nil || math.Abs(v) > maxExact:
			f.fault("must be %d to %d", least, most)
			return
		case v != math.Trunc(v):
			f.fault("want %s", what)
			return
		}
		n = int64(v)
	}
	if n < least || n > most {
		f.fault("must be %d to %d", least, most)
		return
	}
	*to = &n
}

// number reads a number from least to most.
func (f *form) number(to **float64, least, most float64) {
	text, ok := f.literal("a number")
	if !ok {
		return
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || v < least || v > most {
		f.fault("must be %g to %g", least, most)
		return
	}
	*to = &v
}

// merge adds the faults of err, an *strict.InvalidError or nil, to those of the
// reading, unless something has been said of the same place.
func merge(read []strict.Fault, err error) []strict.Fault {
	invalid, ok := errors.AsType[*strict.InvalidError](err)
	if !ok {
		return read
	}
	all := read
	for _, f := range invalid.Faults {
		said := slices.ContainsFunc(all, func(a strict.Fault) bool { return a.Pointer == f.Pointer })
		for _, r := range read {
			said = said || strings.HasPrefix(f.Pointer, r.Pointer+"/") || strings.HasPrefix(r.Pointer, f.Pointer+"/")
		}
		if !said {
			all = append(all, f)
		}
	}
	return all
}
