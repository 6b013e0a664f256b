package upstream

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

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
