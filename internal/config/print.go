package config

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// table is the table of settings with the values of c.
func (c *Config) table() *table {
	values := new(Config)
	t := newTable(values)
	*values = *c // after the table gave it the defaults
	return t
}

// Print writes every setting as a file that Load reads, secrets masked. With
// provenance each line ends in a comment that names the source.
func (c *Config) Print(w io.Writer, provenance bool) error {
	type line struct{ text, source string }
	var lines []line
	section, width := "", 0
	for _, s := range c.table().settings {
		name := s.Key
		if before, after, nested := strings.Cut(s.Key, "."); nested {
			if before != section {
				lines = append(lines, line{text: before + ":"})
				if before == "heads" && len(c.Heads.Static) > 0 {
					list, err := printList(staticKey, c.Heads.Static)
					if err != nil {
						return err
					}
					lines = append(lines, line{"  static: " + list, c.source(staticKey).String()})
				}
			}
			section, name = before, "  "+after
		}
		value, err := s.yaml()
		if err != nil {
			return fmt.Errorf("write %s: %w", s.Key, err)
		}
		text := name + ": " + value
		width = max(width, len(text))
		lines = append(lines, line{text, c.source(s.Key).String()})
	}
	if len(c.Discovery) > 0 {
		list, err := printList(discoveryKey, c.Discovery)
		if err != nil {
			return err
		}
		lines = append(lines, line{"discovery: " + list, c.source(discoveryKey).String()})
	}
	var b strings.Builder
	for _, l := range lines {
		if provenance && l.source != "" {
			fmt.Fprintf(&b, "%-*s  # %s\n", width, l.text, l.source)
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
	set := map[string]string{}
	for _, s := range c.table().settings {
		if c.source(s.Key) != byDefault {
			set[s.Key] = strings.Join(s.shown(), ",")
		}
	}
	return set
}
