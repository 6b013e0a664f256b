package openai

import (
	"bytes"
	"strings"
)

// others are the members whose values are not the names of models, even if one has such
// a name: those for programs, and what an error repeats of the request's messages.
var others = map[string]bool{
	"type": true, "code": true, "param": true, "object": true, "status": true,
	"role": true, "content": true, "text": true, "prompt": true, "arguments": true,
}

// quotes are what stands around a name within a text.
var quotes = [...]string{"'", "`", `\"`, "’", "”"}

// Rename returns the text of an error, in JSON or as events of it, with one name of a
// model in the place of another: where that is a value of its own, and where it stands
// in quotes within one. Elsewhere it may be a word of the language.
func Rename(text []byte, from, to string) []byte {
	if from == "" || !bytes.Contains(text, []byte(from)) && bytes.IndexByte(text, '\\') < 0 {
		return text
	}
	quoted := appendString(nil, to)
	out, member := make([]byte, 0, len(text)+len(quoted)), ""
	for {
		start := bytes.IndexByte(text, '"')
		if start < 0 {
			return append(out, text...)
		}
		end := endOfString(text, start+1)
		if end < 0 {
			return append(out, text...)
		}
		raw, rest := text[start+1:end], text[end+1:]
		out = append(out, text[:start]...)
		switch {
		case bytes.HasPrefix(bytes.TrimLeft(rest, " \t\r\n"), []byte{':'}):
			member = decoded(text[start : end+1])
			out = append(out, text[start:end+1]...)
		case others[member]:
			out = append(out, text[start:end+1]...)
		case decoded(text[start:end+1]) == from:
			out = append(out, quoted...)
		default:
			out = append(append(append(out, '"'), within(string(raw), from, string(quoted[1:len(quoted)-1]))...), '"')
		}
		text = rest
	}
}

// decoded is the text that a string with its quotes stands for, "" if it is no string.
func decoded(quoted []byte) string {
	c := cursor{b: quoted}
	raw, escaped := c.str()
	if escaped && c.bad == "" {
		return unquote(raw)
	}
	return string(raw)
}

// within replaces a name that stands in quotes within a string's text.
func within(text, from, to string) string {
	for _, q := range quotes {
		if before := opening(q) + from + q; strings.Contains(text, before) {
			text = strings.ReplaceAll(text, before, opening(q)+to+q)
		}
	}
	return text
}

// opening is the quote that goes with a closing one.
func opening(q string) string {
	switch q {
	case "’":
		return "‘"
	case "”":
		return "“"
	}
	return q
}

// endOfString returns where the quote is that ends a string, below 0 if none does.
func endOfString(text []byte, i int) int {
	for ; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}
