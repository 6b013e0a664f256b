package strict

import (
	"math"
	"strconv"
	"strings"
)

// MaxExact is the largest whole number up to which every JSON reader agrees on
// all of them (RFC 8259, section 6).
const MaxExact = 1 << 53

// scalar reads a string, boolean or number.
func (r *Reader) scalar() (text string, ok bool) {
	if r.json == nil {
		text, r.yaml.next = r.yaml.next.Value, nil
		return text, true
	}
	token, err := r.json.ReadToken()
	if err != nil {
		return "", r.fail(err)
	}
	return token.String(), true
}

// Plain reads a value that is neither an array nor an object, and returns the
// text that stands there. The caller knows its kind.
func (r *Reader) Plain() string {
	text, _ := r.scalar()
	return text
}

// Raw reads past a JSON value and returns its text, which is part of the data.
func (r *Reader) Raw() (raw []byte, ok bool) {
	raw, err := r.json.ReadValue()
	if err != nil {
		return nil, r.fail(err)
	}
	return raw, true
}

// Text reads a string and reports whether there was one.
func (r *Reader) Text(to *string) bool {
	if r.Kind() != String {
		r.want("a string")
		return false
	}
	text, ok := r.scalar()
	if ok {
		*to = text
	}
	return ok
}

// Choice reads a string that set takes.
func (r *Reader) Choice(allowed string, set func(string) bool) {
	var text string
	if r.Kind() != String {
		r.want("a string: " + allowed)
	} else if r.Text(&text) && !set(text) {
		r.Fault("want %s", allowed)
	}
}

// Texts reads an array of at most longest strings.
func (r *Reader) Texts(longest int, to *[]string) {
	r.Array(longest, func(int) {
		var s string
		r.Text(&s)
		*to = append(*to, s)
	})
}

// Labels reads an object of strings and keeps at most this many of them.
func (r *Reader) Labels(most int, to *map[string]string) {
	if r.Kind() != Object {
		r.want("an object of strings")
		return
	}
	m := map[string]string{}
	r.Object(func(name string) bool {
		var s string
		if r.Text(&s) && len(m) < most {
			m[name] = s
		}
		return true
	})
	*to = m
}

// Bool reads true or false.
func (r *Reader) Bool(to *bool) {
	if r.Kind() != Bool {
		r.want("true or false")
	} else if text, ok := r.scalar(); ok {
		*to = strings.EqualFold(text, "true")
	}
}

// Decimal reads a number of finite size. In YAML it must be plain: its versions
// disagree on what 010, 0x10 and 1_0 are.
func (r *Reader) Decimal() (v float64, text string, ok bool) {
	if r.Kind() != Number {
		r.want("a number")
		return 0, "", false
	}
	if text, ok = r.scalar(); !ok {
		return 0, "", false
	}
	v, err := strconv.ParseFloat(text, 64)
	digits := strings.TrimLeft(text, "+-")
	ambiguous := r.json == nil && (len(digits) > 1 && digits[0] == '0' && digits[1] != '.' || strings.ContainsAny(digits, "_xX"))
	if err != nil || ambiguous || math.IsInf(v, 0) || math.IsNaN(v) {
		r.Fault("want a plain decimal number of finite size")
		return 0, "", false
	}
	return v + 0, text, true // + 0 makes -0 of it 0
}

// Number reads a number from least to most. Without one it leaves to as it is.
func (r *Reader) Number(to *float64, least, most float64) {
	v, _, ok := r.Decimal()
	switch {
	case !ok:
	case v < least || v > most:
		r.Fault("must be %g to %g", least, most)
	default:
		*to = v
	}
}

// Whole reads a whole number from least to most, in any notation: 12, 12.0 and
// 1.2e1 are the same number in JSON. Without one it leaves to as it is.
func (r *Reader) Whole(to *int64, least, most int64) {
	if r.Kind() != Number {
		r.want("a whole number")
		return
	}
	v, text, ok := r.Decimal()
	if !ok {
		return
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		n = int64(v)
	}
	if math.Abs(v) <= MaxExact && v != math.Trunc(v) {
		r.Fault("want a whole number")
		return
	}
	if math.Abs(v) > MaxExact || n < least || n > most {
		r.Fault("must be %d to %d", least, most)
		return
	}
	*to = n
}

// Any reads a value of any kind, as encoding/json has it in an any.
func (r *Reader) Any() any {
	switch r.Kind() {
	case Null:
		r.Skip()
		return nil
	case Bool:
		var b bool
		r.Bool(&b)
		return b
	case Number:
		v, _, _ := r.Decimal()
		return v
	case Array:
		list := []any{}
		r.Array(0, func(int) { list = append(list, r.Any()) })
		return list
	case Object:
		if m := Map(r, r.Any); m != nil {
			return m
		}
		return map[string]any{}
	}
	var text string
	r.Text(&text)
	return text
}

// Map reads an object whose names are free; it is nil when there is none and
// when it is empty.
func Map[V any](r *Reader, read func() V) (m map[string]V) {
	r.Object(func(name string) bool {
		if m == nil {
			m = map[string]V{}
		}
		m[name] = read()
		return true
	})
	return m
}

// Quoted reads a JSON string and returns it as it stands there, in quotes: a part of the
// data.
func (r *Reader) Quoted() (raw []byte, ok bool) {
	if r.Kind() != String {
		r.want("a string")
		return nil, false
	}
	return r.Raw()
}
