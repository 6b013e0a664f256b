package config

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"slices"
	"strings"

	"headway/internal/strict"

	"go.yaml.in/yaml/v3"
)

// MaxFileBytes is the largest configuration file that is read.
const MaxFileBytes = 1 << 20

// file reads the settings of the named file, if there is a name.
func (l *loader) file(name string, readFile func(string) ([]byte, error)) {
	if name == "" {
		return
	}
	from := source{name: name}
	data, err := readFile(name)
	if err != nil {
		l.fault("", from, "cannot be read: %v", err)
		return
	}
	l.yaml(data, from)
}

// yaml reads settings written in YAML: an object for each section. Anchors and
// aliases are refused, so that a file cannot grow.
func (l *loader) yaml(data []byte, from source) {
	if len(data) > MaxFileBytes {
		l.fault("", from, "has %d bytes; at most %d are read", len(data), MaxFileBytes)
		return
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	err := d.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return // nothing but comments
	}
	if err == nil {
		if err = d.Decode(&second); errors.Is(err, io.EOF) {
			l.section("", doc.Content[0], from)
			return
		}
	}
	if err == nil {
		from.line = second.Line
		l.fault("", from, "there is a second document; want one")
		return
	}
	said := strings.TrimPrefix(err.Error(), "yaml: ")
	if strings.Contains(said, "anchor") { // which it repeats: text that begins with * and is in no quotes
		said = "anchors (&) and aliases (*) are not allowed; put text that begins so in quotes"
	}
	l.fault("", from, "not YAML: %s", shorten(said))
}

// shorten bounds text that a library composed of the file's.
func shorten(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// section reads an object; prefix is "" for the whole file, else the section
// with a dot. An object that is left empty leaves its settings out.
func (l *loader) section(prefix string, n *yaml.Node, from source) {
	from.line = n.Line
	name := strings.TrimSuffix(prefix, ".")
	switch {
	case l.refused(name, n, from):
		return
	case isNull(n):
		return
	case n.Kind != yaml.MappingNode:
		said := describe(n)
		if n.Kind == yaml.ScalarNode { // a colon without its space makes text of a setting
			said = "text"
		}
		l.fault(name, from, "want an object with the settings, not %s", said)
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		from.line = name.Line
		key := prefix + name.Value
		switch {
		case name.Kind != yaml.ScalarNode || l.refused(key, name, from):
			if name.Kind != yaml.ScalarNode {
				l.fault(prefix, from, "a name must be plain text")
			}
		case seen[key]:
			l.fault(key, from, "is given twice")
		case prefix == "" && slices.Contains(l.sections(), key):
			l.section(key+".", value, from)
		case l.find(key) != nil && !strings.Contains(name.Value, "."):
			l.value(l.find(key), value, from)
		default:
			l.unknown(key, name.Value, from)
		}
		seen[key] = true
	}
}

// sections are the names before the dots of keys.
func (l *loader) sections() []string {
	var names []string
	for _, s := range l.settings {
		if section, _, nested := strings.Cut(s.Key, "."); nested && !slices.Contains(names, section) {
			names = append(names, section)
		}
	}
	return names
}

func (l *loader) unknown(key, name string, from source) {
	if l.find(key) != nil { // lease.base_interval: 2s
		section, rest, _ := strings.Cut(key, ".")
		l.fault(key, from, "write it nested: %s: {%s: …}", section, rest)
		return
	}
	if len(l.faults) >= maxListed { // nobody reads the hint
		l.fault(key, from, "unknown key")
		return
	}
	known := l.sections()
	elsewhere := ""
	for _, s := range l.settings {
		known = append(known, s.Key)
		if strings.HasSuffix(s.Key, "."+name) || s.Key == name {
			elsewhere = "; did you mean " + s.Key + "?"
		}
	}
	l.fault(key, from, "unknown key%s", cmp.Or(elsewhere, strict.DidYouMean(key, known)))
}

// value gives a setting what the file says.
func (l *loader) value(s *setting, n *yaml.Node, from source) {
	from.line = n.Line
	switch {
	case l.refused(s.Key, n, from), isNull(n):
	case s.Kind == KindList:
		l.listValue(s, n, from)
	case n.Kind != yaml.ScalarNode:
		l.fault(s.Key, from, "want %s (%s), not %s", article(s.Kind), s.Allowed, s.describe(n))
	case !slices.Contains(tags[s.Kind], n.ShortTag()):
		if tags[s.Kind][0] == "!!str" && n.ShortTag() != "!!str" {
			l.fault(s.Key, from, "want a string, not %s; put it in quotes", s.say(n.Value))
			return
		}
		l.fault(s.Key, from, "want %s (%s), not the string %s", article(s.Kind), s.Allowed, s.say(n.Value))
	default:
		l.give(s, n.Value, from)
	}
}

// tags are the YAML tags that a value of the kind may have. Durations and
// sizes have them all, since what is wrong with 5 as a duration is its unit.
var tags = map[Kind][]string{
	KindText:     {"!!str"},
	KindChoice:   {"!!str"},
	KindDuration: {"!!int", "!!str", "!!float", "!!bool", "!!timestamp"},
	KindBytes:    {"!!int", "!!str", "!!float", "!!bool", "!!timestamp"},
	KindNumber:   {"!!int", "!!float", "!!bool"},
	KindFraction: {"!!float", "!!int", "!!bool"},
	KindDecimal:  {"!!float", "!!int", "!!bool"},
	KindBool:     {"!!bool", "!!int", "!!float"},
}

func (l *loader) listValue(s *setting, n *yaml.Node, from source) {
	if n.Kind != yaml.SequenceNode {
		l.fault(s.Key, from, "want an array, not %s", s.describe(n))
		return
	}
	var list []string
	for _, element := range n.Content {
		at := source{from.name, element.Line}
		switch {
		case l.refused(s.Key, element, at):
			return
		case element.Kind != yaml.ScalarNode || element.ShortTag() != "!!str" || strings.Contains(element.Value, ",") || element.Value == "":
			l.fault(s.Key, at, "want an array of strings without commas, not %s in it", s.describe(element))
			return
		}
		list = append(list, element.Value)
	}
	l.give(s, strings.Join(list, ","), from)
}

// refused notes a fault for what the file may not use.
func (l *loader) refused(key string, n *yaml.Node, from source) bool {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		l.fault(key, from, "anchors (&) and aliases (*) are not allowed; write the value out")
		return true
	case n.Style&yaml.TaggedStyle != 0:
		l.fault(key, from, "tags (!) are not allowed; put text that begins so in quotes")
		return true
	}
	return false
}

func article(k Kind) string {
	if k == KindBytes {
		return "a size"
	}
	return "a " + string(k)
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// describe is what stands in the place of a setting's value.
func (s *setting) describe(n *yaml.Node) string {
	if s.Secret && n.Kind == yaml.ScalarNode {
		return unsaid
	}
	return describe(n)
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "an object"
	case yaml.SequenceNode:
		return "an array"
	}
	return quote(n.Value)
}
