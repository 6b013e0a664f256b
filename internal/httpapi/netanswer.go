package httpapi

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"headway/api"
	"headway/internal/apiv1"
	"headway/internal/openai"
)

// asked is what a connection's last request asked for: its errors that net/http answers
// itself have the form of that. Reads and those writes take turns.
type asked struct {
	client bool     // it is the data plane in any case
	target [16]byte // the beginning of the path, as it was sent
}

// longestMethod is that of the methods that are known, in bytes.
const longestMethod = len("OPTIONS")

// note looks at what was read, for the beginning of a request. Where net/http had read
// its first byte before, the rest of it looks the same.
func (a *asked) note(b []byte) {
	space := bytes.IndexByte(b[:min(len(b), longestMethod+1)], ' ')
	if space < 0 || space+1 == len(b) || b[space+1] != '/' {
		return
	}
	for _, c := range b[:space] {
		if c < 'A' || c > 'Z' {
			return
		}
	}
	clear(a.target[copy(a.target[:], b[space+1:]):])
}

// form is whether the data plane was asked, and in which dialect.
func (a *asked) form() (client bool, d openai.Dialect) {
	path, _, _ := strings.Cut(string(bytes.TrimRight(a.target[:], "\x00")), " ")
	path, _, _ = strings.Cut(path, "?")
	return a.client || ofDataPlane(path), openai.DialectOf(path)
}

// answerTo is the answer, with its header, to what net/http has refused before it was
// a request. detail may begin with the status and its text.
func answerTo(to *asked, code int, detail string) []byte {
	text := http.StatusText(code)
	reason := strings.TrimPrefix(strings.TrimPrefix(detail, strconv.Itoa(code)+" "+text), ": ")
	switch code {
	case http.StatusRequestHeaderFieldsTooLarge:
		reason = "the header is longer than http.max_header_bytes allows"
	case http.StatusExpectationFailed:
		reason = "the only Expect that is known is 100-continue"
	}
	p := apiv1.Problem{Code: api.CodeMalformed, Detail: "The request cannot be read: " + cmp.Or(reason, "it does not follow RFC 9112") + "."}
	id, kind := newRequestID(), problemType[0]
	var encoded []byte
	if client, dialect := to.form(); client {
		kind = jsonType[0]
		encoded = (&openai.Error{Status: code, Code: p.Code, Message: p.Detail}).Append(nil, dialect, id)
	} else {
		body := p.Answer()
		body.Status, body.RequestID = code, id
		encoded = append(apiv1.Encode(body), '\n')
	}
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Length: %d\r\nContent-Type: %s\r\nDate: %s\r\nX-Request-Id: %s\r\n\r\n%s",
		code, text, len(encoded), kind, time.Now().UTC().Format(http.TimeFormat), id, encoded)
}
