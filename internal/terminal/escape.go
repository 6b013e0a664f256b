// Package terminal is what commands print: tables for people, JSON and YAML for
// programs. What others have named may hold characters that move the cursor or
// turn the text around. They are printed as escapes, which mean the same in JSON
// and YAML.
package terminal

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/term"

	"headway/internal/audit"
)

// Clear empties the screen of a terminal.
const Clear = "\x1b[H\x1b[2J"

// Printf prints text for people. Strings and errors among args are escaped, since
// they may come from others.
func Printf(w io.Writer, format string, args ...any) error {
	for i, arg := range args {
		switch v := arg.(type) {
		case string:
			args[i] = Escape(v)
		case error:
			args[i] = EscapeLines(v.Error())
		}
	}
	_, err := fmt.Fprintf(w, format, args...)
	return err
}

// layout are the hidden characters that text of several lines may have.
const layout = "\n\t"

// visibly returns text with its hidden characters escaped, except for the allowed
// ones.
func visibly(text, allowed string, escape func([]byte, rune) []byte) string {
	hidden := func(r rune) bool { return audit.Hidden(r) && !strings.ContainsRune(allowed, r) }
	if !strings.ContainsFunc(text, hidden) {
		return text
	}
	out := make([]byte, 0, len(text)+16)
	for _, r := range text {
		if hidden(r) {
			out = escape(out, r)
		} else {
			out = utf8.AppendRune(out, r)
		}
	}
	return string(out)
}

// Escape is one line of text that others have written, for people.
func Escape(text string) string { return visibly(strings.ToValidUTF8(text, "\ufffd"), "", escapeJSON) }

// EscapeLines is text of several lines that others have written, for people.
func EscapeLines(text string) string {
	return visibly(strings.ToValidUTF8(text, "\ufffd"), layout, escapeJSON)
}

// IsTerminal reports whether people are at the other end of a stream.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// EscapeWriter is w or, where a person reads it, one that shows hidden characters.
func EscapeWriter(w io.Writer) io.Writer {
	if IsTerminal(w) {
		return &shownWriter{w: w}
	}
	return w
}

// shownWriter escapes hidden characters as JSON has it.
type shownWriter struct {
	w    io.Writer
	part []byte // of a character whose rest is to come
}

func (s *shownWriter) Write(b []byte) (int, error) {
	text := append(s.part, b...)
	whole := len(text)
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if tail := text[len(text)-n:]; utf8.RuneStart(tail[0]) && !utf8.FullRune(tail) {
			whole = len(text) - n
		}
	}
	s.part = bytes.Clone(text[whole:])
	_, err := io.WriteString(s.w, EscapeLines(string(text[:whole])))
	return len(b), err
}

func escapeJSON(b []byte, r rune) []byte {
	if high, low := utf16.EncodeRune(r); high != utf8.RuneError {
		return fmt.Appendf(b, `\u%04x\u%04x`, high, low)
	}
	return fmt.Appendf(b, `\u%04x`, r)
}

func escapeYAML(b []byte, r rune) []byte { return fmt.Appendf(b, `\U%08x`, r) }
