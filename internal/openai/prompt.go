package openai

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/bits"
	"sync"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
)

// The canonical text of a prompt is what hashes of prompts are made of: the same for
// the same conversation in any form of the API, in any order of members and with any
// white space and escapes; and another for another one. That of the first messages is the
// beginning of that of all. docs/prompts.md describes it for other languages.
//
// It is UTF-8 with marks, bytes that never occur in UTF-8, before each part. Tools come
// first, then what the system says, then messages, as engines put them together.
const (
	markMessage   = 0xff // the role follows, and behind markField the name
	markText      = 0xfe
	markMedia     = 0xfd // a hash of a picture, a sound or a file follows
	markCall      = 0xfc // the name of a tool, markField, and the arguments follow
	markReasoning = 0xfb
	markRefusal   = 0xfa
	markOther     = 0xf9 // JSON follows
	markTool      = 0xf8 // name, markField, description, markField, and schema follow
	markField     = 0xf7
	markTokens    = 0xf6 // a list of numbers follows
	markBefore    = 0xf5 // the id of a response follows, or markField and that of a conversation, whose text is not here
)

// prose writes one canonical text. It is used again.
type prose struct {
	w         io.Writer
	assistant bool // the last message is the assistant's
	memory    []byte
	decoded   []byte // a string that may be JSON
	members   []member
	media     xxhash.Digest
	data      int // bytes of it
}

const proseMemory = 4 << 10

var proses = sync.Pool{New: func() any { return &prose{memory: make([]byte, 0, proseMemory)} }}

// WriteText writes the canonical text of the prompt to w, whose errors are passed over.
// The body must be the one that was scanned, of an endpoint that Generates. What w gets
// is valid during its call alone, and nothing of it is kept. It returns how many bytes of
// the prompt in the body are data of pictures, sounds and files, and so no text.
func (r *Request) WriteText(body []byte, w io.Writer) (data int) {
	p, _ := proses.Get().(*prose)
	p.w, p.assistant, p.data = w, false, 0
	part := func(at int) []byte { return r.Prompt[at].Of(body) }
	p.tools(part(PartTools))
	if before := part(PartBefore); isString(before) {
		p.field(markBefore, before)
	}
	p.conversation(part(PartConversation))
	p.system(part(PartSystem))
	p.system(part(PartInstructions))
	p.documents(part(PartDocuments))
	p.messages(part(PartMessages))
	p.messages(part(PartInput))
	p.raw(part(PartPrompt))
	p.flush()
	data = p.data
	p.forget()
	proses.Put(p)
	return data
}

// WritePlain writes the canonical text of a prompt that no template changes: what stands
// between the quotes of a valid JSON string.
func WritePlain(raw []byte, w io.Writer) {
	p, _ := proses.Get().(*prose)
	p.w = w
	p.string(raw, false)
	p.flush()
	p.forget()
	proses.Put(p)
}

// forget takes the text out of the memory that is kept.
func (p *prose) forget() {
	const most = 64 << 10 // bytes
	clear(p.memory[:cap(p.memory)])
	clear(p.decoded[:cap(p.decoded)])
	clear(p.members[:cap(p.members)])
	p.w, p.decoded, p.members = nil, p.decoded[:0], p.members[:0]
	p.media.Reset()
	if cap(p.decoded) > most {
		p.decoded = nil
	}
	if cap(p.members) > 2*maxSorted {
		p.members = nil
	}
}

func (p *prose) mark(b byte) {
	p.room(1)
	p.memory = append(p.memory, b)
}

// room makes room in the memory for n bytes, which are at most direct.
func (p *prose) room(n int) {
	if len(p.memory)+n > proseMemory {
		p.flush()
	}
}

// direct is the length of the shortest text that is written without a copy.
const direct = 256

func (p *prose) bytes(b []byte) {
	if len(b) > direct {
		p.flush()
		_, _ = p.w.Write(b)
		return
	}
	p.room(len(b))
	p.memory = append(p.memory, b...)
}

// flush writes what is gathered in the memory.
func (p *prose) flush() {
	if len(p.memory) > 0 {
		_, _ = p.w.Write(p.memory)
		p.memory = p.memory[:0]
	}
}

// field writes a mark and a value: what a string means, or other JSON.
func (p *prose) field(mark byte, value []byte) {
	p.mark(mark)
	switch {
	case isString(value):
		p.text(value)
	case given(value):
		p.json(value, 0)
	}
}

// some writes a mark and a text, unless it is empty, which is none.
func (p *prose) some(mark byte, value []byte) {
	if isString(value) && len(value) > len(`""`) {
		p.field(mark, value)
	}
}

// text writes what a string means.
func (p *prose) text(value []byte) { p.string(inside(value), false) }

// quoted writes a string as JSON.
func (p *prose) quoted(value []byte) {
	p.plain(`"`)
	p.string(inside(value), true)
	p.plain(`"`)
}

// string writes what stands between the quotes of a string: what it means, or with the
// escapes that JSON needs.
func (p *prose) string(raw []byte, escapes bool) {
	for {
		slash := bytes.IndexByte(raw, '\\')
		if slash < 0 {
			p.bytes(raw)
			return
		}
		p.bytes(raw[:slash])
		p.room(direct)
		if raw = raw[slash:]; !escapes {
			raw = p.dense(raw)
			continue
		}
		at := len(p.memory)
		p.memory, raw = appendEscaped(p.memory, raw)
		p.memory = escapeLast(p.memory, at)
	}
}

// simple is what an escape of one letter means, 0 of others.
var simple = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// dense decodes an escape and what follows, up to where escapes are rare, eight bytes at
// a time, and returns the rest.
func (p *prose) dense(raw []byte) []byte {
	const rare = 64 // bytes without one
	to, n := p.memory[:cap(p.memory)], len(p.memory)
	for plain := 0; plain < rare && n+8 <= len(to); plain += 8 {
		if len(raw) >= 8 {
			x := binary.LittleEndian.Uint64(raw)
			binary.LittleEndian.PutUint64(to[n:], x)
			x ^= ones * '\\'
			slash := (x - ones) &^ x & highs
			if slash == 0 {
				raw, n = raw[8:], n+8
				continue
			}
			at := bits.TrailingZeros64(slash) / 8
			raw, n, plain = raw[at:], n+at, 0
		}
		if len(raw) == 0 || raw[0] != '\\' || n+utf8.UTFMax > len(to) {
			break
		}
		if len(raw) > 1 && simple[raw[1]] != 0 {
			to[n] = simple[raw[1]]
			raw, n = raw[2:], n+1
			continue
		}
		var text []byte
		text, raw = appendEscaped(to[:n], raw)
		n = len(text)
	}
	p.memory = to[:n]
	return raw
}

// escapeLast escapes what stands at the end of a text from at on, if JSON needs it.
func escapeLast(text []byte, at int) []byte {
	switch ch := text[at]; {
	case ch == '"' || ch == '\\':
		return append(text[:at], '\\', ch)
	case ch >= ' ':
		return text
	default:
		if i := bytes.IndexByte([]byte("\b\f\n\r\t"), ch); i >= 0 {
			return append(text[:at], '\\', "bfnrt"[i])
		}
		const digits = "0123456789abcdef"
		return append(text[:at], '\\', 'u', '0', '0', digits[ch>>4], digits[ch&0xf])
	}
}

// system writes what is said by the system in a member of its own.
func (p *prose) system(value []byte) {
	if !given(value) || string(value) == `""` || string(value) == "[]" {
		return
	}
	p.message("system")
	p.content(value)
}

func (p *prose) message(role string) {
	p.mark(markMessage)
	p.plain(role)
	p.assistant = role == assistant
}

const assistant = "assistant"

// plain writes a short text of ours.
func (p *prose) plain(text string) {
	p.room(len(text))
	p.memory = append(p.memory, text...)
}

// raw writes what a template does not change: one text, or several, or tokens.
func (p *prose) raw(value []byte) {
	switch {
	case isString(value):
		p.text(value)
	case begins(value, '{'):
		p.field(markOther, value)
	}
	list := checked{b: value}
	for n := 0; begins(value, '[') && list.element(); n++ {
		switch text := list.value(); {
		case begins(text, '['):
			p.mark(markTokens)
			p.compact(text)
		case !isString(text): // all are tokens
			p.mark(markTokens)
			p.compact(value)
			return
		default:
			if n > 0 {
				p.mark(markField)
			}
			p.text(text)
		}
	}
}

// compact writes a list of numbers without its end and without white space, so that a
// list that continues it begins alike.
func (p *prose) compact(list []byte) {
	for _, ch := range list[:len(list)-1] {
		if ch > ' ' {
			p.mark(ch)
		}
	}
}
