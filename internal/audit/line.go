package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// MaxLine is the longest record in bytes, newline included.
const MaxLine = 16 << 10

// lineReserve is room for the members that the journal adds.
const lineReserve = 1 << 10

const cutMark = " [cut]"

// TimeFormat is RFC 3339 in UTC with milliseconds: fixed length, sorts as text.
const TimeFormat = "2006-01-02T15:04:05.000Z"

// HashLen is the length of a hash in hex.
const HashLen = 2 * sha256.Size

// FirstPrev is the hash before the first record.
var FirstPrev = strings.Repeat("0", HashLen)

// Each line ends in ,"prev":"<64>","hash":"<64>"}, so that both hashes have a
// fixed distance from its end.
const (
	prevKey    = `,"prev":"`
	hashKey    = `,"hash":"`
	lineHead   = `{"v":1,"seq":`
	hashMember = len(hashKey) + HashLen + len(`"}`)             // from the comma to the end of the line
	lineTail   = len(prevKey) + HashLen + len(`"`) + hashMember // from the comma before prev
)

// AppendLine appends the line of r to dst and sets r.Hash. The entry must have
// been fitted.
func AppendLine(dst []byte, r *Record) []byte {
	start := len(dst)
	dst = strconv.AppendUint(append(dst, lineHead...), r.Seq, 10)
	dst = append(dst, `,"time":"`...)
	dst = append(r.Time.UTC().AppendFormat(dst, TimeFormat), '"')
	dst = appendMember(dst, `,"id":`, r.ID)
	dst = appendMember(dst, `,"node":`, r.Node)
	dst = appendMember(dst, `,"stage":`, string(r.Stage))
	dst = appendMember(dst, `,"category":`, string(r.Category))
	dst = appendMember(dst, `,"action":`, r.Action)
	dst = appendOptional(dst, `,"outcome":`, string(r.Outcome))
	dst = appendOptional(dst, `,"reason":`, r.Reason)
	dst = appendMember(dst, `,"actor":{"type":`, r.Actor.Type)
	dst = appendOptional(dst, `,"id":`, r.Actor.ID)
	dst = appendOptional(dst, `,"via":`, r.Actor.Via)
	dst = append(dst, `},"src":{`...)
	dst = appendOptional(dst, `"ip":`, r.Src.IP)
	if r.Src.IP != "" && r.Src.UserAgent != "" {
		dst = append(dst, ',')
	}
	dst = appendOptional(dst, `"user_agent":`, r.Src.UserAgent)
	dst = appendMember(dst, `},"target":{"type":`, r.Target.Type)
	dst = appendOptional(dst, `,"id":`, r.Target.ID)
	dst = appendOptional(dst, `,"region":`, r.Target.Region)
	dst = appendOptional(dst, `,"model_type":`, r.Target.ModelType)
	dst = append(dst, '}')
	dst = appendOptional(dst, `,"request_id":`, r.RequestID)
	dst = appendOptional(dst, `,"trace_id":`, r.TraceID)
	if r.Before != nil {
		dst = append(append(dst, `,"before":`...), r.Before...)
	}
	if r.After != nil {
		dst = append(append(dst, `,"after":`...), r.After...)
	}
	dst = append(append(append(dst, prevKey...), r.Prev...), `"}`...)
	sum := sha256.Sum256(dst[start:])
	r.Hash = hex.EncodeToString(sum[:])
	dst = append(append(dst[:len(dst)-1], hashKey...), r.Hash...)
	return append(dst, "\"}\n"...)
}

func appendMember(dst []byte, key, value string) []byte {
	return append(appendEscaped(append(append(dst, key...), '"'), value), '"')
}

func appendOptional(dst []byte, key, value string) []byte {
	if value == "" {
		return dst
	}
	return appendMember(dst, key, value)
}

// appendEscaped appends s as a JSON string without control or direction
// characters.
func appendEscaped(dst []byte, s string) []byte {
	for i := 0; i < len(s); {
		r, size := rune(s[i]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s[i:])
		}
		dst = appendRune(dst, r, size, s[i:i+size])
		i += size
	}
	return dst
}

func appendRune(dst []byte, r rune, size int, as string) []byte {
	switch {
	case r == '"' || r == '\\':
		return append(dst, '\\', byte(r))
	case r == '\n':
		return append(dst, `\n`...)
	case r == '\r':
		return append(dst, `\r`...)
	case r == '\t':
		return append(dst, `\t`...)
	case r == utf8.RuneError && size == 1:
		return append(dst, `\ufffd`...)
	case !Hidden(r):
		return append(dst, as...)
	case r > 0xffff:
		r -= 0x10000
		return appendUnit(appendUnit(dst, 0xd800+r>>10), 0xdc00+r&0x3ff)
	}
	return appendUnit(dst, r)
}

const hexDigits = "0123456789abcdef"

func appendUnit(dst []byte, u rune) []byte {
	return append(dst, '\\', 'u', hexDigits[u>>12&15], hexDigits[u>>8&15], hexDigits[u>>4&15], hexDigits[u&15])
}

// Hidden reports whether r is invisible or breaks a line: control and
// formatting characters, U+2028 and U+2029.
func Hidden(r rune) bool {
	if r < 0xa0 {
		return r < 0x20 || r >= 0x7f
	}
	return r >= 0xad && unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)
}

func escapedLen(s string) int {
	var spare [12]byte
	n := 0
	for i := 0; i < len(s); {
		r, size := rune(s[i]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s[i:])
		}
		n += len(appendRune(spare[:0], r, size, s[i:i+size]))
		i += size
	}
	return n
}

// cut shortens s to limit bytes when escaped, with cutMark at its end.
func cut(s string, limit int) string {
	if len(s) <= limit && escapedLen(s) <= limit {
		return s
	}
	var spare [12]byte
	n := 0
	for i := 0; ; {
		r, size := utf8.DecodeRuneInString(s[i:])
		if n += len(appendRune(spare[:0], r, size, s[i:i+size])); n > limit-len(cutMark) {
			return s[:i] + cutMark
		}
		i += size
	}
}

// fit bounds and cleans e. Before and After become compact, or a marker if they
// are no JSON objects. If e is too long they are dropped first, then each text
// is cut.
func (e Entry) fit() Entry {
	e.Before, e.After = cleanObject(e.Before), cleanObject(e.After)
	limits := []struct {
		text *string
		most int
	}{
		{(*string)(&e.Category), 64},
		{&e.Action, 128},
		{(*string)(&e.Outcome), 32},
		{&e.Reason, 4096},
		{&e.Actor.Type, 64},
		{&e.Actor.ID, 1024},
		{&e.Actor.Via, 64},
		{&e.Source.IP, 64},
		{&e.Source.UserAgent, 1024},
		{&e.Target.Type, 64},
		{&e.Target.ID, 1024},
		{&e.Target.Region, 512},
		{&e.Target.ModelType, 512},
		{&e.RequestID, 512},
		{&e.TraceID, 512},
	}
	texts := 0
	for _, l := range limits {
		texts += escapedLen(*l.text)
	}
	if texts+len(e.Before)+len(e.After) > MaxLine-lineReserve {
		e.Before, e.After = dropped(e.Before), dropped(e.After)
	}
	if texts+len(e.Before)+len(e.After) > MaxLine-lineReserve {
		for _, l := range limits {
			*l.text = cut(*l.text, l.most)
		}
	}
	return e
}

func dropped(object json.RawMessage) json.RawMessage {
	if object == nil {
		return nil
	}
	return append(strconv.AppendInt([]byte(`{"cut":true,"bytes":`), int64(len(object)), 10), '}')
}

func cleanObject(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 {
		return nil
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, raw); err != nil || compact.Bytes()[0] != '{' {
		return json.RawMessage(`{"invalid":"not a JSON object"}`)
	}
	return EscapeHidden(compact.Bytes())
}

// EscapeHidden returns compact JSON with its hidden characters escaped.
func EscapeHidden(text []byte) []byte {
	clean := make([]byte, 0, len(text))
	for rest := text; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		if r == '"' || r == '\\' {
			clean = append(clean, rest[0]) // part of the syntax here
		} else {
			clean = appendRune(clean, r, size, string(rest[:size]))
		}
		rest = rest[size:]
	}
	return clean
}

// sumOf computes the hash of a line, which is changed meanwhile and restored.
// The line must be at least lineTail long.
func sumOf(line []byte) [HashLen]byte {
	comma := len(line) - hashMember
	line[comma] = '}'
	sum := sha256.Sum256(line[:comma+1])
	line[comma] = ','
	var text [HashLen]byte
	hex.Encode(text[:], sum[:])
	return text
}

func wholeMilliseconds(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }
