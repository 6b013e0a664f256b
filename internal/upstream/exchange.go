package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// maxInterim is how many answers 1xx may precede the final one.
const maxInterim = 8

// Call is one request. It is not changed, and may be used again after Do.
type Call struct {
	Endpoint string // of the head: http[s]://host[:port], from where Host and the TLS name come
	Method   string
	Path     string  // and query, as they are sent
	Header   []Field // without those of the connection and of the body's framing
	Body     [][]byte
	Stream   io.Reader // of what follows Body, read as the head takes it; nil: nothing. Such a call is never repeated
	Length   int64     // of Stream, -1: unknown
	Limits   Limits    // zero: those of Options
	Since    time.Time // from when Limits.Total counts; zero: from Do on
	Once     bool      // a head that has read some of it must not get it again: it is not idempotent

	// Silence, if set, is called by the goroutine of the exchange before each
	// wait for the head, and again within it at the time that it returns, which
	// has to be ahead. An error ends the exchange as if the caller's context had.
	Silence func() (next time.Time, err error)
}

// Field is one line of a header.
type Field struct{ Name, Value string }

// own are the fields that Do writes itself or does not support.
var own = []string{"host", "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "upgrade", "te", "trailer", "expect"}

func (call *Call) check() error {
	if !httpguts.ValidHeaderFieldName(call.Method) || call.Method == http.MethodConnect {
		return errors.New("the method is not valid")
	}
	if !strings.HasPrefix(call.Path, "/") || strings.ContainsFunc(call.Path, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return errors.New("the path has to start with a slash, without spaces and control characters")
	}
	for _, f := range call.Header {
		if !httpguts.ValidHeaderFieldName(f.Name) || !httpguts.ValidHeaderFieldValue(f.Value) {
			return fmt.Errorf("the header %q is not valid", f.Name)
		}
		for _, name := range own {
			if len(name) == len(f.Name) && strings.EqualFold(name, f.Name) {
				return fmt.Errorf("the header %s belongs to the connection", name)
			}
		}
	}
	return nil
}

// Response is an answer. The caller closes its body, from one goroutine.
type Response struct {
	Status        int
	Header        http.Header
	ContentLength int64 // -1: unknown
	// Framed is false where only the end of the connection ends the body, so
	// that a head that died looks like one that was done.
	Framed bool
	Reused bool
	Body   *Body
}

// Body is the body of an answer.
type Body struct {
	c      *conn
	answer *http.Response
	usable bool // by the answer's header
	ended  bool
	failed *Error
	closed bool
	again  []byte // is read first
}

// Unread puts back what was read: it is read again first. The body keeps p.
func (b *Body) Unread(p []byte) { b.again = append(p, b.again...) }

// What http.ReadResponse has to know of a request.
var headRequest, otherRequest = &http.Request{Method: http.MethodHead}, &http.Request{Method: http.MethodPost}

// answer reads up to the end of the header of the final answer.
func (c *conn) answer(method string) (*Response, *Error) {
	request := otherRequest
	if method == http.MethodHead {
		request = headRequest
	}
	for range maxInterim + 1 {
		framing, err := c.header()
		if err != nil {
			return nil, c.fail(readKind(err, c.timeout), err)
		}
		answer, err := http.ReadResponse(c.r, request) //nolint:bodyclose // Body.Close ends the connection, without reading on
		if err == nil {
			err = framing.refused(answer)
		}
		if err != nil {
			return nil, c.fail(Malformed, err)
		}
		if answer.StatusCode < 200 {
			continue
		}
		chunked := len(answer.TransferEncoding) > 0
		empty := method == http.MethodHead || answer.StatusCode == http.StatusNoContent || answer.StatusCode == http.StatusNotModified
		b := &Body{c: c, answer: answer, ended: answer.Body == http.NoBody}
		// An answer that has no body and announces one may be followed by it, which
		// the next request on the connection would get as its answer.
		b.usable = !answer.Close && !(empty && (chunked || answer.Header.Get("Content-Length") > "0"))
		return &Response{
			Status: answer.StatusCode, Header: answer.Header, ContentLength: answer.ContentLength,
			Framed: empty || chunked || answer.ContentLength >= 0, Reused: c.reused, Body: b,
		}, nil
	}
	return nil, c.fail(Malformed, fmt.Errorf("over %d interim answers", maxInterim))
}

// Read returns io.EOF at the end, or an *Error.
func (b *Body) Read(p []byte) (int, error) {
	switch {
	case len(b.again) > 0:
		n := copy(p, b.again)
		b.again = b.again[n:]
		return n, nil
	case b.failed != nil:
		return 0, b.failed
	case b.ended:
		return 0, io.EOF
	case b.closed:
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.answer.Body.Read(p)
	switch {
	case err == io.EOF:
		b.ended = true
	case err != nil:
		b.failed = b.c.fail(readKind(err, b.c.timeout), err)
		return n, b.failed
	}
	return n, err
}

// Wait returns when there is something to read, or Read has an error to tell: until
// then the caller need not hold memory to read into.
func (b *Body) Wait() {
	if len(b.again) > 0 || b.failed != nil || b.ended || b.closed {
		return
	}
	if _, err := b.c.r.Peek(1); err != nil && err != io.EOF {
		b.failed = b.c.fail(readKind(err, b.c.timeout), err)
	}
}

// Close ends the exchange. The connection is kept if the body was read to its
// end and the head keeps it too, else it is closed.
func (b *Body) Close() error {
	if !b.closed {
		b.closed = true
		b.c.done(b.usable && b.ended && b.failed == nil)
	}
	return nil
}

// framing is what http.ReadResponse leaves out of a header.
type framing struct{ length, coded bool }

func (f framing) refused(a *http.Response) error {
	switch {
	case a.ProtoMajor != 1 || a.ProtoMinor > 1:
		return fmt.Errorf("the version %q is not HTTP/1.1", a.Proto)
	case a.StatusCode < 100 || a.StatusCode == http.StatusSwitchingProtocols:
		return fmt.Errorf("the status %d is not allowed here", a.StatusCode)
	case f.length && f.coded:
		return errors.New("the answer has both Content-Length and Transfer-Encoding")
	case f.coded && a.ProtoMinor == 0:
		return errors.New("the answer has Transfer-Encoding in HTTP/1.0")
	}
	return nil
}

// header waits until the buffer holds a whole header, and checks it more
// strictly than http.ReadResponse: a NUL, a CR within a line, a folded line and
// a space in a name are refused, since others read them differently. A bare LF
// ends a line, as with net/http and nginx.
func (c *conn) header() (framing, error) {
	seen, size := 0, 1
	for {
		got, err := c.r.Peek(size)
		if errors.Is(err, bufio.ErrBufferFull) {
			if len(got) >= maxHeader {
				return framing{}, fmt.Errorf("the header has over %d bytes", maxHeader)
			}
			c.grow()
			continue
		}
		if err != nil {
			return framing{}, err
		}
		got, _ = c.r.Peek(c.r.Buffered())
		if end := endOfHeader(got, max(seen-3, 0)); end > 0 {
			return frame(got[:end])
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

func frame(header []byte) (f framing, err error) {
	if bytes.IndexByte(header, 0) >= 0 {
		return f, errors.New("the header has a NUL")
	}
	for first := true; ; first = false {
		line, rest, _ := bytes.Cut(header, []byte{'\n'})
		line = bytes.TrimSuffix(line, []byte{'\r'})
		header = rest
		if len(line) == 0 {
			return f, nil
		}
		if bytes.IndexByte(line, '\r') >= 0 {
			return f, errors.New("the header has a CR within a line")
		}
		if first {
			continue
		}
		name, _, found := bytes.Cut(line, []byte{':'})
		if !found || bytes.ContainsAny(name, " \t") {
			return f, errors.New("the header has a line without a name")
		}
		f.length = f.length || bytes.EqualFold(name, []byte("Content-Length"))
		f.coded = f.coded || bytes.EqualFold(name, []byte("Transfer-Encoding"))
	}
}
