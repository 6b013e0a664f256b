// Package strict reads what people and programs send, and says what is wrong
// with it: where, why, and what was probably meant.
package strict

import (
	"fmt"
	"strings"
)

// Fault is one thing wrong with an input: where, as a JSON Pointer (RFC 6901)
// into the input, and why.
type Fault struct {
	Pointer string
	Reason  string
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

// Faults collects what is wrong with an input.
type Faults []Fault

// Add adds a fault with its place and its reason.
func (f *Faults) Add(pointer, format string, args ...any) {
	*f = append(*f, Fault{pointer, fmt.Sprintf(format, args...)})
}

func (e *InvalidError) Error() string {
	texts := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		texts[i] = strings.TrimPrefix(f.Pointer+": "+f.Reason, ": ")
	}
	return strings.Join(texts, "; ")
}

// DidYouMean is "; did you mean X?" with the known name that was probably
// meant, or "" when none is near.
func DidYouMean(name string, known []string) string {
	if meant := Nearest(name, known); meant != "" {
		return fmt.Sprintf("; did you mean %s?", meant)
	}
	return ""
}
