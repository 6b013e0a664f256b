package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
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
	switch o.format {
	case "json":
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(v)
	case "yaml":
		return writeYAML(w, v)
	}
	shown := len(t.columns)
	if t.wide > 0 && o.format != "wide" {
		shown = t.wide
	}
	tab := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(cells []string) {
		fmt.Fprintln(tab, strings.TrimRight(strings.Join(cells[:shown], "\t"), "\t "))
	}
	if !t.bare {
		line(t.columns)
	}
	for _, row := range t.rows {
		line(row)
	}
	return tab.Flush()
}

// writeYAML writes v under the names that its JSON has.
func writeYAML(w io.Writer, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var node yaml.Node
	if err := yaml.Unmarshal(raw, &node); err != nil {
		return err
	}
	plain(&node)
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	return e.Encode(&node)
}

// plain takes the JSON style off, so that it is written as people write YAML.
func plain(n *yaml.Node) {
	n.Style = 0
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
