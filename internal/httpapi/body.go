package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"headway/api"
)

// bodies are buffers for request bodies and answers.
var bodies = sync.Pool{New: func() any { return new(buffer) }}

type buffer struct{ b []byte }

// maxPooled is the largest buffer that is kept.
const maxPooled = 64 << 10

func (b *buffer) free() {
	if cap(b.b) <= maxPooled {
		b.b = b.b[:0]
		bodies.Put(b)
	}
}

// readBody reads a request's body whole. Compressed ones are refused, so that
// none can grow.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) (*buffer, error) {
	if enc := r.Header["Content-Encoding"]; len(enc) > 0 && !strings.EqualFold(enc[0], "identity") {
		return nil, &problem{status: http.StatusUnsupportedMediaType, code: api.CodeUnsupportedMedia, detail: "Content-Encoding: bodies must not be compressed."}
	}
	if ct := r.Header["Content-Type"]; len(ct) > 0 && ct[0] != "application/json" {
		if t, _, err := mime.ParseMediaType(ct[0]); err != nil || t != "application/json" || len(ct) > 1 {
			return nil, &problem{status: http.StatusUnsupportedMediaType, code: api.CodeUnsupportedMedia, detail: "Content-Type: want application/json."}
		}
	}
	limit := s.limits.MaxBodyBytes
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	buf, _ := bodies.Get().(*buffer)
	b := buf.b[:0]
	if n := r.ContentLength; n > 0 && int64(cap(b)) <= n {
		b = make([]byte, 0, n+1)
	}
	body := io.Reader(r.Body)
	if r.ContentLength < 0 {
		body = http.MaxBytesReader(w, r.Body, limit)
	}
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if errors.Is(err, io.EOF) {
			buf.b = b
			return buf, nil
		}
		if err != nil {
			buf.b = b
			buf.free()
			if _, large := errors.AsType[*http.MaxBytesError](err); large {
				return nil, tooLarge(limit)
			}
			return nil, &problem{status: http.StatusBadRequest, code: api.CodeInvalidJSON, detail: "The body ended before its time."}
		}
	}
}

func tooLarge(limit int64) *problem {
	return &problem{status: http.StatusRequestEntityTooLarge, code: api.CodeTooLarge, detail: fmt.Sprintf("The body has more than %d bytes.", limit)}
}

// maxDepth is how deeply a body may nest.
const maxDepth = 32

// decode reads a body strictly into v: no unknown, duplicate or differently
// cased fields, no invalid UTF-8, nothing after the value.
func decode(body []byte, v any) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return &problem{status: http.StatusBadRequest, code: api.CodeInvalidJSON, detail: "The body is empty; want a JSON object."}
	}
	if err := checkDepth(body); err != nil {
		return err
	}
	err := json.Unmarshal(body, v, json.RejectUnknownMembers(true))
	if err == nil {
		if body = bytes.TrimSpace(body); body[0] != '{' {
			return &problem{status: http.StatusBadRequest, code: api.CodeInvalidJSON, detail: "The body is not a JSON object."}
		}
		return nil
	}
	return decodeProblem(err)
}

func checkDepth(body []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(body))
	for {
		if _, err := d.ReadToken(); err != nil {
			return nil // json.Unmarshal says it better, or it is the end
		}
		if d.StackDepth() > maxDepth {
			return &problem{
				status: http.StatusBadRequest, code: api.CodeInvalidJSON,
				detail: fmt.Sprintf("The body nests more than %d levels deep.", maxDepth),
				faults: []api.Fault{{Pointer: clip(string(d.StackPointer())), Reason: "nests too deeply"}},
			}
		}
	}
}

// clip bounds what a client sent when it is sent back.
func clip(s string) string {
	if len(s) > 200 {
		return strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}

// decodeProblem says where and why a body cannot be read.
func decodeProblem(err error) error {
	p := &problem{status: http.StatusBadRequest, code: api.CodeInvalidJSON, detail: "The body is not valid JSON."}
	fault := api.Fault{Reason: "is not valid JSON"}
	if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		fault.Pointer = clip(string(syntactic.JSONPointer))
		switch {
		case errors.Is(err, jsontext.ErrDuplicateName):
			p.detail, fault.Reason = "The body has a field twice.", "is there twice"
		case strings.Contains(syntactic.Error(), "UTF-8"):
			fault.Reason = "is not valid UTF-8"
		default:
			fault.Reason = fmt.Sprintf("is not valid JSON near byte %d", syntactic.ByteOffset)
		}
	}
	if semantic, ok := errors.AsType[*json.SemanticError](err); ok {
		p.status, p.code = http.StatusUnprocessableEntity, api.CodeInvalid
		fault.Pointer = clip(string(semantic.JSONPointer))
		if errors.Is(err, json.ErrUnknownName) {
			p.detail, fault.Reason = "The body has a field that is not known.", "is not a known field"
		} else {
			p.detail = "The body has a field of a wrong type."
			fault.Reason = "is of the wrong type or out of range"
			if semantic.GoType != nil {
				fault.Reason = "want " + wanted(semantic.GoType.Kind().String())
			}
		}
	}
	p.faults = []api.Fault{fault}
	if fault.Pointer != "" {
		p.detail = fault.Pointer + " " + fault.Reason + "."
	}
	return p
}

// wanted names a Go kind in the words of JSON.
func wanted(kind string) string {
	switch kind {
	case "string":
		return "a string"
	case "bool":
		return "true or false"
	case "int64", "uint64":
		return "a whole number that fits 64 bits"
	case "float64":
		return "a number"
	case "slice":
		return "an array"
	}
	return "an object"
}

// writeJSON answers with v.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v, json.Deterministic(true), json.FormatNilSliceAsNull(false))
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	w.Header()["Content-Type"] = jsonType
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
	return nil
}
