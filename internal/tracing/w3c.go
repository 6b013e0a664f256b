package tracing

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
)

// TraceID is that of W3C Trace Context.
type TraceID [16]byte

// SpanID is that of W3C Trace Context, which calls it the parent-id.
type SpanID [8]byte

// Context is the W3C Trace Context of a request: the trace that the caller named, or
// a new one.
type Context struct {
	id     TraceID
	parent SpanID // the caller's span; zero: it named none
	flags  byte
	state  []string // Tracestate of the caller, as it came
}

// Flags of a trace that are passed on.
const (
	flagSampled = 1
	flagRandom  = 2
)

// Read reads the trace context of a header. What is not valid counts as absent, with
// its state.
func Read(h http.Header) (c Context) {
	if values := h["Traceparent"]; len(values) == 1 && c.parse(values[0]) {
		c.state = h["Tracestate"]
		return c
	}
	c = Context{flags: flagRandom}
	binary.NativeEndian.PutUint64(c.id[:], rand.Uint64())
	binary.NativeEndian.PutUint64(c.id[8:], rand.Uint64()|1) // never all zeros
	return c
}

func newSpanID() (id SpanID) {
	binary.NativeEndian.PutUint64(id[:], rand.Uint64()|1)
	return id
}

// State is the caller's Tracestate.
func (c *Context) State() []string { return c.state }

// maxState bounds the part of a caller's Tracestate that spans have, in bytes; the
// rest of the list is optional.
const maxState = 512

// stateText is the Tracestate as a message may have it.
func (c *Context) stateText() string {
	text := strings.Join(c.state, ",")
	if len(text) > maxState || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		return ""
	}
	return text
}

// within reports whether a trace belongs to a share of all, by the same bits of its
// id as OpenTelemetry's TraceIdRatioBased, so that services choose the same traces.
func (id TraceID) within(share float64) bool {
	return share >= 1 || float64(binary.BigEndian.Uint64(id[8:])>>1) < share*math.MaxInt64
}

// The length of a traceparent of version 00, with which later ones begin.
const traceparentLength = len("00-0123456789abcdef0123456789abcdef-0123456789abcdef-01")

// parse reads a traceparent of any version.
func (c *Context) parse(s string) bool {
	if len(s) < traceparentLength || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return false
	}
	var version, flags [1]byte
	if !unhex(version[:], s[:2]) || !unhex(c.id[:], s[3:35]) || !unhex(c.parent[:], s[36:52]) || !unhex(flags[:], s[53:55]) {
		return false
	}
	c.flags = flags[0] & (flagSampled | flagRandom)
	switch {
	case version[0] == 0xff, c.id == TraceID{}, c.parent == SpanID{}:
		return false
	case version[0] == 0:
		return len(s) == traceparentLength
	}
	return len(s) == traceparentLength || s[traceparentLength] == '-'
}

// unhex decodes lower-case hexadecimal digits.
func unhex(to []byte, s string) bool {
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'F' {
			return false
		}
	}
	_, err := hex.Decode(to, []byte(s))
	return err == nil
}

// Traceparent is the field that the receiver of a span continues the trace by. What
// is not recorded here passes the caller's on as it is.
func (c *Context) Traceparent(s *Span) string {
	id, flags := c.parent, c.flags
	switch {
	case s != nil:
		id, flags = s.id, c.flags|flagSampled
	case id == SpanID{}:
		id = newSpanID()
	}
	b := make([]byte, 0, traceparentLength)
	b = append(b, "00-"...)
	b = hex.AppendEncode(b, c.id[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, id[:])
	b = append(b, '-')
	return string(hex.AppendEncode(b, []byte{flags}))
}
