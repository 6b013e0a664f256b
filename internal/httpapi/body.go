package httpapi

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"headway/api"
	"headway/internal/apiv1"
)

// buffer holds a request's body, or an answer.
type buffer struct{ b []byte }

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// maxPooled is the largest buffer that is kept: one large body must not stay in
// memory for the sake of small ones.
const maxPooled = 64 << 10

func newBuffer() *buffer {
	buf, _ := buffers.Get().(*buffer)
	buf.b = buf.b[:0]
	return buf
}

func (b *buffer) free() {
	if cap(b.b) <= maxPooled {
		buffers.Put(b)
	}
}

// readBody reads a request's body whole; it is freed with the answer. Compressed
// bodies are refused, so that none can grow.
func (a *answer) readBody(r *http.Request) error {
	if enc := r.Header["Content-Encoding"]; len(enc) > 1 || len(enc) == 1 && !strings.EqualFold(enc[0], "identity") {
		return &apiv1.Problem{Code: api.CodeUnsupportedMedia, Detail: "Content-Encoding: bodies must not be compressed."}
	}
	if ct := r.Header["Content-Type"]; len(ct) > 1 || len(ct) == 1 && ct[0] != jsonType[0] && !isJSON(r.Method, ct[0]) {
		return &apiv1.Problem{Code: api.CodeUnsupportedMedia, Detail: "Content-Type: want application/json."}
	}
	limit := a.route.maxBody
	if r.ContentLength > limit {
		return tooLarge(limit)
	}
	body := io.Reader(r.Body)
	if r.ContentLength < 0 {
		body = http.MaxBytesReader(a, r.Body, limit)
	}
	buf := newBuffer()
	a.body = buf
	if n := int(r.ContentLength); n >= cap(buf.b) {
		buf.b = make([]byte, 0, n+1) // one more, so that the end is seen without growing
	}
	for {
		if len(buf.b) == cap(buf.b) {
			buf.b = append(buf.b, 0)[:len(buf.b)]
		}
		n, err := body.Read(buf.b[len(buf.b):cap(buf.b)])
		buf.b = buf.b[:len(buf.b)+n]
		if err == nil {
			continue
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return bodyProblem(r, err, limit)
	}
}

// isJSON reports whether a body of this type is read as JSON. That includes the
// default of curl -d. It opens nothing to other sites' pages: admit refuses them,
// and a form of this type is percent-encoded, which no JSON object is. A PATCH is a
// merge patch, by that name or as JSON.
func isJSON(method, contentType string) bool {
	t, params, err := mime.ParseMediaType(contentType)
	charset, given := params["charset"]
	return err == nil && (!given || strings.EqualFold(charset, "utf-8")) &&
		(t == "application/json" || t == "application/x-www-form-urlencoded" || method == http.MethodPatch && t == "application/merge-patch+json")
}

func tooLarge(limit int64) *apiv1.Problem {
	return &apiv1.Problem{Code: api.CodeTooLarge, Detail: fmt.Sprintf("The body has more than %d bytes.", limit)}
}

func bodyProblem(r *http.Request, err error, limit int64) *apiv1.Problem {
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return tooLarge(limit)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &apiv1.Problem{Code: api.CodeRequestTimeout, Detail: "The body took too long to come."}
	}
	if _, lost := errors.AsType[net.Error](err); lost || errors.Is(err, io.ErrUnexpectedEOF) || r.Context().Err() != nil {
		return &apiv1.Problem{Code: api.CodeClientGone, Detail: "The client closed the connection within the body."}
	}
	return apiv1.InvalidJSON("", "The body cannot be read: it is not framed as its header says.")
}

// readingOn bounds reading on.
type readingOn struct {
	bytes int
	time  time.Duration
	quiet time.Duration // without a byte
}

var (
	readOnAPI    = readingOn{16 << 20, 5 * time.Second, 500 * time.Millisecond}
	readOnClient = readingOn{1 << 30, 30 * time.Second, 2 * time.Second} // bodies with images are large
)

// readOn reads for a while what is left of the body of a request that was answered. A
// client that sends all before it reads would else find its connection reset and
// the answer lost. HTTP/2 ends the stream, not the connection; and a client that
// expects a 100 has sent nothing yet.
func readOn(w *answer, r *http.Request) {
	if r.Body == nil || r.ContentLength == 0 || r.ProtoMajor > 1 || len(r.Header["Expect"]) > 0 {
		return
	}
	c := http.NewResponseController(w)
	if c.Flush() != nil {
		return
	}
	bounds := readOnAPI
	if w.route.client {
		bounds = readOnClient
	}
	b := make([]byte, 32<<10)
	end := time.Now().Add(bounds.time)
	for left := bounds.bytes; left > 0; {
		quiet := time.Now().Add(bounds.quiet)
		if quiet.After(end) || c.SetReadDeadline(quiet) != nil {
			return
		}
		n, err := r.Body.Read(b)
		if left -= n; err != nil {
			return
		}
	}
}

// writeJSON answers with v.
func writeJSON(w *answer, status int, v any) error {
	body, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	w.Header()["Content-Type"] = jsonType
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
	return nil
}

// writeResult answers 200 with v unless there is an error.
func writeResult(w *answer, v any, err error) error {
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, v)
}

// done answers 204 unless there is an error.
func done(w *answer, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}
