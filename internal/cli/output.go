package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"golang.org/x/term"

	"headway/internal/audit"
)

// The formats of output.
var formats = []string{"table", "wide", "json", "yaml"}

// addOutput adds the flags that say in which format a command shows its result.
func addOutput(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringP("output", "o", "table", "format: "+strings.Join(formats, ", "))
	cmd.Flags().Bool("json", false, "the same as --output json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// formatOf is the format that the flags of a command say; of one that has none
// it is table.
func formatOf(cmd *cobra.Command) (string, error) {
	output := cmd.Flags().Lookup("output")
	if output == nil {
		return "table", nil
	}
	format := output.Value.String()
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		if output.Changed && format != "json" {
			return "", usageError(fmt.Errorf("--json and -o %s: want one of them", format))
		}
		return "json", nil
	}
	if !slices.Contains(formats, format) {
		return "", usageError(fmt.Errorf("-o %q: want one of %s", format, strings.Join(formats, ", ")))
	}
	return format, nil
}

// write writes v in the format; t is its table.
func write(w io.Writer, format string, v any, t *table) error {
	if list := reflect.ValueOf(v); list.Kind() == reflect.Slice && list.IsNil() {
		v = []any{} // programs want a list that is empty, not none
	}
	switch format {
	case "json":
		return writeJSON(w, v, "  ")
	case "yaml":
		return writeYAML(w, v)
	}
	return t.write(w, format == "wide")
}

func writeJSON(w io.Writer, v any, indent string) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := io.WriteString(w, visibly(text.String(), isLayout, escapeJSON))
	return err
}

// writeYAML writes v under the names that its JSON has.
func writeYAML(w io.Writer, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var node yaml.Node
	// JSON is YAML but for characters that break a line there.
	if err := yaml.Unmarshal([]byte(visibly(string(raw), isLayout, escapeYAML)), &node); err != nil {
		return err
	}
	plain(&node)
	var text bytes.Buffer
	e := yaml.NewEncoder(&text)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(&node), e.Close()); err != nil {
		return err
	}
	_, err = io.WriteString(w, visibly(text.String(), isLayout, escapeYAML))
	return err
}

// What others have named may hold characters that move the cursor or turn the
// text around. They are written as escapes; in JSON and YAML they mean the same.

// visibly returns text with its hidden characters escaped, except for the layout.
func visibly(text string, layout func(rune) bool, escape func([]byte, rune) []byte) string {
	hidden := func(r rune) bool { return audit.Hidden(r) && !layout(r) }
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

// seen is one line of text that somebody else has written, for people.
func seen(text string) string {
	return visibly(strings.ToValidUTF8(text, "\ufffd"), isNoLayout, escapeJSON)
}

// seenLines is text of several lines that somebody else has written, for people.
func seenLines(text string) string {
	return visibly(strings.ToValidUTF8(text, "\ufffd"), isLayout, escapeJSON)
}

// isTerminal reports whether people are at the other end of a stream.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// forReading is w or, where a person reads it, one that shows hidden characters.
func forReading(w io.Writer) io.Writer {
	if isTerminal(w) {
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
	_, err := io.WriteString(s.w, seenLines(string(text[:whole])))
	return len(b), err
}

func isLayout(r rune) bool { return r == '\n' || r == '\t' }

func isNoLayout(rune) bool { return false }

func escapeJSON(b []byte, r rune) []byte {
	if high, low := utf16.EncodeRune(r); high != utf8.RuneError {
		return fmt.Appendf(b, `\u%04x\u%04x`, high, low)
	}
	return fmt.Appendf(b, `\u%04x`, r)
}

func escapeYAML(b []byte, r rune) []byte { return fmt.Appendf(b, `\U%08x`, r) }

// plain takes the JSON style off, so that it is written as people write YAML.
func plain(n *yaml.Node) {
	n.Style = 0
	if strings.ContainsFunc(n.Value, func(r rune) bool { return audit.Hidden(r) && !isLayout(r) }) {
		n.Style = yaml.DoubleQuotedStyle // the only one that has escapes
	}
	for _, c := range n.Content {
		plain(c)
	}
}

// ago is how long ago a time was, in its largest unit.
func ago(t *time.Time, now time.Time) string {
	if t == nil || t.IsZero() {
		return "-"
	}
	return short(now.Sub(*t)) + " ago"
}

func short(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if d >= u.unit {
			return fmt.Sprintf("%d%s", d/u.unit, u.name)
		}
	}
	return "0s"
}

// counted is a number of things, such as "1 place" or "2 places".
func counted[N int | uint64](n N, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprint(n, " ", thing)
}

// agree is a number and what is said of so many.
func agree[N int | uint64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprint(n, " ", many)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
