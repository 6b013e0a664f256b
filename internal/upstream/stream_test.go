package upstream

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
)

// A body that streams has its length or comes in chunks, and arrives as it was,
// however it is read.
func TestABodyThatStreams(t *testing.T) {
	type got struct {
		body   []byte
		length int64
		err    error
	}
	requests := make(chan got, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		requests <- got{b, r.ContentLength, err}
		_, _ = io.WriteString(w, "ok")
	}))
	t.Cleanup(s.Close)
	h := newHeads(t, nil)
	for _, size := range []int{0, 1, streamStep - 1, streamStep, streamStep + 1, 10*streamStep + 7} {
		text := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
		for name, read := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "half": iotest.HalfReader, "with its end": iotest.DataErrReader} {
			for _, length := range []int64{-1, int64(size)} {
				call := post(s.URL)
				call.Body, call.Stream, call.Length = nil, read(bytes.NewReader(text)), length
				status, answer, err := do(t.Context(), h, call)
				if status != 200 || answer != "ok" || err != nil {
					t.Fatalf("%d bytes, %s, length %d: %d %q %v", size, name, length, status, answer, err)
				}
				if g := <-requests; !bytes.Equal(g.body, text) || g.length != length || g.err != nil {
					t.Errorf("%d bytes, %s, length %d: the head got %d, length %d: %v", size, name, length, len(g.body), g.length, g.err)
				}
			}
		}
	}
	// Both at once: pieces first.
	call := post(s.URL)
	call.Stream, call.Length = strings.NewReader("more"), 4
	if _, _, err := do(t.Context(), h, call); err != nil {
		t.Fatal(err)
	}
	if g := <-requests; string(g.body) != "{}more" || g.length != 6 {
		t.Errorf("the head got %q", g.body)
	}
	// A caller that breaks off, or sends less or more than it said, is no fault of the
	// head's; the head sees that the body has no end.
	for name, c := range map[string]struct {
		r      io.Reader
		length int64
	}{
		"broken off, chunked": {io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(errors.New("left"))), -1},
		"broken off":          {io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(errors.New("left"))), 100},
		"too short":           {strings.NewReader("abc"), 100},
		"too long":            {strings.NewReader("abc"), 2},
	} {
		call := post(s.URL)
		call.Body, call.Stream, call.Length = nil, c.r, c.length
		if _, _, err := do(t.Context(), h, call); kindOf(err) != Canceled {
			t.Errorf("%s: %v", name, err)
		}
		if name != "too long" {
			if g := <-requests; g.err == nil {
				t.Errorf("%s: the head saw a whole body", name)
			}
		} else if g := <-requests; g.err == nil {
			t.Errorf("%s: the head saw %q", name, g.body)
		}
	}
	if open, idle, _ := h.counts(); open != idle {
		t.Errorf("%d connections are open, %d unused", open, idle)
	}
}

// Framing of a stream is the same for every way that it is read in pieces.
func FuzzStreamedBodies(f *testing.F) {
	f.Add([]byte("hello"), 1, true)
	f.Add([]byte(""), 0, true)
	f.Add([]byte("0\r\n\r\nPOST / HTTP/1.1\r\n\r\n"), 3, false)
	bodies := make(chan []byte, 1)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		bodies <- b
	}))
	f.Cleanup(s.Close)
	f.Fuzz(func(t *testing.T, body []byte, step int, known bool) {
		h := newHeads(t, nil)
		call := post(s.URL)
		call.Body, call.Stream, call.Length = nil, &stepped{body, max(step%64, 1)}, -1
		if known {
			call.Length = int64(len(body))
		}
		if _, _, err := do(t.Context(), h, call); err != nil {
			t.Fatal(err)
		}
		if got := <-bodies; !bytes.Equal(got, body) {
			t.Errorf("the head got %q of %q", got, body)
		}
	})
}

// stepped gives so many bytes at a time.
type stepped struct {
	b    []byte
	step int
}

func (s *stepped) Read(p []byte) (int, error) {
	if len(s.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.b[:min(s.step, len(s.b))])
	s.b = s.b[n:]
	return n, nil
}
