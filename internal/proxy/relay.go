package proxy

import (
	"bytes"
	"io"
	"net/http"
	"sync"

	"headway/internal/openai"
	"headway/internal/routing"
	"headway/internal/upstream"
)

// Bounds of what is kept of an answer.
const (
	maxWhole = 256 << 10 // of an answer that is read before it is passed on
	readSize = 32 << 10
)

// chunk is memory to read an answer into.
type chunk struct{ b [readSize]byte }

var chunks = sync.Pool{New: func() any { return new(chunk) }}

// whole passes on an answer that is no stream of events. One in JSON, or of known
// length, is read first, as far as it is not large, so that another head can answer
// if it breaks.
func (x *exchange) whole(res *upstream.Response) *failure {
	c, _ := chunks.Get().(*chunk)
	defer chunks.Put(c)
	isJSON := mediaType(res.Header) == "application/json"
	answer := &x.answer
	answer.Reset(x.caller.Endpoint, x.model)
	head, err := x.beginning(res, isJSON, c.b[:0])
	if err != nil && !ended(err) {
		return x.broken(err)
	}
	var out [8][]byte
	pieces := append(out[:0], head)
	length := res.ContentLength
	if isJSON {
		if !ended(err) || x.model != "" || !answer.Read(head) {
			pieces = answer.Push(out[:0], head)
		}
		if ended(err) {
			pieces = answer.Flush(pieces)
		}
	}
	switch {
	case ended(err):
		length = int64(len(head) + answer.Longer())
	case isJSON && x.model != "":
		length = -1
	}
	if isJSON && ended(err) {
		if f := x.judged(res, head); f != nil {
			return f
		}
	}
	if u := answer.Usage(); ended(err) && (u.Output < 0 || x.proxy.samples.Add(1)%sampled == 0) && x.caller.Endpoint.Generates {
		x.text = int64(openai.TextLength(head))
	}
	x.first = x.proxy.o.Router.Answered(x.decision)
	if ended(err) {
		x.chargeFirst(res.Status, answer.Usage())
	}
	x.header(res.Status, res.Header, length)
	for _, piece := range pieces {
		if x.write(x.mask.apply(piece)) != nil {
			return x.left()
		}
	}
	if ended(err) {
		return x.complete(res, x.usage)
	}
	return x.rest(res, answer, isJSON, c.b[:])
}

// beginning is what is read of an answer before it is passed on, into b or memory of
// its own: all of it, then the error is io.EOF, or nothing of what is long.
func (x *exchange) beginning(res *upstream.Response, isJSON bool, b []byte) ([]byte, error) {
	if res.ContentLength > maxWhole || !isJSON && res.ContentLength < 0 && res.Status < 400 {
		return b, nil
	}
	if res.ContentLength > readSize {
		b = make([]byte, 0, res.ContentLength)
	}
	x.wait(x.resumed) // which was just now
	b, err := readWhole(res, b)
	x.resume(x.proxy.o.Now())
	if ended(err) && res.Status >= 400 {
		b = x.renamed(b)
	}
	return b, err
}

// sampled is of how many answers one is read for the length of its text, besides
// those without usage.
const sampled = 16

// judged is the failure that an answer in JSON is, of which nothing was passed on; nil:
// it is none.
func (x *exchange) judged(res *upstream.Response, whole []byte) *failure {
	good := res.Status < 300 && res.Status != http.StatusNoContent
	switch {
	case good && x.answer.Failed():
		return x.keepBytes(res, whole, routing.ResultError)
	case x.answer.Broken() || good && unfinished(&x.answer, whole):
		return x.broken(errUnfinished())
	}
	return nil
}

// unfinished reports whether an answer in JSON is empty, or ends in its middle.
func unfinished(a *openai.Answer, begin []byte) bool {
	return len(bytes.TrimLeft(begin, " \t\r\n")) == 0 || a.Broken()
}

// errUnfinished is that of an answer that ends in its middle, however it is framed.
func errUnfinished() error {
	return &upstream.Error{Kind: upstream.EndOfStream, Sent: true, Received: true, Err: io.ErrUnexpectedEOF}
}

// readWhole reads an answer up to its end, then the error is io.EOF, or as far
// as maxWhole.
func readWhole(res *upstream.Response, head []byte) ([]byte, error) {
	for {
		if len(head) == cap(head) {
			if cap(head) >= maxWhole {
				return head, nil
			}
			head = append(head, 0)[:len(head)]
		}
		n, err := res.Body.Read(head[len(head):cap(head)])
		head = head[:len(head)+n]
		if err != nil {
			return head, err
		}
	}
}

// rest passes on what follows of an answer that has begun, as it comes.
func (x *exchange) rest(res *upstream.Response, answer *openai.Answer, isJSON bool, b []byte) *failure {
	var out [8][]byte
	for {
		n, err := res.Body.Read(b)
		pieces := append(out[:0], b[:n])
		if x.caller.Endpoint == PassThrough {
			x.text += int64(n)
		}
		if isJSON {
			pieces = answer.Push(out[:0], b[:n])
		}
		for _, piece := range pieces {
			if x.write(x.mask.apply(piece)) != nil {
				return x.left()
			}
		}
		if res.ContentLength < 0 && x.flush() != nil {
			return x.left()
		}
		if ended(err) && isJSON && answer.Broken() {
			err = errUnfinished()
		}
		if ended(err) && isJSON && res.Status < 300 && answer.Failed() {
			return x.failedWithin(answer.Usage())
		}
		if ended(err) {
			return x.complete(res, answer.Usage())
		}
		if err != nil {
			return x.cut(err)
		}
	}
}

// complete is the end of an answer that came whole.
func (x *exchange) complete(res *upstream.Response, u openai.Usage) *failure {
	x.usage = u
	_ = x.write(x.mask.rest())
	x.finish(resultOf(res.Status), res.Status)
	return nil
}

// resultOf is what a head's answer with a status is, which came whole.
func resultOf(status int) routing.Result {
	if status >= 400 {
		return routing.ResultError // the caller's fault: it says nothing of the head
	}
	return routing.ResultOK
}

// failedWithin is that an answer of which some was passed on has an error.
func (x *exchange) failedWithin(u openai.Usage) *failure {
	x.usage = u
	x.failing(reasonErrorInside)
	x.proxy.metrics.cut.Inc()
	_ = x.write(x.mask.rest())
	_ = x.flush()
	return &failure{outcome: x.outcome(routing.ResultError, http.StatusBadGateway), answer: ErrAborted}
}

// cut is that a head broke off in the middle of an answer.
func (x *exchange) cut(err error) *failure {
	f := x.broken(err)
	if f.outcome.Result == routing.ResultError {
		x.proxy.metrics.cut.Inc()
	}
	_ = x.flush() // or the caller may see no answer at all
	f.again, f.answer = false, ErrAborted
	return f
}

// left is that the caller took no more of an answer that had begun.
func (x *exchange) left() *failure {
	return &failure{outcome: x.outcome(routing.ResultCancelled, x.status), answer: ErrAborted}
}

// ended reports whether an answer came to its end. An exchange that broke may wrap
// io.EOF.
func ended(err error) bool { return err == io.EOF } //nolint:errorlint // see above
