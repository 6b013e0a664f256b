package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/upstream"
)

// serveAs runs this program as a part of a measurement until it is ended.
func serveAs(part, target string) error {
	var c net.ListenConfig
	l, err := c.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	switch part {
	case "head":
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			go mockHead(c)
		}
	case base:
		return serveBase(l, reverseProxy(target))
	case pooled:
		p := reverseProxy(target)
		p.BufferPool = &copyBuffers{sync.Pool{New: func() any { return make([]byte, 32<<10) }}}
		return serveBase(l, p)
	case served:
		return serveBase(l, http.HandlerFunc(answerAlone))
	case relayed:
		h, err := relay(target)
		if err != nil {
			return err
		}
		return serveBase(l, h)
	}
	return fmt.Errorf("there is no part %q", part)
}

// reverseProxy is the base of the figures: what Go's standard library gives, tuned.
func reverseProxy(target string) *httputil.ReverseProxy {
	to := &url.URL{Scheme: "http", Host: target}
	return &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport: &http.Transport{MaxIdleConns: 4096, MaxIdleConnsPerHost: 4096, IdleConnTimeout: time.Minute, DisableCompression: true},
	}
}

// serveBase has nothing that a server need not have.
func serveBase(l net.Listener, h http.Handler) error {
	s := http.Server{Handler: duplex(h), ReadHeaderTimeout: time.Minute}
	return s.Serve(l)
}

// duplex lets a head answer before its request was read to the end. Without it
// ReverseProxy cuts some answers short.
func duplex(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		h.ServeHTTP(w, r)
	})
}

// answerAlone takes a request and answers what the mock head would: the least that
// a proxy on net/http's server has to do before its own work.
func answerAlone(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
	h := w.Header()
	h["Content-Type"], h["Content-Length"] = contentTypeJSON, answerLength
	_, _ = io.WriteString(w, chatAnswer)
}

var contentTypeJSON, answerLength = []string{"application/json"}, []string{strconv.Itoa(len(chatAnswer))}

// relay is net/http's server with Headway's own client of heads, and nothing else.
func relay(target string) (http.Handler, error) {
	limits := upstream.Limits{Connect: time.Second, Write: time.Minute, FirstByte: time.Minute, Idle: time.Minute, Total: time.Hour}
	heads, err := upstream.New(upstream.Options{
		Metrics: prometheus.NewRegistry(), Limits: limits, IdleTimeout: time.Minute, MaxOpen: 4096, MaxOpenPerHead: 4096, MaxIdlePerHead: 4096,
	})
	if err != nil {
		return nil, err
	}
	buffers := sync.Pool{New: func() any { return new([4 << 10]byte) }}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := buffers.Get().(*[4 << 10]byte)
		defer buffers.Put(b)
		n, err := io.ReadFull(r.Body, b[:])
		if err != io.ErrUnexpectedEOF { //nolint:errorlint // it comes as it is
			panic(http.ErrAbortHandler)
		}
		call := upstream.Call{Endpoint: "http://" + target, Method: r.Method, Path: r.URL.Path, Body: [][]byte{b[:n]}}
		res, err := heads.Do(r.Context(), &call)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer func() { _ = res.Body.Close() }()
		if n, err = io.ReadFull(res.Body, b[:]); err != io.ErrUnexpectedEOF { //nolint:errorlint // it comes as it is
			panic(http.ErrAbortHandler)
		}
		w.Header()["Content-Type"] = res.Header["Content-Type"]
		_, _ = w.Write(b[:n])
	}), nil
}

type copyBuffers struct{ pool sync.Pool }

func (b *copyBuffers) Get() []byte  { got, _ := b.pool.Get().([]byte); return got }
func (b *copyBuffers) Put(x []byte) { b.pool.Put(x) } //nolint:staticcheck // the interface takes a slice

// What the mock head answers.
const (
	chatAnswer = `{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hello there, this is a small answer"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":8,"total_tokens":18}}`
	chatChunk  = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}` + "\n\n"
	streamEnd  = "data: [DONE]\n\n"
	models     = `{"object":"list","data":[{"id":"m","object":"model","created":1700000000,"owned_by":"bench"}]}`
)

var (
	wholeAnswer = fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(chatAnswer), chatAnswer)
	listAnswer  = fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(models), models)
	streamBegin = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)

// framed is one piece of a chunked body.
func framed(s string) []byte { return fmt.Appendf(nil, "%x\r\n%s\r\n", len(s), s) }

// mockHead answers on one connection, as cheaply as it can. What it does stands in
// the request's user, which every proxy passes on: wait=MS before the answer;
// chunks=N for a stream, and pace=MS between them.
func mockHead(c net.Conn) {
	defer c.Close()
	r := bufio.NewReaderSize(c, 64<<10)
	chunk, last := framed(chatChunk), append(framed(streamEnd), "0\r\n\r\n"...)
	for {
		get, body, err := readRequest(r)
		if err != nil {
			return
		}
		if get {
			if _, err := io.WriteString(c, listAnswer); err != nil {
				return
			}
			continue
		}
		time.Sleep(time.Duration(wish(body, "wait=")) * time.Millisecond)
		n := wish(body, "chunks=")
		if n == 0 {
			if _, err := io.WriteString(c, wholeAnswer); err != nil {
				return
			}
			continue
		}
		if _, err := io.WriteString(c, streamBegin); err != nil {
			return
		}
		pace := time.Duration(wish(body, "pace=")) * time.Millisecond
		for range n {
			if _, err := c.Write(chunk); err != nil {
				return
			}
			time.Sleep(pace)
		}
		if _, err := c.Write(last); err != nil {
			return
		}
	}
}

// readRequest returns the end of a body, where the wishes stand.
func readRequest(r *bufio.Reader) (get bool, body []byte, err error) {
	length, chunked := 0, false
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return false, nil, err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			break
		}
		if first {
			get = bytes.HasPrefix(line, []byte("GET"))
			continue
		}
		length, chunked = framing(line, length, chunked)
	}
	if chunked {
		body, err = io.ReadAll(httputil.NewChunkedReader(r))
		if err == nil {
			_, err = r.Discard(2)
		}
		return get, body, err
	}
	if skip := length - r.Size(); skip > 0 {
		if _, err := r.Discard(skip); err != nil {
			return false, nil, err
		}
		length -= skip
	}
	if body, err = r.Peek(length); err == nil {
		_, err = r.Discard(length)
	}
	return get, body, err
}

// framing reads what a line of a header says of the body.
func framing(line []byte, length int, chunked bool) (int, bool) {
	name, value, _ := bytes.Cut(line, []byte{':'})
	switch {
	case len(name) == len("Content-Length") && bytes.EqualFold(name, []byte("Content-Length")):
		length, _ = strconv.Atoi(string(bytes.TrimSpace(value)))
	case len(name) == len("Transfer-Encoding") && bytes.EqualFold(name, []byte("Transfer-Encoding")):
		chunked = true
	}
	return length, chunked
}

func wish(body []byte, name string) int {
	_, value, ok := strings.Cut(string(body[max(0, len(body)-200):]), name)
	if !ok {
		return 0
	}
	end := strings.IndexFunc(value, func(r rune) bool { return r < '0' || r > '9' })
	n, _ := strconv.Atoi(value[:max(end, 0)])
	return n
}
