package config

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Print writes every setting as a file that Load reads, secrets masked. With
// provenance each line ends in a comment that names the source.
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

func (s *setting) yaml() (string, error) {
	switch s.Kind {
	case KindList:
		quoted := []string{}
		for _, element := range s.shown() {
			quoted = append(quoted, strconv.Quote(element))
		}
		return "[" + strings.Join(quoted, ", ") + "]", nil
	case KindText, KindChoice:
		text, err := yaml.Marshal(s.shown()[0])
		return strings.TrimSpace(string(text)), err
	}
	return s.get(), nil
}

func (s *setting) shown() []string {
	list := []string{s.get()}
	if s.elements != nil {
		list = slices.Clone(s.elements())
	}
	for i, text := range list {
		if s.show != nil && text != "" {
			list[i] = s.show(text)
		}
	}
	return list
}

// Set returns the settings that differ from their defaults, secrets masked.
func (c *Config) Set() map[string]string {
	var shown Config
	t := newTable(&shown)
	shown = *c
	set := map[string]string{}
	for _, s := range t.settings {
		if c.source(s.Key) != byDefault {
			set[s.Key] = strings.Join(s.shown(), ",")
		}
	}
	return set
}
