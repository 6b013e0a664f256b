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

func (f Fault) String() string {
	text := f.Reason
	if f.Line > 0 {
		text = fmt.Sprintf("line %d: %s", f.Line, text)
	}
	if f.Pointer != "" {
		text = f.Pointer + ": " + text
	}
	return text
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
		texts[i] = f.String()
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
		said := slices.ContainsFunc(all, func(a Fault) bool { return a.Pointer == f.Pointer })
		for _, r := range read {
			said = said || r.Pointer != "" && strings.HasPrefix(f.Pointer, r.Pointer+"/")
		}
		if !said {
			all = append(all, f)
		}
	}
	return all
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
