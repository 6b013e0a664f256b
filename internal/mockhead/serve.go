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
	"strconv"
	"time"

	"headway/internal/engine"
)

func (h *Head) complete(w http.ResponseWriter, r *http.Request, chat bool) {
	arrived := time.Now()
	c, err := h.read(w, r, chat)
	if err != nil {
		refuse(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	t, err := h.submit(c)
	if err != nil {
		refuse(w, err)
		return
	}
	t.arrived, t.ctx, t.w = arrived, ctx, w
	if c.stream {
		t.serveStream()
	} else {
		t.serveWhole()
	}
}

func (h *Head) read(w http.ResponseWriter, r *http.Request, chat bool) (*completion, error) {
	if h.draining.Load() {
		return nil, errStopped
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, &apiError{http.StatusUnsupportedMediaType, "", "", "the Content-Type must be application/json"}
	}
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return nil, &apiError{http.StatusUnsupportedMediaType, "", "", "the body must not be compressed"}
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout)) // HTTP/1 connections always can
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if large, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, &apiError{http.StatusRequestEntityTooLarge, "", "", fmt.Sprintf("the body is larger than %d bytes", large.Limit)}
	}
	if err != nil {
		return nil, invalid("", "the body could not be read")
	}
	// The deadline would also end the watch for a closed connection.
	_ = rc.SetReadDeadline(time.Time{})
	c, err := decodeCompletion(body, chat)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(h.options.Models, c.model) {
		return nil, &apiError{http.StatusNotFound, "model_not_found", "model", fmt.Sprintf("the model %q does not exist", clip(c.model))}
	}
	return c, nil
}

func refuse(w http.ResponseWriter, err error) {
	e, ok := errors.AsType[*apiError](err)
	switch {
	case ok:
	case errors.Is(err, engine.ErrTooLong):
		e = &apiError{http.StatusBadRequest, "context_length_exceeded", "messages", err.Error()}
	case errors.Is(err, engine.ErrQueueFull):
		e = &apiError{http.StatusTooManyRequests, "queue_full", "", engine.ErrQueueFull.Error()}
	default:
		e = &apiError{http.StatusServiceUnavailable, "shutting_down", "", errStopped.Error()}
	}
	writeError(w, e)
}

type turn struct {
	head    *Head
	ctx     context.Context // the request's, which a turn does not outlive
	w       http.ResponseWriter
	c       *completion
	stream  *stream
	id      string
	created int64
	seed    uint64
	reason  string // finish_reason
	arrived time.Time
	first   bool // the first token has come
}

func (h *Head) submit(c *completion) (*turn, error) {
	if most := h.maxTokens - c.promptTokens; c.maxTokens > most {
		return nil, fmt.Errorf("%w: %d prompt and up to %d output tokens, at most %d together",
			engine.ErrTooLong, c.promptTokens, c.maxTokens, h.maxTokens)
	}
	blocks, seed := h.hash(c.prompt)
	output, reason := h.outputTokens(c, seed)
	s, err := h.runner.submit(engine.Request{PromptTokens: c.promptTokens, OutputTokens: output, Blocks: blocks})
	if err != nil {
		return nil, err
	}
	id := "cmpl-"
	if c.chat {
		id = "chatcmpl-"
	}
	id += strconv.FormatUint(mix(uint64(h.started.UnixNano()), h.requests.Add(1)), 16)
	return &turn{
		head: h, c: c, stream: s, id: id, created: time.Now().Unix(), seed: seed, reason: reason,
	}, nil
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
func (h *Head) outputTokens(c *completion, seed uint64) (n int, reason string) {
	natural := 16 + int(mix(seed, 0)%384)
	limit := c.maxTokens
	if limit == 0 {
		limit = max(1, h.maxTokens-c.promptTokens)
		if c.ignoreEOS {
			limit = min(limit, natural)
		}
	}
	if c.ignoreEOS || limit <= natural {
		return limit, "length"
	}
	return natural, "stop"
}

func (t *turn) next() (progress, error) {
	p, err := t.head.runner.next(t.ctx, t.stream)
	if err == nil && !t.first {
		t.first = true
		t.head.metrics.ttft.Observe(time.Since(t.arrived).Seconds())
	}
	return p, err
}

func (t *turn) usage(p progress) *usage {
	u := &usage{PromptTokens: t.c.promptTokens, CompletionTokens: p.generated, TotalTokens: t.c.promptTokens + p.generated}
	u.PromptDetails.CachedTokens = p.cached
	return u
}

// answer is the whole answer, or a chunk of its stream.
func (t *turn) answer(choices ...choice) answer {
	kind := "text_completion"
	if t.c.chat {
		kind = "chat.completion"
		if t.c.stream {
			kind += ".chunk"
		}
	}
	return answer{ID: t.id, Object: kind, Created: t.created, Model: t.c.model, Choices: append([]choice{}, choices...)}
}

// choice is text of the answer. role begins a chat, reason ends it.
func (t *turn) choice(role, text string, reason *string) choice {
	c := choice{FinishReason: reason}
	switch said := (answerMessage{Role: role, Content: &text}); {
	case !t.c.chat:
		c.Text = &text
	case t.c.stream:
		c.Delta = &said
	default:
		c.Message = &said
	}
	return c
}

func (t *turn) serveWhole() {
	for {
		p, err := t.next()
		switch {
		case t.ctx.Err() != nil:
			panic(http.ErrAbortHandler) // the client has left
		case err != nil:
			refuse(t.w, err)
			return
		case !p.done:
			continue
		}
		a := t.answer(t.choice("assistant", string(AppendText(nil, t.seed, 0, p.generated)), &t.reason))
		a.Usage = t.usage(p)
		_ = http.NewResponseController(t.w).SetWriteDeadline(time.Now().Add(writeTimeout))
		writeJSON(t.w, http.StatusOK, a)
		return
	}
}

// serveStream sends the answer as Server-Sent Events. The status is sent with
// the first token. Until then a failure has its own status; later the
// connection is cut, so that the answer does not look complete.
func (t *turn) serveStream() {
	rc := http.NewResponseController(t.w)
	var out []byte
	sent := 0
	for {
		p, err := t.next()
		if err != nil {
			if sent == 0 && t.ctx.Err() == nil {
				refuse(t.w, err)
				return
			}
			panic(http.ErrAbortHandler)
		}
		out = out[:0]
		if sent == 0 {
			t.w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			t.w.Header().Set("Cache-Control", "no-cache")
			if t.c.chat {
				out = appendEvent(out, encode(t.answer(t.choice("assistant", "", nil))))
			}
		}
		out = t.appendChunk(out, sent, p)
		sent = p.generated
		_ = rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // HTTP/1 connections always can
		_, err = t.w.Write(out)
		if err == nil {
			err = rc.Flush()
		}
		if err != nil {
			t.head.runner.cancel(t.stream)
			panic(http.ErrAbortHandler)
		}
		if p.done {
			return
		}
	}
}

// appendChunk appends the text since the last chunk, and the end of the stream
// after the last one.
func (t *turn) appendChunk(out []byte, sent int, p progress) []byte {
	var reason *string
	if p.done {
		reason = &t.reason
	}
	out = appendEvent(out, encode(t.answer(t.choice("", string(AppendText(nil, t.seed, sent, p.generated)), reason))))
	if !p.done {
		return out
	}
	if t.c.includeUsage {
		a := t.answer()
		a.Usage = t.usage(p)
		out = appendEvent(out, encode(a))
	}
	return appendEvent(out, []byte("[DONE]"))
}

func appendEvent(out, data []byte) []byte {
	out = append(out, "data: "...)
	out = append(out, data...)
	return append(out, "\n\n"...)
}
