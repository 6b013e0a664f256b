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

// Listed is the error for faults of something that a person wrote, with a line
// for each fault below the name of what has them.
func Listed(name string, faults []Fault) error {
	errs := []error{errors.New(name)}
	for _, fault := range faults {
		errs = append(errs, fmt.Errorf("  %w", Invalid([]Fault{fault})))
	}
	return errors.Join(errs...)
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
		if !slices.ContainsFunc(all, func(a Fault) bool { return a.Pointer == f.Pointer }) &&
			!slices.ContainsFunc(read, func(r Fault) bool { return r.Pointer != "" && strings.HasPrefix(f.Pointer, r.Pointer+"/") }) {
			all = append(all, f)
		}
	}
	return all
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

// AddBelow adds faults of a part, which stands at the pointer.
func (l *List) AddBelow(pointer string, faults []Fault) {
	for _, f := range faults {
		l.Add(pointer+f.Pointer, "%s", f.Reason)
	}
}

// All returns the faults, by line where they have one and else in the order
// they were found, or nil when there is none.
func (l *List) All() []Fault {
	slices.SortStableFunc(l.list, func(a, b Fault) int { return a.Line - b.Line })
	listed := l.list[:min(len(l.list), l.Most)]
	if more := l.more + len(l.list) - len(listed); more > 0 {
		listed = append(listed, Fault{Reason: fmt.Sprintf("more faults that are not listed: %d", more)})
	}
	return listed
}

// Clip makes input fit to be repeated: at most 200 bytes of UTF-8.
func Clip(s string) string {
	const longest = 200
	if len(s) > longest {
		return strings.ToValidUTF8(s[:longest], "") + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
