package strict

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"
)

// NewYAML makes a reader of exactly one YAML document; nothing is null. Anchors,
// aliases, tags and merge keys are refused unless Options.Loose allows them: a
// document says what it says where it says it, and cannot grow. No fault repeats
// a value, which may be a secret.
func NewYAML(data []byte, o Options) *Reader {
	r := &Reader{o: o, faults: List{Most: o.Most}, yaml: cursor{root: &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}}}
	d := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	switch err := d.Decode(&doc); {
	case err == nil:
		r.yaml.root = doc.Content[0]
		if left := maxWrittenOut; o.Loose {
			if r.yaml.root = writtenOut(doc.Content[0], maxDepth, &left); left < 0 {
				r.broken = &SyntaxError{Reason: "its aliases make it too large"}
				return r
			}
		}
		if err = d.Decode(&second); err == nil {
			r.faults.list = []Fault{{Reason: "there is a second document; want one", Line: second.Line}}
		} else if !errors.Is(err, io.EOF) {
			r.broken = notYAML(data, err)
		}
	case !errors.Is(err, io.EOF): // which says that there is nothing but comments
		r.broken = notYAML(data, err)
	}
	r.yaml.next = r.yaml.root
	return r
}

const noAnchors = "anchors (&) and aliases (*) are not allowed; "

func notYAML(data []byte, err error) *SyntaxError {
	said := strings.TrimPrefix(err.Error(), "yaml: ")
	if strings.Contains(said, "anchor") { // which it repeats: text that begins with * and is in no quotes
		said = noAnchors + "put text that begins so in quotes"
	}
	return &SyntaxError{Reason: Clip(atItsLine(data, said))}
}

// atItsLine corrects what the library's parser says of lines, which it counts from 0;
// its scanner counts them from 1. The end stands on the last line.
func atItsLine(data []byte, said string) string {
	where, what, found := strings.Cut(said, ": ")
	if !found {
		where, what = "line 0", said
	}
	line, err := strconv.Atoi(strings.TrimPrefix(where, "line "))
	if err != nil || !slices.Contains(parserErrors, what) {
		return said
	}
	last := 1 + bytes.Count(bytes.TrimRight(data, "\n"), []byte("\n"))
	return "line " + strconv.Itoa(min(line+1, last)) + ": " + what
}

// parserErrors are what the parser says, apart from what it says of directives.
var parserErrors = []string{
	"did not find expected <document start>", "found undefined tag handle", "did not find expected node content",
	"did not find expected '-' indicator", "did not find expected key",
	"did not find expected ',' or ']'", "did not find expected ',' or '}'",
}

// maxWrittenOut bounds the values of a document whose aliases are written out.
const maxWrittenOut = 100_000

// writtenOut is n with its aliases and merge keys (https://yaml.org/type/merge.html)
// written out and without anchors and tags. It takes the number of its values
// from left, and ends where depth or left is below 0.
func writtenOut(n *yaml.Node, depth int, left *int) *yaml.Node {
	if *left--; *left < 0 || depth < 0 {
		*left = -1
		return n
	}
	if n.Kind == yaml.AliasNode {
		return writtenOut(n.Alias, depth-1, left)
	}
	plain := *n
	plain.Anchor, plain.Content = "", nil
	if plain.Style&yaml.TaggedStyle != 0 {
		plain.Style, plain.Tag = plain.Style&^yaml.TaggedStyle, ""
	}
	var merged []*yaml.Node
	named := map[string]bool{}
	for i, child := range n.Content {
		switch {
		case n.Kind == yaml.MappingNode && i%2 == 1 && n.Content[i-1].ShortTag() == "!!merge":
			plain.Content = plain.Content[:len(plain.Content)-1]
			merged = append(merged, mergedInto(writtenOut(child, depth-1, left))...)
		default:
			named[child.Value] = named[child.Value] || i%2 == 0
			plain.Content = append(plain.Content, writtenOut(child, depth-1, left))
		}
	}
	for i := 0; i+1 < len(merged); i += 2 {
		if name := merged[i].Value; !named[name] {
			named[name] = true
			plain.Content = append(plain.Content, merged[i], merged[i+1])
		}
	}
	return &plain
}

// mergedInto is what a merge key adds: the members of an object, or of each
// object of an array.
func mergedInto(n *yaml.Node) (members []*yaml.Node) {
	switch n.Kind {
	case yaml.MappingNode:
		return n.Content
	case yaml.SequenceNode:
		for _, element := range n.Content {
			members = append(members, mergedInto(element)...)
		}
	}
	return members
}

// cursor is a place in a YAML document.
type cursor struct {
	root *yaml.Node
	in   []frame    // arrays and objects, the innermost last
	next *yaml.Node // to be read; nil: was read or refused
}

// frame is an array or object and its element or name that was reached, -1
// before the first.
type frame struct {
	*yaml.Node
	at int
}

func (c *cursor) open() {
	at := -1
	if c.next.Kind == yaml.MappingNode {
		at = -2 // names stand at even places, with their values between them
	}
	c.in = append(c.in, frame{c.next, at})
	c.next = nil
}

func (c *cursor) close() { c.in = c.in[:len(c.in)-1] }

func (c *cursor) another() bool {
	f := &c.in[len(c.in)-1]
	if f.at++; f.Kind == yaml.MappingNode {
		f.at++
	}
	if f.at >= len(f.Content) {
		f.at = -1
		return false
	}
	if c.next = f.Content[f.at]; f.Kind == yaml.MappingNode {
		c.next = f.Content[f.at+1]
	}
	return true
}

// pointer is the place that was reached.
func (c *cursor) pointer() string {
	var p jsontext.Pointer
	for _, f := range c.in {
		switch {
		case f.at < 0:
		case f.Kind == yaml.MappingNode:
			p = p.AppendToken(f.Content[f.at].Value)
		default:
			p = p.AppendToken(strconv.Itoa(f.at))
		}
	}
	return string(p)
}

// line is that of the element or the name that was reached.
func (c *cursor) line() int {
	line := c.root.Line
	for _, f := range c.in {
		if f.at >= 0 {
			line = f.Content[f.at].Line
		}
	}
	return line
}

// Line is the line of the value that was read last, of YAML.
func (r *Reader) Line() int { return r.yaml.line() }

func (r *Reader) yamlKind() Kind {
	n := r.yaml.next
	if n == nil {
		return Nothing
	}
	reason := refused(n)
	switch tag := n.ShortTag(); {
	case reason != "":
		r.yaml.next = nil
		r.Fault("%s", reason)
		return Nothing
	case n.Kind == yaml.SequenceNode:
		return Array
	case n.Kind == yaml.MappingNode:
		return Object
	case tag == "!!null":
		return Null
	case r.o.Loose:
		return String
	case tag == "!!bool":
		return Bool
	case tag == "!!int" || tag == "!!float":
		return Number
	case tag == "!!timestamp":
		return Date
	}
	return String
}

// refused is why a node may not stand where it does.
func refused(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return noAnchors + "write the value out"
	case n.Style&yaml.TaggedStyle != 0:
		return "tags (!) are not allowed; put text that begins so in quotes"
	}
	return ""
}

// yamlName is the name of the member that was reached.
func (r *Reader) yamlName() (name string, ok bool) {
	f := &r.yaml.in[len(r.yaml.in)-1]
	key, at := f.Content[f.at], f.at
	var reason string
	switch {
	case key.Kind != yaml.ScalarNode || refused(key) != "":
		reason = "a name must be plain text"
	case key.ShortTag() == "!!merge":
		reason = "merge keys (<<) are not allowed; write the values out"
	default:
		return key.Value, true
	}
	f.at = -1 // the fault is that of the object
	if !r.faults.Full() {
		r.faults.list = append(r.faults.list, Fault{r.yaml.pointer(), reason, key.Line})
	}
	f.at = at
	return "", false
}

// locate gives faults the lines of their places, or of the nearest around them
// that are there.
func (r *Reader) locate(faults []Fault) {
	if r.json != nil {
		return
	}
	places := make([]place, len(faults))
	for i := range faults {
		f := &faults[i]
		f.Line = r.yaml.root.Line
		places[i] = place{&f.Line, slices.Collect(jsontext.Pointer(f.Pointer).Tokens())}
	}
	locate(r.yaml.root, places)
}

// place is where a line is to be written, and the path from a node on.
type place struct {
	line *int
	path []string
}

// locate writes the lines of places within n.
func locate(n *yaml.Node, places []place) {
	within := map[string][]place{}
	for _, p := range places {
		if len(p.path) > 0 {
			within[p.path[0]] = append(within[p.path[0]], place{p.line, p.path[1:]})
		}
	}
	for i := 0; i < len(n.Content) && len(within) > 0; i++ {
		child := n.Content[i]
		name, value := strconv.Itoa(i), child
		if n.Kind == yaml.MappingNode {
			i++
			name, value = child.Value, n.Content[i]
		}
		if found := within[name]; found != nil {
			for _, p := range found {
				*p.line = child.Line
			}
			delete(within, name)
			locate(value, found)
		}
	}
}
