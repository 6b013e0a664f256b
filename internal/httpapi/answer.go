package httpapi

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"headway/internal/access"
)

// answer is the answer to one request, for one goroutine.
type answer struct {
	http.ResponseWriter
	route     *route
	principal *access.Principal // nil: not authenticated
	status    int               // that was sent; 0: none yet
	begun     func(status int)  // called with the header, or nil
	body      *buffer           // of the request; nil until it is read
	elsewhere time.Duration     // of the request's time: what others took of it
	unread    bool              // it was sent before the request's body came whole
}

var answers = sync.Pool{New: func() any { return new(answer) }}

func newAnswer(rt *route, w http.ResponseWriter) *answer {
	a, _ := answers.Get().(*answer)
	*a = answer{ResponseWriter: w, route: rt}
	return a
}

func (a *answer) free() {
	if a.body != nil {
		a.body.free()
	}
	*a = answer{}
	answers.Put(a)
}

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
		if a.begun != nil {
			a.begun(status)
		}
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	return a.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// requestID is the id that the caller gets.
func (a *answer) requestID() string { return a.Header()["X-Request-Id"][0] }

// requestID is the caller's X-Request-Id if it is safe to repeat, else a new one.
func requestID(r *http.Request) string {
	if v := r.Header["X-Request-Id"]; len(v) == 1 && len(v[0]) >= 1 && len(v[0]) <= 128 && safe(v[0]) {
		return v[0]
	}
	return newRequestID()
}

func newRequestID() string {
	var random [12]byte
	binary.NativeEndian.PutUint64(random[:], rand.Uint64())
	binary.NativeEndian.PutUint32(random[8:], rand.Uint32())
	var id [24]byte
	return string(hex.AppendEncode(id[:0], random[:]))
}

func safe(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}
