package openai

import (
	"bytes"
	"mime"
	"net/http"
	"strconv"
	"strings"
)

const (
	maxParts      = 1000    // of a form
	maxPartHeader = 8 << 10 // bytes of the header of a part
)

// ScanMultipart reads a body of multipart/form-data, which must stand in memory
// as one, by its Content-Type. Only the parts "model" and "stream" are read; no
// name of these may stand twice or in another case. The body is checked against
// forms that readers take apart differently: text before the first or behind
// the last boundary, a boundary with more behind it, folded headers, a second
// Content-Disposition, escaped names. Empty lines are no text: some clients begin
// with one, and the OpenAI library for Node before version 5 ends with one. The
// error is 400, or 415 for another Content-Type.
func ScanMultipart(body []byte, contentType string, r *Request) *Error {
	*r = Request{form: Multipart}
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil || kind != "multipart/form-data" || strings.Contains(strings.ToLower(contentType), "boundary*") {
		return &Error{Status: http.StatusUnsupportedMediaType, Message: "Unsupported content type. This method takes multipart/form-data"}
	}
	boundary := params["boundary"]
	if !goodBoundary(boundary) {
		return form("the boundary must have 1 to 70 of the characters that RFC 2046 allows")
	}
	delimiter := []byte("\r\n--" + boundary)
	if len(body) == 0 {
		return emptyBody()
	}
	i := len(delimiter)
	switch {
	case bytes.HasPrefix(body, delimiter):
	case bytes.HasPrefix(body, delimiter[2:]):
		i -= 2
	default:
		return form("the body must begin with the boundary")
	}
	known := names{list: topNames[:2]}
	for range maxParts {
		rest := body[i:]
		if bytes.HasPrefix(rest, []byte("--")) {
			if len(bytes.Trim(rest[2:], "\r\n")) > 0 {
				return form("there is text behind the last boundary")
			}
			if r.model == (Span{}) {
				return noModel()
			}
			return nil
		}
		if !bytes.HasPrefix(rest, []byte("\r\n")) {
			return form("there is text behind a boundary")
		}
		// A header ends at an empty line; a part without a header begins with one.
		head := bytes.Index(rest[:min(len(rest), maxPartHeader)], []byte("\r\n\r\n"))
		if head < 0 {
			return form("the header of a part has no end")
		}
		name, file, fault := disposition(rest[2:max(head, 2)])
		if fault != "" {
			return form(fault)
		}
		start := i + head + 4
		length := bytes.Index(body[start-2:], delimiter) - 2 // below 0 where the boundary has no line end of its own
		if length < 0 {
			return form("a part has no end")
		}
		if err := r.part(&known, name, file, body, Span{start, start + length}); err != nil {
			return err
		}
		i = start + length + len(delimiter)
	}
	return form("there are too many parts")
}

func form(why string) *Error {
	return &Error{Status: http.StatusBadRequest, Message: "The body is not a valid form: " + why}
}

func (r *Request) part(known *names, name string, file bool, body []byte, at Span) *Error {
	which, fault := known.which([]byte(name))
	refuse := func(why string) *Error {
		return &Error{Status: http.StatusBadRequest, Param: known.list[which], Message: "'" + known.list[which] + "' " + why}
	}
	value := at.Of(body)
	switch {
	case fault != "":
		return refuse(fault)
	case which < 0:
		return nil
	case file:
		return refuse("must not be a file")
	case field(which) == fModel:
		if len(value) == 0 || len(value) > MaxModel || !printable(value) {
			return refuse("must have 1 to " + strconv.Itoa(MaxModel) + " bytes of text")
		}
		r.Model, r.model = string(value), at
	default:
		v, err := strconv.ParseBool(string(value[:min(len(value), 8)]))
		if err != nil {
			return refuse("must be true or false")
		}
		r.Stream = v
	}
	return nil
}

func goodBoundary(s string) bool {
	const others = "'()+_,-./:=? "
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && strings.IndexByte(others, c) < 0 {
			return false
		}
	}
	return s != "" && len(s) <= 70 && s[len(s)-1] != ' '
}

// disposition returns the name of a part, and whether it is a file.
func disposition(header []byte) (name string, file bool, fault string) {
	found := false
	for line := range strings.SplitSeq(string(header), "\r\n") {
		key, value, ok := strings.Cut(line, ":")
		switch {
		case strings.ContainsAny(line, "\r\n\x00"), !ok, key == "", strings.ContainsAny(key, " \t"):
			return "", false, "a line of a part's header is malformed"
		case strings.EqualFold(key, "Content-Transfer-Encoding"):
			if v := strings.ToLower(strings.TrimSpace(value)); v != "binary" && v != "8bit" && v != "7bit" {
				return "", false, "a part has a Content-Transfer-Encoding"
			}
			continue
		case !strings.EqualFold(key, "Content-Disposition"):
			continue
		case found:
			return "", false, "a part has two Content-Dispositions"
		}
		found = true
		if name, file, ok = dispositionValue(value); !ok {
			return "", false, "the Content-Disposition of a part is malformed"
		}
	}
	if !found {
		return "", false, "a part has no Content-Disposition"
	}
	return name, file, ""
}

// dispositionValue reads `form-data; name="…"; filename="…"`. A name has no
// escape: readers differ in what they make of one.
func dispositionValue(s string) (name string, file, ok bool) {
	kind, s, _ := strings.Cut(strings.TrimSpace(s), ";")
	if !strings.EqualFold(strings.TrimSpace(kind), "form-data") {
		return "", false, false
	}
	named := false
	for s = strings.TrimSpace(s); s != ""; {
		key, rest, cut := strings.Cut(s, "=")
		if !cut {
			return "", false, false
		}
		var value string
		if strings.HasPrefix(rest, `"`) {
			end := 1
			for end < len(rest) && rest[end] != '"' {
				if rest[end] == '\\' {
					end++
				}
				end++
			}
			if end >= len(rest) {
				return "", false, false
			}
			value, rest = rest[1:end], strings.TrimSpace(rest[end+1:])
			if rest != "" && rest[0] != ';' {
				return "", false, false
			}
			rest = strings.TrimPrefix(rest, ";")
		} else {
			value, rest, _ = strings.Cut(rest, ";")
			value = strings.TrimSpace(value)
		}
		switch key = strings.ToLower(strings.TrimSpace(key)); key {
		case "name":
			if named || strings.Contains(value, `\`) {
				return "", false, false
			}
			name, named = value, true
		case "filename", "filename*":
			file = true
		default:
			return "", false, false
		}
		s = strings.TrimSpace(rest)
	}
	return name, file, named
}
