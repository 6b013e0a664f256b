package proxy

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
)

// trace is the W3C Trace Context of a request: the trace that the caller named, or
// a new one, and our span in it.
type trace struct {
	id     [16]byte
	parent [8]byte // the caller's span; zero: it named none
	span   [8]byte // ours
	flags  byte
	state  []string // Tracestate of the caller, as it came
}

// Flags of a trace that are passed on.
const (
	traceSampled = 1
	traceRandom  = 2
)

// traceOf reads the trace context of a header. What is not valid counts as
// absent, with its state.
func traceOf(h http.Header) (t trace) {
	if values := h["Traceparent"]; len(values) == 1 && t.parse(values[0]) {
		t.state = h["Tracestate"]
	} else {
		t = trace{flags: traceRandom}
		binary.NativeEndian.PutUint64(t.id[:], rand.Uint64())
		binary.NativeEndian.PutUint64(t.id[8:], rand.Uint64()|1) // never all zeros
	}
	binary.NativeEndian.PutUint64(t.span[:], rand.Uint64()|1)
	return t
}

// The length of a traceparent of version 00, with which later ones begin.
const traceparentLength = len("00-0123456789abcdef0123456789abcdef-0123456789abcdef-01")

// parse reads a traceparent of any version.
func (t *trace) parse(s string) bool {
	if len(s) < traceparentLength || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return false
	}
	var version, flags [1]byte
	if !unhex(version[:], s[:2]) || !unhex(t.id[:], s[3:35]) || !unhex(t.parent[:], s[36:52]) || !unhex(flags[:], s[53:55]) {
		return false
	}
	t.flags = flags[0] & (traceSampled | traceRandom)
	switch {
	case version[0] == 0xff, t.id == [16]byte{}, t.parent == [8]byte{}:
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

// parentFor is the traceparent that a head gets.
func (t *trace) parentFor() string {
	b := make([]byte, 0, traceparentLength)
	b = append(b, "00-"...)
	b = hex.AppendEncode(b, t.id[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, t.span[:])
	b = append(b, '-')
	return string(hex.AppendEncode(b, []byte{t.flags}))
}
