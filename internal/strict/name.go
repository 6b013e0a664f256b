package strict

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Unknown says that name is not one of known, which one was probably meant, and
// which there are.
func Unknown(what, name string, known []string) string {
	reason := fmt.Sprintf("unknown %s %s; ", what, Quote(name))
	if meant := Nearest(name, known); meant != "" {
		reason += fmt.Sprintf("did you mean %q? ", meant)
	}
	if len(known) == 0 {
		return reason + "there are none"
	}
	return reason + "allowed are " + strings.Join(known, ", ")
}

// Printable reports whether text stays on its line and shows what it is: it is
// UTF-8 without control, formatting or other hidden characters.
func Printable(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError })
}

// maxQuoted is the most bytes of an input that a reason repeats.
const maxQuoted = 64

// Quote quotes the beginning of an input for a reason.
func Quote(s string) string {
	if len(s) <= maxQuoted {
		return strconv.Quote(s)
	}
	cut := maxQuoted
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return strconv.Quote(s[:cut]) + "…"
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

// Escape writes a name as one token of a JSON Pointer (RFC 6901).
func Escape(name string) string { return pointerEscapes.Replace(name) }

// DidYouMean is "; did you mean X?" with the known name that was probably
// meant, or "" when none is near.
func DidYouMean(name string, known []string) string {
	if meant := Nearest(name, known); meant != "" {
		return fmt.Sprintf("; did you mean %s?", meant)
	}
	return ""
}
