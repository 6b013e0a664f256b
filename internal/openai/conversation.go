package openai

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
)

// messages writes messages of chat completions and of Anthropic's form, and the input of
// a response: a text, or items.
func (p *prose) messages(value []byte) {
	if isString(value) && len(value) > len(`""`) {
		p.message("user")
		p.content(value)
	}
	if !begins(value, '[') {
		return
	}
	for list := (checked{b: value}); list.element(); {
		p.item(&list)
	}
}

// item is what is read of a message or of another item of a conversation.
type item struct {
	kind, role, name, content, reasoning, refusal, calls, call, arguments, output, summary []byte
}

func readItem(c *checked) (m item) {
	for {
		name, ok := c.member()
		if !ok {
			return m
		}
		value := c.value()
		switch string(name) {
		case "type":
			m.kind = word(value)
		case "role":
			m.role = value
		case "name":
			m.name = value
		case "content":
			m.content = value
		case "reasoning_content", "reasoning":
			m.reasoning = value
		case "refusal":
			m.refusal = value
		case "tool_calls":
			m.calls = value
		case "function_call":
			m.call = value
		case "arguments":
			m.arguments = value
		case "output":
			m.output = value
		case "summary":
			m.summary = value
		}
	}
}

// item writes one item of a conversation.
func (p *prose) item(c *checked) {
	if c.peek() != '{' {
		p.mark(markMessage)
		p.content(c.value())
		return
	}
	from := c.i
	m := readItem(c)
	switch string(m.kind) {
	case "", "message":
	case "function_call": // of the assistant's message before it
		p.says()
		p.call(m.name, m.arguments)
		return
	case "function_call_output":
		p.message("tool")
		p.content(m.output)
		return
	case "reasoning":
		p.message(assistant)
		p.reasons(m.summary)
		p.reasons(m.content)
		return
	default:
		p.mark(markMessage)
		p.other(c.b[from:c.i])
		p.assistant = false
		return
	}
	p.said(&m)
}

// says begins a message of the assistant, unless one goes on.
func (p *prose) says() {
	if !p.assistant {
		p.message(assistant)
	}
}

// said writes a message with its role.
func (p *prose) said(m *item) {
	if begins(m.content, '[') && string(word(m.role)) == "user" {
		p.asked(m)
		return
	}
	p.begin(m)
	p.some(markReasoning, m.reasoning)
	p.content(m.content)
	p.some(markRefusal, m.refusal)
	for list := (checked{b: m.calls}); begins(m.calls, '[') && list.element(); {
		p.function(list.value())
	}
	if begins(m.call, '{') {
		p.function(m.call)
	}
}

// begin begins a message with its role, and the name of who says it; that of a tool is
// in its call.
func (p *prose) begin(m *item) {
	p.field(markMessage, m.role)
	p.assistant = string(word(m.role)) == assistant
	if isString(m.name) && string(word(m.role)) != "tool" {
		p.field(markField, m.name)
	}
}

// asked writes a user's message of parts. In Anthropic's form results of tools are among
// them: each is a message of its own in the others.
func (p *prose) asked(m *item) {
	begun, results := false, false
	for list := (checked{b: m.content}); list.element(); {
		from := list.i
		part := readPart(&list)
		if string(part.kind) == "tool_result" {
			p.message("tool")
			p.content(part.content)
			begun, results = false, true
			continue
		}
		if !begun {
			p.begin(m)
			begun = true
		}
		p.part(&part, list.b[from:list.i])
	}
	if !begun && !results {
		p.begin(m)
	}
}

// reasons writes the texts of a list of reasons.
func (p *prose) reasons(value []byte) {
	for list := (checked{b: value}); begins(value, '[') && list.element(); {
		p.some(markReasoning, readPart(&list).text)
	}
}

// content writes a text, or the parts of a content. An empty text is none.
func (p *prose) content(value []byte) {
	switch {
	case !given(value):
	case isString(value):
		p.some(markText, value)
	case begins(value, '['):
		for list := (checked{b: value}); list.element(); {
			from := list.i
			part := readPart(&list)
			p.part(&part, list.b[from:list.i])
		}
	default:
		p.other(value)
	}
}

// part is what is read of a part of a content. source is of its picture, sound or file.
type part struct {
	kind, text, name, input, content, thinking, refusal, source []byte
}

func readPart(c *checked) (m part) {
	if c.peek() != '{' {
		m.text = c.value()
		return m
	}
	for {
		name, ok := c.member()
		if !ok {
			return m
		}
		value := c.value()
		switch string(name) {
		case "type":
			m.kind = word(value)
		case "text":
			m.text = value
		case "name":
			m.name = value
		case "input":
			m.input = value
		case "content":
			m.content = value
		case "thinking":
			m.thinking = value
		case "refusal":
			m.refusal = value
		case "image_url", "video_url", "audio_url", "input_audio", "file", "source", "file_data", "file_url", "file_id":
			if given(value) {
				m.source = value
			}
		}
	}
}

// part writes a part of a content.
func (p *prose) part(m *part, value []byte) {
	switch string(m.kind) {
	case "", "text", "input_text", "output_text":
		if isString(m.text) {
			p.content(m.text)
			return
		}
	case "image_url", "video_url", "audio_url", "input_audio", "file", "input_image", "input_file", "image":
		if given(m.source) {
			p.source(m.source)
			return
		}
	case "document":
		if begins(m.source, '{') {
			p.source(m.source)
			return
		}
	case "refusal":
		if isString(m.refusal) {
			p.some(markRefusal, m.refusal)
			return
		}
	case "thinking":
		if isString(m.thinking) {
			p.some(markReasoning, m.thinking)
			return
		}
	case "tool_use":
		p.call(m.name, m.input)
		return
	}
	p.other(value)
}

// source is where a picture, a sound or a file comes from.
type source struct {
	kind, url, data, format, id, content []byte
}

func readSource(value []byte) (m source) {
	for c := (checked{b: value}); ; {
		name, ok := c.member()
		if !ok {
			return m
		}
		value := c.value()
		if !given(value) {
			continue
		}
		switch string(name) {
		case "type":
			m.kind = word(value)
		case "url", "file_data", "file_url":
			m.url = value
		case "data":
			m.data = value
		case "media_type", "format":
			m.format = value
		case "file_id":
			m.id = value
		case "content":
			m.content = value
		}
	}
}

// source writes the hash of a URL: that of data in the request has the data. The text
// itself would be more than the model sees. A document of text is text.
func (p *prose) source(value []byte) {
	if isString(value) {
		p.hashed(nil, value)
		return
	}
	switch m := readSource(value); {
	case string(m.kind) == "text" && isString(m.data):
		p.content(m.data)
	case given(m.content):
		p.content(m.content)
	case isString(m.data):
		p.hashed(m.format, m.data)
	case isString(m.url):
		p.hashed(nil, m.url)
	case isString(m.id):
		p.hashed(nil, m.id)
	default:
		p.other(value)
	}
}

// hashed writes the hash of a URL, or of that which data of a format have.
func (p *prose) hashed(format, value []byte) {
	p.flush()
	w := p.w
	p.w = &p.media
	p.media.Reset()
	if isString(format) {
		p.plain("data:")
		if bytes.IndexByte(format, '/') < 0 {
			p.plain("audio/")
		}
		p.text(format)
		p.plain(";base64,")
	}
	p.text(value)
	p.flush()
	p.data += len(value)
	p.w = w
	p.mark(markMedia)
	p.room(direct)
	p.memory = hex.AppendEncode(p.memory, binary.BigEndian.AppendUint64(nil, p.media.Sum64()))
}

// conversation writes the id of a conversation whose text the head has: by itself, or in
// an object.
func (p *prose) conversation(value []byte) {
	for c := (checked{b: value}); begins(value, '{'); {
		name, ok := c.member()
		if !ok {
			return
		}
		if id := c.value(); string(name) == "id" {
			value = id
		}
	}
	if isString(value) && len(value) > len(`""`) {
		p.mark(markBefore)
		p.field(markField, value)
	}
}

// documents writes what a template puts before the messages.
func (p *prose) documents(value []byte) {
	for list := (checked{b: value}); begins(value, '[') && list.element(); {
		p.mark(markOther)
		p.json(list.value(), 0)
	}
}
