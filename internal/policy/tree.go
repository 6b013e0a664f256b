package policy

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"

	"headway/internal/strict"
)

// Bounds of what a policy document may hold, beyond its size in bytes.
const (
	maxDepth    = 32  // of nested values
	maxNameSize = 256 // bytes of the name of a member
)

// kind is what a value of a document is.
type kind uint8

const (
	kindNone kind = iota // could not be read; the fault is noted
	kindNull
	kindBool
	kindNumber
	kindString
	kindList
	kindObject
)

var kindNames = [...]string{"nothing", "null", "a boolean", "a number", "a string", "an array", "an object"}

func (k kind) String() string { return kindNames[k] }

// node is one value of a document in either format. Objects keep the order of
// their members and have each name once.
type node struct {
	kind   kind
	flag   bool
	number float64
	text   string
	names  []string // of an object's members
	values []*node  // of a list or an object
	line   int      // 1 is the first, 0: not told
}

// tree reads a document into nodes and notes what is wrong with its form.
type tree struct{ faults faultList }

func (t *tree) fault(at *place, line int, format string, args ...any) {
	t.faults.addLine(at, line, format, args...)
}

// member adds a member to an object unless its name is taken or unfit.
func (t *tree) member(n *node, seen map[string]bool, at *place, name string, line int) (ok bool) {
	switch {
	case len(name) > maxNameSize:
		t.fault(at.member(name[:strict.MaxQuoted]), line, "the name %s is longer than %d bytes", strict.Quote(name), maxNameSize)
		return false
	case seen[name]:
		t.fault(at.member(name), line, "the name %s is given twice", strict.Quote(name))
		return false
	}
	seen[name] = true
	n.names = append(n.names, name)
	return true
}

// readJSON reads exactly one JSON value.
func (t *tree) readJSON(data []byte) *node {
	// Duplicate names are found here, so that each is noted.
	d := jsontext.NewDecoder(bytes.NewReader(data), jsontext.AllowDuplicateNames(true))
	n, err := t.jsonValue(d, root, 0)
	if err == nil {
		if _, err = d.ReadToken(); errors.Is(err, io.EOF) {
			return n
		}
		if err == nil {
			err = errors.New("there is more after the end of the document")
		}
	}
	offset := min(d.InputOffset(), int64(len(data)))
	if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		offset = min(max(syntax.ByteOffset, 0), int64(len(data)))
		err = syntax.Err
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	before := data[:offset]
	column := len(before) - bytes.LastIndexByte(before, '\n')
	t.fault(root, 0, "not JSON: line %d, column %d: %s", 1+bytes.Count(before, []byte("\n")), column, cutText(err.Error()))
	return &node{}
}

func (t *tree) jsonValue(d *jsontext.Decoder, at *place, depth int) (*node, error) {
	if depth > maxDepth {
		t.fault(at, 0, "nested deeper than %d levels", maxDepth)
		return &node{}, d.SkipValue()
	}
	token, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	switch token.Kind() {
	case 'n':
		return &node{kind: kindNull}, nil
	case 't', 'f':
		return &node{kind: kindBool, flag: token.Kind() == 't'}, nil
	case '"':
		return &node{kind: kindString, text: token.String()}, nil
	case '0':
		return t.number(token.String(), at, 0), nil
	case '[':
		return t.jsonList(d, at, depth)
	default: // an object; the decoder accepts no end of a value here
		return t.jsonObject(d, at, depth)
	}
}

func (t *tree) jsonList(d *jsontext.Decoder, at *place, depth int) (*node, error) {
	n := &node{kind: kindList}
	for d.PeekKind() != ']' {
		v, err := t.jsonValue(d, at.element(len(n.values)), depth+1)
		if err != nil {
			return nil, err
		}
		n.values = append(n.values, v)
	}
	_, err := d.ReadToken()
	return n, err
}

func (t *tree) jsonObject(d *jsontext.Decoder, at *place, depth int) (*node, error) {
	n, seen := &node{kind: kindObject}, map[string]bool{}
	for d.PeekKind() != '}' {
		token, err := d.ReadToken()
		if err != nil {
			return nil, err
		}
		name := token.String()
		if !t.member(n, seen, at, name, 0) {
			if err := d.SkipValue(); err != nil {
				return nil, err
			}
			continue
		}
		v, err := t.jsonValue(d, at.member(name), depth+1)
		if err != nil {
			return nil, err
		}
		n.values = append(n.values, v)
	}
	_, err := d.ReadToken()
	return n, err
}

// number reads a number as both formats write it in decimal.
func (t *tree) number(text string, at *place, line int) *node {
	v, err := strconv.ParseFloat(text, 64)
	digits := strings.TrimLeft(text, "+-")
	// YAML's versions disagree on what 010, 0x10 and 1_0 are.
	ambiguous := len(digits) > 1 && digits[0] == '0' && digits[1] != '.' || strings.ContainsAny(digits, "_xX")
	if err != nil || ambiguous || math.IsInf(v, 0) || math.IsNaN(v) {
		t.fault(at, line, "want a plain decimal number of finite size, not %s", strict.Quote(text))
		return &node{line: line}
	}
	return &node{kind: kindNumber, number: v + 0, line: line} // + 0 makes -0 of it 0
}

// readYAML reads exactly one YAML document. Anchors, aliases and tags are
// refused: a document says what it says where it says it, and cannot grow.
func (t *tree) readYAML(data []byte) *node {
	d := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	err := d.Decode(&doc)
	switch {
	case errors.Is(err, io.EOF):
		return &node{kind: kindNull}
	case err != nil:
		t.fault(root, 0, "not YAML: %s", cutText(strings.TrimPrefix(err.Error(), "yaml: ")))
		return &node{}
	}
	n := t.yamlValue(doc.Content[0], root, 0)
	var second yaml.Node
	switch err := d.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		t.fault(root, 0, "not YAML: %s", cutText(strings.TrimPrefix(err.Error(), "yaml: ")))
	default:
		t.fault(root, second.Line, "there is a second document; want one")
	}
	return n
}

func (t *tree) yamlValue(y *yaml.Node, at *place, depth int) *node {
	switch {
	case depth > maxDepth:
		t.fault(at, y.Line, "nested deeper than %d levels", maxDepth)
		return &node{line: y.Line}
	case y.Kind == yaml.AliasNode || y.Anchor != "":
		t.fault(at, y.Line, "anchors (&) and aliases (*) are not allowed; write the value out")
		return &node{line: y.Line}
	case y.Style&yaml.TaggedStyle != 0:
		t.fault(at, y.Line, "tags such as %s are not allowed", strict.Quote(y.Tag))
		return &node{line: y.Line}
	case y.Kind == yaml.SequenceNode:
		n := &node{kind: kindList, line: y.Line}
		for i, item := range y.Content {
			n.values = append(n.values, t.yamlValue(item, at.element(i), depth+1))
		}
		return n
	case y.Kind == yaml.MappingNode:
		return t.yamlObject(y, at, depth)
	}
	return t.yamlScalar(y, at)
}

func (t *tree) yamlObject(y *yaml.Node, at *place, depth int) *node {
	n, seen := &node{kind: kindObject, line: y.Line}, map[string]bool{}
	for i := 0; i+1 < len(y.Content); i += 2 {
		key, value := y.Content[i], y.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode || key.Anchor != "" || key.Style&yaml.TaggedStyle != 0:
			t.fault(at, key.Line, "a name must be plain text")
		case key.ShortTag() == "!!merge":
			t.fault(at, key.Line, "merge keys (<<) are not allowed; write the values out")
		case t.member(n, seen, at, key.Value, key.Line):
			n.values = append(n.values, t.yamlValue(value, at.member(key.Value), depth+1))
		}
	}
	return n
}

func (t *tree) yamlScalar(y *yaml.Node, at *place) *node {
	n := &node{line: y.Line}
	switch tag := y.ShortTag(); tag {
	case "!!null":
		n.kind = kindNull
	case "!!bool":
		n.kind, n.flag = kindBool, strings.EqualFold(y.Value, "true")
	case "!!str":
		n.kind, n.text = kindString, y.Value
	case "!!int", "!!float":
		return t.number(y.Value, at, y.Line)
	default: // a date; other tags were refused
		t.fault(at, y.Line, "%s is read as %s; put it in quotes", strict.Quote(y.Value), strings.TrimPrefix(tag, "!!"))
	}
	return n
}

// cutText bounds text that a library composed of the input.
func cutText(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
