package config

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"headway/internal/strict"
)

// Bounds of the configuration file.
const (
	MaxFileBytes = 1 << 20
	maxFaults    = 1 << 20 // a fault takes a byte at least
)

// file reads the file of that name, "": none, and returns its reader, nil after a
// fault of the file as a whole.
func (l *loader) file(name string, readFile func(string) ([]byte, error)) *fileReader {
	if name == "" {
		return nil
	}
	from := source{name: name}
	data, err := readFile(name)
	if err != nil {
		l.fault("", from, "cannot be read: %v", err)
		return nil
	}
	if len(data) > MaxFileBytes {
		l.fault("", from, "has %d bytes; at most %d are read", len(data), MaxFileBytes)
		return nil
	}
	f := &fileReader{loader: l, Reader: strict.NewYAML(data, strict.Options{Most: maxFaults}), name: name}
	f.section("")
	return f
}

// done adds the faults of the file, which are those of reading it and what checks
// find in its lists. It does nothing for nil.
func (f *fileReader) done(c *Config, checks []Check) {
	if f == nil {
		return
	}
	later := &strict.List{Most: maxFaults}
	for _, check := range checks {
		static, discovery := check(c)
		later.AddBelow(f.static, static)
		later.AddBelow("/discovery", discovery)
	}
	f.Merge(later)
	faults, err := f.Done()
	if err != nil {
		f.fault("", source{name: f.name}, "%v", err)
	}
	for _, fault := range faults {
		f.fault(f.key(fault.Pointer), source{f.name, fault.Line}, "%s", fault.Reason)
	}
}

// key names what a pointer leads to. Of a list that is a setting it is the list, of the
// lists of heads the element.
func (f *fileReader) key(pointer string) string {
	if !strings.HasPrefix(pointer, "/discovery/") && (f.static == "" || !strings.HasPrefix(pointer, f.static+"/")) {
		pointer = element.ReplaceAllString(pointer, "")
	}
	return strings.ReplaceAll(strings.TrimPrefix(pointer, "/"), "/", ".")
}

// element matches the end of a pointer to a list element.
var element = regexp.MustCompile(`/\d+$`)

// fileReader reads settings in YAML, one object per section. Empty values are
// ignored.
type fileReader struct {
	*loader
	*strict.Reader
	name    string
	static  string // pointer to the list of static heads
	unknown int    // keys
}

// section reads an object; prefix is "" for the whole file, else the section
// and a dot.
func (f *fileReader) section(prefix string) {
	f.Object(func(name string) bool {
		key := prefix + name
		switch s := f.find(key); {
		case key == "heads" && f.Kind() == strict.Array:
			f.staticHeads("/heads")
		case key == staticKey:
			f.staticHeads("/heads/static")
		case key == discoveryKey:
			f.discoveredHeads()
		case prefix == "" && slices.Contains(f.sections(), key):
			f.section(key + ".")
		case s != nil && !strings.Contains(name, "."):
			f.value(s)
		case f.Skip():
			f.unknownKey(key, name)
		}
		return true
	})
}

func (l *loader) sections() []string {
	var names []string
	for _, s := range l.settings {
		if section, _, nested := strings.Cut(s.Key, "."); nested && !slices.Contains(names, section) {
			names = append(names, section)
		}
	}
	return names
}

func (f *fileReader) unknownKey(key, name string) {
	if f.find(key) != nil { // lease.base_interval: 2s
		section, rest, _ := strings.Cut(key, ".")
		f.Fault("write it nested: %s: {%s: …}", section, rest)
		return
	}
	if f.unknown++; f.unknown > maxListed { // the hint would not be read
		f.Fault("unknown key")
		return
	}
	known := append(f.sections(), "discovery")
	elsewhere := ""
	for _, s := range f.settings {
		known = append(known, s.Key)
		if strings.HasSuffix(s.Key, "."+name) || s.Key == name {
			elsewhere = "; did you mean " + s.Key + "?"
		}
	}
	f.Fault("unknown key%s", cmp.Or(elsewhere, strict.DidYouMean(key, known)))
}

func (f *fileReader) value(s *setting) {
	kind := f.Kind()
	switch {
	case kind == strict.Nothing || kind == strict.Null:
		f.Skip()
		return
	case s.Kind == KindList:
		f.list(s)
		return
	}
	text, said := f.read(s)
	isText := s.Kind == KindText || s.Kind == KindChoice
	switch {
	case kind == strict.Array || kind == strict.Object:
		f.Fault("want %s (%s), not %s", article(s.Kind), s.Allowed, said)
	case s.Kind == KindDuration || s.Kind == KindBytes: // the fault of a bare number names the missing unit
		f.give(s, text)
	case kind == strict.String == isText:
		f.give(s, text)
	case isText:
		f.Fault("want a string, not %s; put it in quotes", said)
	default:
		f.Fault("want %s (%s), not the string %s", article(s.Kind), s.Allowed, said)
	}
}

func (f *fileReader) give(s *setting, text string) {
	if err := s.set(text); err != nil {
		f.Fault("%s", err)
		return
	}
	f.sources[s.Key] = source{f.name, f.Line()}
}

// read skips a value and returns its text, if it is one, and how a fault quotes
// it.
func (f *fileReader) read(s *setting) (text, said string) {
	if kind := f.Kind(); kind == strict.Array || kind == strict.Object {
		f.Skip()
		return "", kind.String()
	}
	text = f.Plain()
	return text, s.say(text)
}

func (f *fileReader) list(s *setting) {
	if f.Kind() != strict.Array {
		_, said := f.read(s)
		f.Fault("want an array, not %s", said)
		return
	}
	var list []string
	sound := true
	f.Array(0, func(int) {
		kind := f.Kind()
		if kind == strict.Nothing { // refused
			sound = false
			return
		}
		text, said := f.read(s)
		if kind != strict.String || strings.Contains(text, ",") || text == "" {
			sound = false
			f.Fault("want an array of strings without commas, not %s in it", said)
		}
		list = append(list, text)
	})
	if sound {
		f.give(s, strings.Join(list, ","))
	}
}

func article(k Kind) string {
	if k == KindBytes {
		return "a size"
	}
	return "a " + string(k)
}
