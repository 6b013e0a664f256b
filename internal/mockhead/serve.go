package mockhead

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"mime"
	"net/http"
	"slices"
	"time"

	"headway/internal/engine"
)

// form is how an API writes the answer that a turn generates. Its methods
// append or return what the client reads; they keep nothing of the turn.
type form interface {
	whole(t *turn) any
	begin(out []byte, t *turn) []byte // what stands before the first token
	chunk(out []byte, t *turn, p *part, text string) []byte
	end(out []byte, t *turn) []byte
}

// generate serves a request that the engine works on. decode reads its body.
func (h *Head) generate(decode func(*http.Request, []byte) (*completion, error), refuse refusal) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		arrived := time.Now()
		body, err := h.read(w, r)
		if err != nil {
			refuse(w, asAPIError(err))
			return
		}
		c, err := decode(r, body)
		if err == nil {
			err = h.serves(c.model)
		}
		if err != nil {
			refuse(w, asAPIError(err))
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		t, err := h.submit(c)
		if err != nil {
			refuse(w, asAPIError(err))
			return
		}
		t.arrived, t.ctx, t.w, t.refuse, t.request = arrived, ctx, w, refuse, r
		defer t.cancel()
		if c.stream {
			t.serveStream()
		} else {
			t.serveWhole()
		}
	}
}

// read reads a body within its bound and its time.
func (h *Head) read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if h.draining.Load() {
		return nil, errStopped
	}
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return nil, &apiError{http.StatusUnsupportedMediaType, "", "the body must not be compressed"}
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout)) // HTTP/1 connections always can
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.options.MaxBody))
	if large, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, &apiError{http.StatusRequestEntityTooLarge, "", fmt.Sprintf("the body is larger than %d bytes", large.Limit)}
	}
	if err != nil {
		return nil, invalid("", "the body could not be read")
	}
	// The deadline would also end the watch for a closed connection.
	_ = rc.SetReadDeadline(time.Time{})
	return body, nil
}

// isJSON refuses a body that does not say it is JSON.
func isJSON(r *http.Request) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return &apiError{http.StatusUnsupportedMediaType, "", "the Content-Type must be application/json"}
	}
	return nil
}

// serves refuses a model that the head does not have.
func (h *Head) serves(model string) error {
	if model == "" {
		return invalid("model", "you must provide a model parameter")
	}
	if !slices.Contains(h.options.Models, model) {
		return &apiError{http.StatusNotFound, "model", fmt.Sprintf("The model `%s` does not exist.", clip(model))}
	}
	return nil
}

func asAPIError(err error) *apiError {
	e, ok := errors.AsType[*apiError](err)
	switch {
	case ok:
		return e
	case errors.Is(err, engine.ErrTooLong):
		return &apiError{http.StatusBadRequest, "messages", err.Error()}
	case errors.Is(err, engine.ErrQueueFull):
		return &apiError{http.StatusTooManyRequests, "", engine.ErrQueueFull.Error()}
	}
	return &apiError{http.StatusServiceUnavailable, "", errStopped.Error()}
}

// turn is one request with its answer, of one part for each prompt and choice.
type turn struct {
	head    *Head
	ctx     context.Context // the request's, which a turn does not outlive
	w       http.ResponseWriter
	request *http.Request
	refuse  refusal
	c       *completion
	parts   []*part
	id      string
	created int64
	arrived time.Time
	events  int  // written so far, for the forms that number them
	first   bool // the first token has come
}

// part is one choice of the answer.
type part struct {
	index    int
	stream   *stream
	seed     uint64
	reason   string // finish_reason
	progress progress
}

func (p *part) text() string { return string(AppendText(nil, p.seed, 0, p.progress.generated)) }

func (h *Head) submit(c *completion) (*turn, error) {
	t := &turn{head: h, c: c, created: time.Now().Unix(), id: h.nextID()}
	for _, p := range c.prompts {
		for n := range c.n {
			if err := t.add(p, n); err != nil {
				t.cancel()
				return nil, err
			}
		}
	}
	return t, nil
}

// add submits the nth choice for a prompt.
func (t *turn) add(p prompt, n int) error {
	h, c := t.head, t.c
	if most := h.maxTokens - p.tokens; c.maxTokens > most {
		return fmt.Errorf("%w: %d prompt and up to %d output tokens, at most %d together",
			engine.ErrTooLong, p.tokens, c.maxTokens, h.maxTokens)
	}
	blocks, seed := h.hash(p.text)
	if n > 0 {
		seed = mix(seed, uint64(n))
	}
	output, reason := h.outputTokens(c, p.tokens, seed)
	s, err := h.runner.submit(engine.Request{PromptTokens: p.tokens, OutputTokens: output, Blocks: blocks})
	if err != nil {
		return err
	}
	t.parts = append(t.parts, &part{index: len(t.parts), stream: s, seed: seed, reason: reason})
	return nil
}

// cancel frees what is still generated.
func (t *turn) cancel() {
	for _, p := range t.parts {
		if !p.progress.done {
			t.head.runner.cancel(p.stream)
		}
	}
}

// hash chains the prompt's whole blocks of BlockTokens, four bytes a token, and
// hashes the whole.
func (h *Head) hash(prompt []byte) (blocks []uint64, whole uint64) {
	const size = engine.BlockTokens * 4
	var chain [8]byte
	var mh maphash.Hash
	mh.SetSeed(h.seed)
	for {
		n := min(size, len(prompt))
		mh.Reset()
		_, _ = mh.Write(chain[:]) // never fails
		_, _ = mh.Write(prompt[:n])
		sum := mh.Sum64()
		if n < size {
			return blocks, sum
		}
		blocks = append(blocks, sum)
		binary.LittleEndian.PutUint64(chain[:], sum)
		prompt = prompt[n:]
	}
}

// outputTokens draws the length of the answer, 16 to 399 tokens, unless the
// request asks for the limit.
func (h *Head) outputTokens(c *completion, promptTokens int, seed uint64) (n int, reason string) {
	natural := 16 + int(mix(seed, 0)%384)
	limit := c.maxTokens
	if limit == 0 {
		limit = max(1, h.maxTokens-promptTokens)
		if c.ignoreEOS {
			limit = min(limit, natural)
		}
	}
	if c.ignoreEOS || limit <= natural {
		return limit, "length"
	}
	return natural, "stop"
}

// next waits for more of a part.
func (t *turn) next(p *part) error {
	got, err := t.head.runner.next(t.ctx, p.stream)
	if err != nil {
		return err
	}
	p.progress = got
	if !t.first {
		t.first = true
		t.head.metrics.ttft.Observe(time.Since(t.arrived).Seconds())
	}
	return nil
}

// usage counts the tokens so far.
func (t *turn) usage() *usage {
	u := new(usage)
	for _, p := range t.c.prompts {
		u.PromptTokens += p.tokens
	}
	for i, p := range t.parts {
		u.CompletionTokens += p.progress.generated
		if i%t.c.n == 0 {
			u.PromptDetails.CachedTokens += p.progress.cached
		}
	}
	u.TotalTokens = u.PromptTokens + u.CompletionTokens
	return u
}

func (t *turn) serveWhole() {
	for _, p := range t.parts {
		for !p.progress.done {
			err := t.next(p)
			if t.ctx.Err() != nil {
				panic(http.ErrAbortHandler) // the client has left
			}
			if err != nil {
				t.refuse(t.w, asAPIError(err))
				return
			}
		}
	}
	t.mayDie()
	_ = http.NewResponseController(t.w).SetWriteDeadline(time.Now().Add(writeTimeout))
	whole := t.c.form.whole(t)
	if text, ok := whole.(plain); ok {
		t.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = t.w.Write(text) // the client may have left
		return
	}
	writeJSON(t.w, http.StatusOK, whole)
}

// serveStream sends the answer as Server-Sent Events, part by part. The status
// is sent with the first token. Until then a failure has its own status; later
// the connection is cut, so that the answer does not look complete.
func (t *turn) serveStream() {
	h, started := t.head, false
	for _, p := range t.parts {
		sent := 0
		for !p.progress.done {
			if err := t.next(p); err != nil {
				if !started && t.ctx.Err() == nil {
					t.refuse(t.w, asAPIError(err))
					return
				}
				panic(http.ErrAbortHandler)
			}
			var out []byte
			if !started {
				started = true
				t.w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
				t.w.Header().Set("Cache-Control", "no-cache")
				out = t.c.form.begin(out, t)
			}
			got := p.progress
			for end := h.boundary(sent); end <= got.generated || got.done && sent < got.generated; end = h.boundary(sent) {
				end = min(end, got.generated)
				p.progress.generated, p.progress.done = end, got.done && end == got.generated
				out = t.c.form.chunk(out, t, p, string(AppendText(nil, p.seed, sent, end)))
				sent = end
			}
			p.progress = got
			if p.progress.done && p == t.parts[len(t.parts)-1] {
				out = t.c.form.end(out, t)
			}
			t.send(out)
			if sent >= diesAfter && !p.progress.done {
				t.mayDie()
			}
		}
	}
}

// diesAfter are the tokens of a stream after which [Options.Dies] is asked. Of a
// whole answer it is asked before anything is sent.
const diesAfter = 16

func (t *turn) mayDie() {
	if dies := t.head.options.Dies; dies != nil && dies(t.request) {
		panic(http.ErrAbortHandler)
	}
}

// boundary is where the chunk ends that begins after so many tokens. Chunks are
// the same however late the stream is, so that a fault can count them.
func (h *Head) boundary(sent int) int {
	if sent == 0 {
		return 1
	}
	return (sent/h.options.StreamInterval + 1) * h.options.StreamInterval
}

func (t *turn) send(out []byte) {
	if len(out) == 0 {
		return
	}
	rc := http.NewResponseController(t.w)
	_ = rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // HTTP/1 connections always can
	_, err := t.w.Write(out)
	if err == nil {
		err = rc.Flush()
	}
	if err != nil {
		panic(http.ErrAbortHandler)
	}
}

func appendEvent(out, data []byte) []byte {
	out = append(out, "data: "...)
	out = append(out, data...)
	return append(out, "\n\n"...)
}
