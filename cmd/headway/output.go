package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"headway/internal/audit"
)

// The formats of output.
var formats = []string{"table", "wide", "json", "yaml"}

// output writes what a command found, as the user wants it.
type output struct{ format string }

func (o *output) addFlag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.format, "output", "o", "table", "format: "+strings.Join(formats, ", "))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
}

func (o *output) check() error {
	if !slices.Contains(formats, o.format) {
		return usageError(fmt.Errorf("-o %q: want one of %s", o.format, strings.Join(formats, ", ")))
	}
	return nil
}

// structured reports whether the output is for programs.
func (o *output) structured() bool { return o.format == "json" || o.format == "yaml" }

// table is what people read: columns, of which those after the first wide are
// shown in the wide format only.
type table struct {
	columns []string
	wide    int  // columns that the narrow format shows; 0: all
	bare    bool // without the line of columns
	rows    [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// write writes v as it is asked for; t is its table.
func (o *output) write(w io.Writer, v any, t *table) error {
	if list := reflect.ValueOf(v); list.Kind() == reflect.Slice && list.IsNil() {
		v = []any{} // programs want a list that is empty, not none
	}
	switch o.format {
	case "json":
		return writeJSON(w, v, "  ")
	case "yaml":
		return writeYAML(w, v)
	}
	shown := len(t.columns)
	if t.wide > 0 && o.format != "wide" {
		shown = t.wide
	}
	tab := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(cells []string) {
		visible := make([]string, shown)
		for i, cell := range cells[:shown] {
			visible[i] = seen(cell)
		}
		fmt.Fprintln(tab, strings.TrimRight(strings.Join(visible, "\t"), "\t "))
	}
	if !t.bare {
		line(t.columns)
	}
	for _, row := range t.rows {
		line(row)
	}
	return tab.Flush()
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

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
