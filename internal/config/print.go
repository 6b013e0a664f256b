package config

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// masked stands for the value of a secret.
const masked = "********"

// Print writes every setting as a file that Load reads, with secrets masked.
// With provenance each line ends in a comment that says where its value comes
// from.
func (c *Config) Print(w io.Writer, provenance bool) error {
	var shown Config
	t := newTable(&shown)
	shown = *c // after the table gave it the defaults
	return t.print(w, provenance, c.source)
}

func (t *table) print(w io.Writer, provenance bool, from func(key string) source) error {
	type line struct{ text, comment string }
	var lines []line
	section, width := "", 0
	for _, s := range t.settings {
		before, name, nested := strings.Cut(s.Key, ".")
		indent := ""
		switch {
		case !nested:
			name = before
		case before != section:
			lines = append(lines, line{text: before + ":"})
			section = before
			fallthrough
		default:
			indent = "  "
		}
		value, err := s.yaml()
		if err != nil {
			return fmt.Errorf("write %s: %w", s.Key, err)
		}
		text := indent + name + ": " + value
		width = max(width, len(text))
		lines = append(lines, line{text, from(s.Key).String()})
	}
	var b strings.Builder
	for _, l := range lines {
		if provenance && l.comment != "" {
			fmt.Fprintf(&b, "%-*s  # %s\n", width, l.text, l.comment)
		} else {
			b.WriteString(l.text + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// yaml writes the value in one line.
func (s *setting) yaml() (string, error) {
	switch {
	case s.Secret && s.get() != "":
		return "'" + masked + "'", nil
	case s.Kind == KindList:
		quoted := []string{}
		for _, element := range s.elements() {
			quoted = append(quoted, strconv.Quote(element))
		}
		return "[" + strings.Join(quoted, ", ") + "]", nil
	case s.Kind == KindText || s.Kind == KindChoice:
		text, err := yaml.Marshal(s.get())
		return strings.TrimSpace(string(text)), err
	}
	return s.get(), nil
}

// Set returns the settings that are not defaults, by their names, with secrets
// masked.
func (c *Config) Set() map[string]string {
	var shown Config
	t := newTable(&shown)
	shown = *c
	set := map[string]string{}
	for _, s := range t.settings {
		switch {
		case c.source(s.Key) == byDefault:
		case s.Secret:
			set[s.Key] = masked
		default:
			set[s.Key] = s.get()
		}
	}
	return set
}
