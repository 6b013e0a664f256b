package terminal

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"

	"go.yaml.in/yaml/v3"
)

// Formats are the formats of output; wide is a table with all its columns.
var Formats = []string{"table", "wide", "json", "yaml"}

// Write writes v in the format; t is its table.
func Write(w io.Writer, format string, v any, t *Table) error {
	if list := reflect.ValueOf(v); list.Kind() == reflect.Slice && list.IsNil() {
		v = []any{} // programs want a list that is empty, not none
	}
	switch format {
	case "json":
		return WriteJSON(w, v, "  ")
	case "yaml":
		return WriteYAML(w, v)
	}
	return t.Write(w, format == "wide")
}

// WriteJSON writes v, each level under the indent.
func WriteJSON(w io.Writer, v any, indent string) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := io.WriteString(w, visibly(text.String(), layout, escapeJSON))
	return err
}

// WriteYAML writes v under the names that its JSON has.
func WriteYAML(w io.Writer, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var node yaml.Node
	// JSON is YAML but for characters that break a line there.
	if err := yaml.Unmarshal([]byte(visibly(string(raw), layout, escapeYAML)), &node); err != nil {
		return err
	}
	plain(&node)
	var text bytes.Buffer
	e := yaml.NewEncoder(&text)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(&node), e.Close()); err != nil {
		return err
	}
	_, err = io.WriteString(w, visibly(text.String(), layout, escapeYAML))
	return err
}

// plain takes the JSON style off, so that it is written as people write YAML.
func plain(n *yaml.Node) {
	n.Style = 0
	if visibly(n.Value, layout, escapeYAML) != n.Value {
		n.Style = yaml.DoubleQuotedStyle // the only one that has escapes
	}
	for _, c := range n.Content {
		plain(c)
	}
}
