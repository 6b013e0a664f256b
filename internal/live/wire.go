package live

import (
	"bufio"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
)

// wire is the connection of a WebSocket. The library reads from it, and writes
// control frames; what we say to the client is framed here, since an event is
// the same bytes for all, and since answers to requests that came together
// belong into one system call. Control frames are short, so that the library
// writes each in one piece, between ours.
//
// Answers wait until nothing more was received: they are sent before anything
// waits for input, so that none ever waits for the client.
type wire struct {
	net.Conn
	timeout time.Duration
	lost    func(answer []byte) // is called with each answer that was not sent whole, under mu
	begun   time.Time           // when the connection was taken over
	heard   atomic.Int64        // nanoseconds after begun of the last input
	rude    atomic.Bool         // the client's goodbye was no text

	most int64 // bytes that may still come of the message that is read; 0: there is none. Of the reading goroutine

	mu  sync.Mutex
	out []byte // answers that wait
	err error  // of the first write that failed
}

// Sizes in bytes.
const (
	maxWaiting  = 32 << 10 // of answers that wait
	maxKept     = 4 << 10  // of memory for answers, while there are none
	writeBuffer = 256      // a control frame has at most 127
)

// Read implements net.Conn.
func (w *wire) Read(p []byte) (int, error) {
	w.mu.Lock()
	err := w.flush()
	w.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.hear()
	}
	if w.most > 0 {
		if w.most -= int64(n); w.most <= 0 {
			return 0, errFragments
		}
	}
	return n, err
}

// hear notes that there was input, by the clock that does not jump.
func (w *wire) hear() { w.heard.Store(int64(time.Since(w.begun))) }

// silent is how long there was no input.
func (w *wire) silent() time.Duration { return time.Since(w.begun) - time.Duration(w.heard.Load()) }

// errFragments ends a message that does not end: fragments of nothing count for
// no byte of it, and there may be any number.
var errFragments = errors.New("too many fragments")

// maxFraming is how many bytes come at most for one of a message, in fragments
// of a byte each with the frame around it.
const maxFraming = 8

// Write implements net.Conn.
func (w *wire) Write(p []byte) (int, error) {
	frame := p
	if rudeGoodbye(p) {
		w.rude.Store(true)
		frame = appendClose(nil, websocket.StatusInvalidFramePayloadData, "the reason of the goodbye is not UTF-8")
	}
	if err := w.send(frame); err != nil {
		return 0, err
	}
	return len(p), nil
}

// send sends frames, after the answers that wait.
func (w *wire) send(frames []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.flush(); err != nil {
		return err
	}
	_, err := w.put(frames)
	return err
}

// answer has a message sent soon.
func (w *wire) answer(message []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = appendText(w.out, message)
	if len(w.out) < maxWaiting {
		return nil
	}
	return w.flush()
}

// flush sends the answers that wait; w.mu must be held.
func (w *wire) flush() error {
	if len(w.out) == 0 {
		return w.err
	}
	sent, err := w.put(w.out)
	if err != nil {
		w.lose(w.out, sent)
	}
	if w.out = w.out[:0]; cap(w.out) > maxKept {
		w.out = nil
	}
	return err
}

// put writes, and returns how much was sent; w.mu must be held.
func (w *wire) put(b []byte) (sent int, err error) {
	for sent < len(b) && w.err == nil {
		_ = w.SetWriteDeadline(time.Now().Add(w.timeout))
		var n int
		n, w.err = w.Conn.Write(b[sent:min(len(b), sent+maxWrite)])
		sent += n
	}
	return sent, w.err
}

// lose gives up those of the answers that were not sent whole.
func (w *wire) lose(answers []byte, sent int) {
	for end := 0; end < len(answers); {
		header, n := 2, int(answers[end+1])
		switch n {
		case 126:
			header, n = 4, int(binary.BigEndian.Uint16(answers[end+2:]))
		case 127:
			header, n = 10, int(binary.BigEndian.Uint32(answers[end+6:]))
		}
		begin := end + header
		if end = begin + n; end > sent {
			w.lost(answers[begin:end])
		}
	}
}

// failure is the error of the first write that failed, or nil.
func (w *wire) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// hijacked hands a wire to the library instead of the connection.
type hijacked struct {
	http.ResponseWriter
	timeout time.Duration
	lost    func(answer []byte)
	wire    *wire
}

// Hijack implements http.Hijacker.
func (h *hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	h.wire = &wire{Conn: conn, timeout: h.timeout, lost: h.lost, begun: time.Now()}
	return h.wire, bufio.NewReadWriter(rw.Reader, bufio.NewWriterSize(h.wire, writeBuffer)), nil
}

// rudeGoodbye reports whether the library is about to answer a goodbye whose
// reason is not UTF-8, which it repeats: it looks at the code alone, and what is
// not UTF-8 must end the connection as such (RFC 6455, section 8.1).
func rudeGoodbye(p []byte) bool {
	const header, code = 2, 2
	return len(p) > header+code && p[0] == finalClose && len(p) == header+int(p[1]) && !utf8.Valid(p[header+code:])
}

// The first bytes of frames that are whole.
const (
	finalText  = 0x81
	finalClose = 0x88
)

// appendClose appends a goodbye in one frame of a server; the reason is of at
// most 123 bytes.
func appendClose(b []byte, code websocket.StatusCode, reason string) []byte {
	b = append(b, finalClose, byte(2+len(reason)), byte(code>>8), byte(code))
	return append(b, reason...)
}

// appendText appends a text message in one frame of a server (RFC 6455, section
// 5.2).
func appendText(b, message []byte) []byte {
	switch n := len(message); {
	case n < 126:
		b = append(b, finalText, byte(n))
	case n <= 0xffff:
		b = append(b, finalText, 126, byte(n>>8), byte(n))
	default:
		b = append(b, finalText, 127, 0, 0, 0, 0, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return append(b, message...)
}
