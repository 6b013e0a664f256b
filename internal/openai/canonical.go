package openai

import (
	"bytes"
	"cmp"
	"slices"
)

// maxSorted is how many members of an object are put in order; those of a larger one
// stand as they came.
const maxSorted = 512

// member of an object.
type member struct {
	name, raw, value []byte // raw is the name as it stands there
	at               int    // among the members
}

// tools writes the tools that the model may call.
func (p *prose) tools(value []byte) {
	for list := (checked{b: value}); begins(value, '[') && list.element(); {
		tool := list.value()
		p.mark(markTool)
		m := readTool(tool)
		if m.function != nil {
			m = readTool(m.function)
		}
		switch string(m.kind) {
		case "", "function", "custom":
			if isString(m.name) {
				p.text(m.name)
				p.field(markField, m.description)
				p.field(markField, m.schema)
				continue
			}
		}
		p.other(tool)
	}
}

// tool is what is read of a tool, or of a call of one.
type tool struct {
	kind, function, name, description, schema, arguments []byte
}

func readTool(value []byte) (m tool) {
	if !begins(value, '{') {
		return m
	}
	for c := (checked{b: value}); ; {
		name, ok := c.member()
		if !ok {
			return m
		}
		value := c.value()
		switch string(name) {
		case "type":
			m.kind = word(value)
		case "function", "custom":
			if begins(value, '{') {
				m.function = value
			}
		case "name":
			m.name = value
		case "description":
			m.description = value
		case "parameters", "input_schema", "format":
			m.schema = value
		case "arguments", "input":
			m.arguments = value
		}
	}
}

// function writes a call as chat completions have it.
func (p *prose) function(value []byte) {
	m := readTool(value)
	if m.function != nil {
		m = readTool(m.function)
	}
	p.call(m.name, m.arguments)
}

// call writes a call of a tool. Arguments are JSON, also as a text.
func (p *prose) call(name, arguments []byte) {
	p.field(markCall, name)
	if !isString(arguments) {
		p.field(markField, arguments)
		return
	}
	p.decoded = appendUnquoted(p.decoded[:0], inside(arguments))
	if c := (cursor{b: p.decoded}); c.peek() == '{' {
		if object := c.skip(); c.end() {
			p.field(markField, object.Of(p.decoded))
			return
		}
	}
	p.field(markField, arguments)
}

// other writes what is of no known kind, without what says nothing to the model.
func (p *prose) other(value []byte) {
	p.mark(markOther)
	if begins(value, '{') {
		p.object(value, 0, true)
		return
	}
	p.json(value, 0)
}

// json writes JSON in one form: without white space, members in the order of their
// names, in strings the shortest escape of what needs one, and numbers as they came.
func (p *prose) json(value []byte, depth int) {
	switch {
	case depth > maxDepth:
		p.bytes(value)
	case begins(value, '{'):
		p.object(value, depth, false)
	case begins(value, '['):
		p.array(value, depth)
	case isString(value):
		p.quoted(value)
	default:
		p.bytes(value)
	}
}

func (p *prose) array(value []byte, depth int) {
	p.plain("[")
	list := checked{b: value}
	for n := 0; list.element(); n++ {
		if n > 0 {
			p.plain(",")
		}
		p.json(list.value(), depth+1)
	}
	p.plain("]")
}

// unsaid reports whether a member of what is of no known kind says nothing to the model.
func unsaid(name []byte) bool {
	switch string(name) {
	case "id", "call_id", "status", "cache_control":
		return true
	}
	return false
}

func (p *prose) object(value []byte, depth int, known bool) {
	from := len(p.members)
	c := checked{b: value}
	for len(p.members)-from < maxSorted {
		name, ok := c.member()
		if !ok {
			break
		}
		v := c.value()
		if !known || !unsaid(name) {
			p.members = append(p.members, member{name: name, raw: c.name, value: v, at: len(p.members)})
		}
	}
	more := c.peek() == ','
	if !more {
		slices.SortFunc(p.members[from:], func(a, b member) int {
			return cmp.Or(bytes.Compare(a.name, b.name), a.at-b.at)
		})
	}
	p.plain("{")
	n := len(p.members) - from
	for i := range n {
		m := p.members[from+i]
		p.member(m.raw, m.value, i == 0, depth)
	}
	p.members = p.members[:from]
	for more {
		if _, more = c.member(); more {
			name := c.name
			p.member(name, c.value(), n == 0, depth)
		}
	}
	p.plain("}")
}

func (p *prose) member(name, value []byte, first bool, depth int) {
	if !first {
		p.plain(",")
	}
	p.quoted(name)
	p.plain(":")
	p.json(value, depth+1)
}
