package mockhead

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Received is a request as a head got it.
type Received struct {
	Method string
	Target string // path and query as sent
	Head   []byte // request line and header, byte for byte
	Size   int64  // of the body, without its framing
	SHA256 [sha256.Size]byte
	Whole  bool // the body came to its end
	Reused bool // not the first request of its connection
}

// recorder keeps the newest requests.
type recorder struct {
	mu    sync.Mutex
	limit int
	list  []Received
	count int
}

// Received are the newest requests, at most Options.Record, the newest last.
func (h *Head) Received() []Received {
	h.recorder.mu.Lock()
	defer h.recorder.mu.Unlock()
	return slices.Clone(h.recorder.list)
}

// Count is the number of requests that reached the head.
func (h *Head) Count() int {
	h.recorder.mu.Lock()
	defer h.recorder.mu.Unlock()
	return h.recorder.count
}

type connKey struct{}

func connOf(ctx context.Context) *conn { return ofDoor(ctx.Value(connKey{})) }

// ofDoor is a connection that the head's door made, as all of its server's are.
func ofDoor(v any) *conn {
	c, ok := v.(*conn)
	if !ok {
		panic(fmt.Sprintf("a connection of the door is a %T", v))
	}
	return c
}

// receive reads a request's body, so that the server notices when the client
// leaves, and records the request.
func (h *Head) receive(w http.ResponseWriter, r *http.Request) {
	c := connOf(r.Context())
	got := Received{Method: r.Method, Target: r.RequestURI, Head: c.takeHead(r.ContentLength)}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout)) // HTTP/1 connections always can
	body, err := io.ReadAll(io.LimitReader(r.Body, h.options.MaxBody+1))
	_ = rc.SetReadDeadline(time.Time{})
	c.bodyRead()
	got.Size, got.SHA256, got.Whole = int64(len(body)), sha256.Sum256(body), err == nil && int64(len(body)) <= h.options.MaxBody
	c.mu.Lock()
	got.Reused = c.served > 0
	c.mu.Unlock()
	r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), failing{err}))
	h.recorder.mu.Lock()
	defer h.recorder.mu.Unlock()
	if h.recorder.limit == 0 {
		return
	}
	if len(h.recorder.list) == h.recorder.limit {
		h.recorder.list = slices.Delete(h.recorder.list, 0, 1)
	}
	h.recorder.list = append(h.recorder.list, got)
}

// failing ends a body with the error that its reader met.
type failing struct{ err error }

// Read implements [io.Reader].
func (f failing) Read([]byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return 0, io.EOF
}
