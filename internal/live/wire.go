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

// wire is the connection of a WebSocket below the library, which reads from it
// and writes control frames. Those fit its buffer, so that each is one Write.
// Messages are framed here, for two figures of make bench:
//   - An event reaches the last of 20,000 listeners: they share its frames. Written
//     by the library, it takes at least 1.4 times as long.
//   - Decisions per processor second: answers to requests that came together go
//     out in one system call. Written by the library, a decision costs twice as
//     much.
//
// Read sends the answers that wait before it blocks, so that none waits for the
// client.
type wire struct {
	net.Conn
	timeout  time.Duration
	withdraw func(answer []byte) // called with mu held for each answer that was not sent whole
	begun    time.Time           // when the connection was hijacked
	heard    atomic.Int64        // nanoseconds from begun to the last input
	left     atomic.Int64        // bytes that may still come of the current message; 0: no limit

	mu    sync.Mutex
	queue *answers // nil: no answer waits
	err   error    // of the first write that failed
}

// answers are framed answers that wait to be sent.
type answers struct {
	frames []byte
	ends   []int // of each answer in frames
}

var unused = sync.Pool{New: func() any { return new(answers) }}

// Sizes in bytes.
const (
	maxWrite    = 64 << 10 // that the client must take within the timeout
	maxWaiting  = 32 << 10 // of answers that wait
	maxKept     = 4 << 10  // of a buffer between two messages
	writeBuffer = 256      // of the library; a control frame has at most 127
)

// maxOverhead is how many bytes may arrive for each byte of a message: a fragment
// of one byte has a header of six.
const maxOverhead = 8

// errFragments ends a message of empty fragments, which do not count for its
// length.
var errFragments = errors.New("too many fragments")

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
		w.touch()
	}
	if w.left.Load() > 0 && w.left.Add(-int64(n)) <= 0 {
		return 0, errFragments
	}
	return n, err
}

// touch restarts the time of silence.
func (w *wire) touch() { w.heard.Store(int64(time.Since(w.begun))) }

// silence is the time since the last input.
func (w *wire) silence() time.Duration { return time.Since(w.begun) - time.Duration(w.heard.Load()) }

// Write implements net.Conn.
func (w *wire) Write(p []byte) (int, error) {
	frame := p
	if isInvalidClose(p) {
		frame = closeFrame(websocket.StatusInvalidFramePayloadData, "the reason is not UTF-8")
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

// answer queues a message.
func (w *wire) answer(message []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.queue == nil {
		w.queue, _ = unused.Get().(*answers)
	}
	q := w.queue
	q.frames = appendText(q.frames, message)
	q.ends = append(q.ends, len(q.frames))
	if len(q.frames) < maxWaiting {
		return nil
	}
	return w.flush()
}

// flush sends the answers that wait; w.mu must be held.
func (w *wire) flush() error {
	q := w.queue
	if q == nil {
		return w.err
	}
	sent, err := w.put(q.frames)
	begin := 0
	for _, end := range q.ends {
		if end > sent {
			w.withdraw(q.frames[begin:end])
		}
		begin = end
	}
	q.frames, q.ends, w.queue = q.frames[:0], q.ends[:0], nil
	if cap(q.frames) <= 2*maxWaiting {
		unused.Put(q)
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

// failure is the error of the first write that failed, or nil.
func (w *wire) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// hijacker gives the library a wire instead of the connection.
type hijacker struct {
	http.ResponseWriter
	wire *wire
}

// Hijack implements http.Hijacker.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	h.wire.Conn, h.wire.begun = conn, time.Now()
	return h.wire, bufio.NewReadWriter(rw.Reader, bufio.NewWriterSize(h.wire, writeBuffer)), nil
}

// The first bytes of frames that are whole.
const (
	finalText  = 0x81
	finalClose = 0x88
)

// isInvalidClose reports whether p is a close frame whose reason is not UTF-8. The
// library repeats the client's, and checks the code alone (RFC 6455, section 8.1).
func isInvalidClose(p []byte) bool {
	const header, code = 2, 2
	return len(p) > header+code && p[0] == finalClose && len(p) == header+int(p[1]) && !utf8.Valid(p[header+code:])
}

// closeFrame is a close frame of a server; the reason has at most 123 bytes.
func closeFrame(code websocket.StatusCode, reason string) []byte {
	return append([]byte{finalClose, byte(2 + len(reason)), byte(code >> 8), byte(code)}, reason...)
}

// appendText appends a text message in one frame of a server (RFC 6455, section
// 5.2).
func appendText(b, message []byte) []byte {
	switch n := len(message); {
	case n < 126:
		b = append(b, finalText, byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, finalText, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, finalText, 127), uint64(n))
	}
	return append(b, message...)
}
