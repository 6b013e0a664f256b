// Package strict reads JSON and YAML strictly. It says what is wrong with an
// input, where, and what was probably meant.
package strict

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing wrong with an input.
type Fault struct {
	Pointer string // JSON Pointer (RFC 6901) into the input
	Reason  string
	Line    int // of YAML, 0: not known
}

// Text is the reason with the line.
func (f Fault) Text() string {
	if f.Line == 0 {
		return f.Reason
	}
	return fmt.Sprintf("line %d: %s", f.Line, f.Reason)
}

// InvalidError lists everything that is wrong with an input, one fault at
// least.
type InvalidError struct{ Faults []Fault }

// Invalid is the error for faults: an *InvalidError, or nil without faults.
func Invalid(faults []Fault) error {
	if len(faults) == 0 {
		return nil
	}
	return &InvalidError{faults}
}

// FaultsOf are the faults of an error that has some.
func FaultsOf(err error) []Fault {
	if e, ok := errors.AsType[*InvalidError](err); ok {
		return e.Faults
	}
	return nil
}

func (e *InvalidError) Error() string {
	texts := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		texts[i] = strings.TrimPrefix(f.Pointer+": "+f.Text(), ": ")
	}
	return strings.Join(texts, "; ")
}

// Faults collects what is wrong with an input.
type Faults []Fault

// Add adds a fault with its place and its reason.
func (f *Faults) Add(pointer, format string, args ...any) {
	*f = append(*f, Fault{Pointer: pointer, Reason: fmt.Sprintf(format, args...)})
}

// Merge adds to the faults of reading those that were found later. A place
// that has a fault gets no second one, nor does what is inside of it: a value
// that could not be read is not missing too.
func Merge(read, later []Fault) []Fault {
	all := read
	for _, f := range later {
		if !said(read, f) && !slices.ContainsFunc(all[len(read):], func(a Fault) bool { return a.Pointer == f.Pointer }) {
			all = append(all, f)
		}
	}
	return all
}

func said(read []Fault, f Fault) bool {
	return slices.ContainsFunc(read, func(r Fault) bool {
		rest, inside := strings.CutPrefix(f.Pointer, r.Pointer)
		return inside && (rest == "" || rest[0] == '/' && r.Pointer != "")
	})
}

// List is a bounded list of faults.
type List struct {
	Most int // are listed; one more says how many there are besides
	list []Fault
	more int
}

// Full counts one more fault that is not listed if the list is full. It is
// asked before a reason is written that would not be read.
func (l *List) Full() bool {
	if len(l.list) < l.Most {
		return false
	}
	l.more++
	return true
}

// Add adds a fault with its place and its reason.
func (l *List) Add(pointer, format string, args ...any) {
	if !l.Full() {
		l.list = append(l.list, Fault{Pointer: pointer, Reason: fmt.Sprintf(format, args...)})
	}
}

// All returns the faults, by line where they have one and else in the order
// they were found, or nil when there is none.
func (l *List) All() []Fault {
	slices.SortStableFunc(l.list, func(a, b Fault) int { return a.Line - b.Line })
	if l.more > 0 {
		return append(l.list, Fault{Reason: fmt.Sprintf("more faults that are not listed: %d", l.more)})
	}
	return l.list
}

// Clip makes input fit to be repeated: at most 200 bytes of UTF-8.
func Clip(s string) string {
	const longest = 200
	if len(s) > longest {
		return strings.ToValidUTF8(s[:longest], "") + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// DidYouMean is "; did you mean X?" with the known name that was probably
// meant, or "" when none is near.
func DidYouMean(name string, known []string) string {
	if meant := Nearest(name, known); meant != "" {
		return fmt.Sprintf("; did you mean %s?", meant)
	}
	return ""
}
