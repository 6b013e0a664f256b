package mockhead

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// ServeHTTP records a request and serves it, or meets it with a fault.
func (h *Head) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.recorder.mu.Lock()
	h.recorder.count++
	record := h.recorder.limit > 0
	h.recorder.mu.Unlock()
	i := h.faults.ofRequest(r.URL.Path)
	if record || i != nil {
		h.receive(w, r)
	}
	if i == nil {
		h.mux.ServeHTTP(w, r)
		return
	}
	b := &breaker{ResponseWriter: w, head: h, injection: i, fault: i.fault, r: r}
	defer func() {
		// A clean end from the middle of an answer.
		if v := recover(); v != nil && v != any(endHere{}) {
			panic(v)
		}
	}()
	b.serve() //nolint:contextcheck // an endless header ends with the head
}

// breaker writes one answer with a fault.
type breaker struct {
	http.ResponseWriter
	head      *Head
	injection *Injection
	fault     Fault
	r         *http.Request
	events    int
	done      bool   // the fault has happened
	held      []byte // of a stream in one write
	written   bool
}

// endHere is the panic that ends a handler whose answer stays as it is.
type endHere struct{}

func (b *breaker) serve() {
	f := b.fault
	switch f.Kind {
	case ResetRequest:
		b.hijack().reset()
		panic(http.ErrAbortHandler)
	case Garbage:
		c := b.hijack()
		_, _ = io.WriteString(c, cmp.Or(f.Body, "\x16\x03\x01\x00 no HTTP at all\r\n\r\n"))
		_ = c.Close()
		panic(http.ErrAbortHandler)
	case EndlessHeader:
		b.endlessHeader()
	case Status:
		b.status()
	case Redirect:
		b.Header().Set("Location", f.Location)
		b.ResponseWriter.WriteHeader(http.StatusTemporaryRedirect)
	case StallHeaders:
		b.wait()
		b.head.mux.ServeHTTP(b.ResponseWriter, b.r)
	case ShortBody, LongBody:
		b.wrongLength()
	case Usage:
		ctx := context.WithValue(b.r.Context(), usageKey{}, f.Form)
		b.head.mux.ServeHTTP(b.ResponseWriter, b.r.WithContext(ctx))
	default:
		b.head.mux.ServeHTTP(b, b.r)
		b.finish()
	}
}

type usageKey struct{}

// hijack takes the connection from the server, after what was written.
func (b *breaker) hijack() *conn {
	c, _, err := http.NewResponseController(b.ResponseWriter).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // the client has left
	}
	own := ofDoor(c)
	_ = own.SetDeadline(time.Time{})
	return own
}

// wait is silent for the fault's time.
func (b *breaker) wait() {
	var over <-chan time.Time
	if d := b.fault.duration(); d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-over:
	case <-b.injection.removed:
	case <-b.injection.healed:
	case <-b.r.Context().Done():
		panic(http.ErrAbortHandler)
	}
}

func (b *breaker) endlessHeader() {
	c := b.hijack()
	stop := context.AfterFunc(b.head.running, func() { _ = c.Close() })
	defer stop()
	defer func() { _ = c.Close() }()
	_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n")
	line := "X-Filler: " + strings.Repeat("a", 1000) + "\r\n"
	for n := 0; err == nil && n < maxLongLine; n += len(line) {
		_ = c.SetWriteDeadline(time.Now().Add(writeTimeout))
		_, err = io.WriteString(c, line)
	}
	panic(http.ErrAbortHandler)
}

func (b *breaker) status() {
	f, w := b.fault, b.ResponseWriter
	if f.RetryAfter != "" {
		w.Header().Set("Retry-After", string(f.RetryAfter))
	}
	if f.Body != "" {
		w.WriteHeader(f.Status)
		_, _ = io.WriteString(w, f.Body) // the client may have left
		return
	}
	refuse := writeError
	if strings.HasPrefix(b.r.URL.Path, "/v1/messages") {
		refuse = writeMessagesError
	}
	refuse(w, &apiError{f.Status, "", "an injected fault"})
}

// whole is an answer that is kept until it is complete.
type whole struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *whole) Header() http.Header         { return w.header }
func (w *whole) WriteHeader(status int)      { w.status = status }
func (w *whole) Write(p []byte) (int, error) { return w.body.Write(p) }
func (w *whole) Flush()                      {}

// SetReadDeadline and SetWriteDeadline let a handler set what has no meaning
// here.
func (w *whole) SetReadDeadline(time.Time) error  { return nil }
func (w *whole) SetWriteDeadline(time.Time) error { return nil }

func (b *breaker) wrongLength() {
	w := &whole{header: make(http.Header), status: http.StatusOK}
	b.head.mux.ServeHTTP(w, b.r)
	c := b.hijack()
	defer func() { _ = c.Close() }()
	length := w.body.Len() + b.fault.Size
	if b.fault.Kind == LongBody {
		length = max(0, w.body.Len()-b.fault.Size)
	}
	w.header.Set("Content-Length", fmt.Sprint(length))
	_ = c.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, _ = fmt.Fprintf(c, "HTTP/1.1 %d %s\r\n", w.status, http.StatusText(w.status))
	_ = w.header.Write(c)
	_, _ = c.Write(append([]byte("\r\n"), w.body.Bytes()...)) // the client may have left
	panic(http.ErrAbortHandler)
}

// Unwrap lets handlers set deadlines and flush.
func (b *breaker) Unwrap() http.ResponseWriter { return b.ResponseWriter }

func (b *breaker) stream() bool {
	return strings.HasPrefix(b.Header().Get("Content-Type"), "text/event-stream")
}

// Write implements [io.Writer]. It counts the events and lets the fault happen
// in its place.
func (b *breaker) Write(p []byte) (int, error) {
	n := len(p)
	if !b.stream() {
		// A whole answer is one event, cut in its middle.
		if b.fault.After == 0 {
			p = b.happen(p)
		}
		b.emit(p[:len(p)/2])
		b.emit(b.happen(p[len(p)/2:]))
		return n, nil
	}
	for len(p) > 0 {
		end := bytes.Index(p, []byte("\n\n")) + 2
		if end < 2 {
			end = len(p)
		}
		event := p[:end]
		p = p[end:]
		if b.events >= b.fault.After {
			event = b.happen(event)
		}
		b.emit(event)
		b.events++
	}
	return n, nil
}

// happen lets the fault happen before an event, and returns what is then sent of
// it.
func (b *breaker) happen(event []byte) []byte {
	if b.done {
		return event
	}
	b.done = true
	switch b.fault.Kind {
	case Reset:
		b.flush()
		b.hijack().reset()
		panic(http.ErrAbortHandler)
	case Cut:
		b.flush()
		panic(http.ErrAbortHandler)
	case End:
		b.flush()
		panic(endHere{})
	case HalfClose:
		b.flush()
		b.halfClose()
	case Stall:
		b.flush()
		b.wait()
	case StallInside:
		b.emit(event[:len(event)/2])
		b.flush()
		b.wait()
		return event[len(event)/2:]
	case ErrorEvent:
		text := cmp.Or(b.fault.Body, `{"error":{"message":"an injected fault","type":"InternalServerError","param":null,"code":500}}`)
		if !b.stream() { // an answer that says that all is well, and is none
			b.emit([]byte(text))
			panic(endHere{})
		}
		b.emit(appendEvent(nil, []byte(text)))
		b.emit(appendEvent(nil, []byte("[DONE]")))
		panic(endHere{})
	case LongLine:
		if !b.stream() {
			break
		}
		long := append([]byte(`data: {"padding":"`), bytes.Repeat([]byte("a"), b.fault.Size)...)
		return append(append(long, `",`...), bytes.TrimPrefix(event, []byte("data: {"))...)
	default:
		b.done = false // what changes each event
	}
	return event
}

func (b *breaker) flush() {
	b.written = true
	if http.NewResponseController(b.ResponseWriter).Flush() != nil {
		panic(http.ErrAbortHandler)
	}
}

func (b *breaker) halfClose() {
	c := b.hijack()
	stop := context.AfterFunc(b.head.running, func() { _ = c.Close() })
	defer stop()
	defer func() { _ = c.Close() }()
	c.closeWrite()
	_, _ = io.Copy(io.Discard, net.Conn(c))
	panic(http.ErrAbortHandler)
}

// emit sends bytes in the fault's framing.
func (b *breaker) emit(p []byte) {
	switch f := b.fault; {
	case f.Kind == Drip, f.Kind == Framing && f.Form == FormBytes:
		for i := range p {
			b.put(p[i : i+1])
			b.flush()
			if f.Seconds > 0 {
				b.wait()
			}
		}
	case f.Kind == Framing && b.stream():
		if p = reframe(p, f.Form, b.events); f.Form == FormBatch {
			b.held = append(b.held, p...)
			return
		}
		b.put(p)
	default:
		b.put(p)
	}
}

func (b *breaker) put(p []byte) {
	_ = http.NewResponseController(b.ResponseWriter).SetWriteDeadline(time.Now().Add(writeTimeout)) // HTTP/1 connections always can
	if _, err := b.ResponseWriter.Write(p); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// finish sends what was held back.
func (b *breaker) finish() {
	if len(b.held) > 0 {
		b.put(b.held)
	}
}

// reframe writes one event in another form that means the same.
func reframe(event []byte, form string, n int) []byte {
	lines := bytes.Split(bytes.TrimSuffix(event, []byte("\n\n")), []byte("\n"))
	end := "\n"
	var out []byte
	switch form {
	case FormCRLF:
		end = "\r\n"
	case FormCR:
		end = "\r"
	case FormBOM:
		if n == 0 {
			out = append(out, "\ufeff"...)
		}
	case FormNamed:
		out = fmt.Appendf(out, "id: %d\nretry: 3000\nevent: message\n", n)
	case FormComments:
		out = append(out, ": between\n\n:\n"...)
	}
	for _, line := range lines {
		switch data, isData := bytes.CutPrefix(line, []byte("data: ")); {
		case form == FormNoSpace && isData:
			out = append(append(out, "data:"...), data...)
		case form == FormSplit && bytes.HasPrefix(data, []byte("{")) && isData:
			out = append(append(out, "data: {\ndata: "...), data[1:]...)
		default:
			out = append(out, line...)
		}
		out = append(out, end...)
		if form == FormComments {
			out = append(out, ": inside\n"...)
		}
	}
	if form == FormNoEnd && bytes.Contains(event, []byte("[DONE]")) {
		return bytes.TrimSuffix(out, []byte("\n"))
	}
	return append(out, end...)
}
