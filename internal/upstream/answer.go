package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// maxInterim is how many answers 1xx may precede the final one.
const maxInterim = 8

// Response is an answer. The caller closes its body, from one goroutine.
type Response struct {
	Status        int
	Header        http.Header
	ContentLength int64 // -1: unknown
	// Framed is false where only the end of the connection ends the body, so
	// that a head that died looks like one that was done.
	Framed bool
	Early  bool // the request was not sent to its end
	Reused bool
	Body   *Body
}

// header is the header of an answer.
type header struct {
	status int
	fields http.Header // without Transfer-Encoding
	length int64       // of Content-Length; -1: none
	coded  bool        // the body is in chunks
	closes bool        // the head closes the connection after the answer
}

// answer reads up to the end of the header of the final answer.
func (c *conn) answer(method string) (*Response, *Error) {
	for range maxInterim + 1 {
		text, err := c.header()
		if err != nil {
			return nil, c.fail(readKind(err, c.timeout), err)
		}
		h, err := parse(string(text))
		if err != nil {
			return nil, c.fail(Malformed, err)
		}
		_, _ = c.r.Discard(len(text))
		if h.status < 200 {
			continue
		}
		return c.begin(&h, method), nil
	}
	return nil, c.fail(Malformed, fmt.Errorf("over %d interim answers", maxInterim))
}

// begin makes the answer of its header.
func (c *conn) begin(h *header, method string) *Response {
	a := new(struct { // one allocation
		Response
		body Body
	})
	empty := method == http.MethodHead || !hasBody(h.status)
	a.body = Body{c: c, left: h.length, coded: h.coded, ended: empty || h.length == 0}
	if h.coded {
		a.body.left = 0
	}
	// An answer that has no body and announces one may be followed by it, which
	// the next request on the connection would get as its answer.
	a.body.usable = !h.closes && !(empty && (h.coded || h.length > 0))
	a.Response = Response{
		Status: h.status, Header: h.fields, ContentLength: h.length,
		Framed: empty || h.coded || h.length >= 0, Reused: c.reused, Body: &a.body,
	}
	if !hasBody(h.status) && method != http.MethodHead {
		a.ContentLength = 0
	}
	return &a.Response
}

// header waits until the buffer holds a whole header, and returns it with its empty
// line. It stays in the buffer.
func (c *conn) header() ([]byte, error) {
	seen, size := 0, 1
	for {
		got, err := c.r.Peek(size)
		if errors.Is(err, bufio.ErrBufferFull) {
			if len(got) >= maxHeader {
				return nil, fmt.Errorf("the header has over %d bytes", maxHeader)
			}
			c.grow()
			continue
		}
		if err != nil {
			return nil, err
		}
		got, _ = c.r.Peek(c.r.Buffered())
		if end := endOfHeader(got, max(seen-3, 0)); end > 0 {
			return got[:end], nil
		}
		seen = len(got)
		size = seen + 1
	}
}

// grow gives the reader a buffer for the largest header, until the exchange ends.
func (c *conn) grow() {
	buffered, _ := c.r.Peek(c.r.Buffered())
	c.r = bufio.NewReaderSize(io.MultiReader(bytes.NewReader(bytes.Clone(buffered)), c), maxHeader)
}

// endOfHeader returns the length of a header with its empty line, 0 if that is
// not there.
func endOfHeader(b []byte, from int) int {
	for {
		i := bytes.IndexByte(b[from:], '\n')
		if i < 0 {
			return 0
		}
		from += i + 1
		switch rest := b[from:]; {
		case len(rest) > 0 && rest[0] == '\n':
			return from + 1
		case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
			return from + 2
		}
	}
}

// parse reads a header, as strictly as RFC 9112 lets it: what others read
// differently is refused, as a folded line, a space in a name, a control character
// or two ways to frame the body. A bare LF ends a line, as with net/http and nginx.
// The fields are parts of the text.
func parse(text string) (h header, err error) {
	line, rest := cutLine(text)
	minor, err := h.statusLine(line)
	if err != nil {
		return h, err
	}
	lines := min(strings.Count(rest, "\n"), maxHint)
	values := make([]string, 0, lines)
	h.fields, h.length = make(http.Header, lines), -1
	keeps := minor > 0
	for {
		if line, rest = cutLine(rest); line == "" {
			break
		}
		name, value, err := field(line)
		if err != nil {
			return h, err
		}
		switch name {
		case "Connection":
			h.closes = h.closes || names(value, "close")
			keeps = keeps || names(value, "keep-alive")
		case "Content-Length":
			if err := h.lengthIs(value); err != nil {
				return h, err
			}
			if h.fields[name] != nil { // the same once more
				continue
			}
		case "Transfer-Encoding":
			if h.coded || minor == 0 || !strings.EqualFold(value, "chunked") {
				return h, errors.New("the answer has a Transfer-Encoding other than chunked, or has it in HTTP/1.0")
			}
			h.coded = true
			continue
		}
		if same := h.fields[name]; same != nil {
			h.fields[name] = append(same, value)
			continue
		}
		values = append(values, value)
		h.fields[name] = values[len(values)-1 : len(values) : len(values)]
	}
	if h.coded && h.length >= 0 {
		return h, errors.New("the answer has both Content-Length and Transfer-Encoding")
	}
	h.closes = h.closes || !keeps || !h.coded && h.length < 0 && hasBody(h.status)
	return h, nil
}

// maxHint bounds what is made for fields before they are read.
const maxHint = 64

func hasBody(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// cutLine returns the first line, without its end, and what follows.
func cutLine(text string) (line, rest string) {
	line, rest, _ = strings.Cut(text, "\n")
	return strings.TrimSuffix(line, "\r"), rest
}

// statusLine reads the first line, and returns the version behind HTTP/1.
func (h *header) statusLine(line string) (minor int, err error) {
	version, rest, _ := strings.Cut(line, " ")
	code, reason, _ := strings.Cut(rest, " ")
	if version != "HTTP/1.1" && version != "HTTP/1.0" {
		return 0, errors.New("the answer is not of HTTP/1.1")
	}
	if h.status, err = strconv.Atoi(code); err != nil || len(code) != 3 || h.status < 100 || !httpguts.ValidHeaderFieldValue(reason) {
		return 0, errors.New("the status line cannot be read")
	}
	if h.status == http.StatusSwitchingProtocols {
		return 0, errors.New("the status 101 is not allowed here")
	}
	return int(version[len(version)-1] - '0'), nil
}

// field reads one line of a header or a trailer. The name is in canonical form.
func field(line string) (name, value string, err error) {
	name, value, found := strings.Cut(line, ":")
	value = strings.Trim(value, " \t")
	if !found || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
		return "", "", errors.New("the header has a line that is no field")
	}
	return textproto.CanonicalMIMEHeaderKey(name), value, nil
}

// names reports whether a list has a token.
func names(list, token string) bool {
	for one := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(strings.Trim(one, " \t"), token) {
			return true
		}
	}
	return false
}

// lengthIs notes a Content-Length. Others than the first have to agree with it.
func (h *header) lengthIs(value string) error {
	n, err := strconv.ParseUint(value, 10, 63)
	if err != nil || h.length >= 0 && h.length != int64(n) {
		return errors.New("the Content-Length is no number, or there are two")
	}
	h.length = int64(n)
	return nil
}
