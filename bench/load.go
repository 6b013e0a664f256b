package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// client is one keep-alive connection to a proxy.
type client struct {
	net.Conn
	r *bufio.Reader
}

func dial(ctx context.Context, addr string) (*client, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &client{c, bufio.NewReaderSize(c, 4<<10)}, nil
}

// completion is a request for a chat completion; to the head it says what it wishes.
func completion(key string, prompt int, wishes string) []byte {
	stream := ""
	if len(wishes) > 0 && wishes[0] == 'c' {
		stream = `"stream":true,`
	}
	body := append(fmt.Appendf(nil, `{"model":"m",%s"messages":[{"role":"user","content":"`, stream), bytes.Repeat([]byte("word "), prompt/5)...)
	body = fmt.Appendf(body, `"}],"user":"%s."}`, wishes)
	head := fmt.Appendf(nil, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: application/json\r\nContent-Type: application/json\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n", key, len(body))
	return append(head, body...)
}

// answer reads one answer. Began is when its first byte came.
func (c *client) answer() (began time.Time, err error) {
	if _, err = c.r.Peek(1); err != nil {
		return began, err
	}
	began = time.Now()
	length, chunked, status := -1, false, []byte(nil)
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return began, err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			break
		}
		if status == nil {
			status = append(status, line...)
			continue
		}
		length, chunked = framing(line, length, chunked)
	}
	if !bytes.Contains(status, []byte(" 200 ")) {
		rest, _ := c.r.Peek(min(max(length, 0), 1<<10))
		return began, fmt.Errorf("%s: %s", status, rest)
	}
	if !chunked {
		if length <= 0 {
			return began, errors.New("an answer without a body")
		}
		_, err = c.r.Discard(length)
		return began, err
	}
	for size := int64(1); size > 0; {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return began, err
		}
		if size, err = strconv.ParseInt(string(bytes.TrimRight(line, "\r\n")), 16, 32); err != nil {
			return began, err
		}
		if _, err := c.r.Discard(int(size) + 2); err != nil {
			return began, err
		}
	}
	return began, nil
}

func (c *client) exchange(request []byte) (toFirst time.Duration, err error) {
	begin := time.Now()
	if _, err := c.Write(request); err != nil {
		return 0, err
	}
	began, err := c.answer()
	return began.Sub(begin), err
}

// crowd are connections to one proxy.
type crowd []*client

func gather(ctx context.Context, addr string, n int) (c crowd, err error) {
	for range n {
		one, err := dial(ctx, addr)
		if err != nil {
			c.close()
			return nil, err
		}
		c = append(c, one)
	}
	return c, nil
}

func (c crowd) close() {
	for _, one := range c {
		_ = one.Close()
	}
}

// saturate sends requests over all connections, each after the answer to the one
// before.
func (c crowd) saturate(ctx context.Context, request []byte, total int) (took time.Duration, err error) {
	var left atomic.Int64
	left.Store(int64(total))
	errs := make([]error, len(c))
	begin := time.Now()
	var wait sync.WaitGroup
	for i, one := range c {
		wait.Go(func() {
			for left.Add(-1) >= 0 && errs[i] == nil && ctx.Err() == nil {
				_, errs[i] = one.exchange(request)
			}
		})
	}
	wait.Wait()
	return time.Since(begin), errors.Join(append(errs, ctx.Err())...)
}

// pace sends requests at a low rate over one connection, and returns the times to
// the first byte.
func pace(ctx context.Context, addr string, request []byte, n int, every time.Duration) ([]float64, error) {
	c, err := dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	times := make([]float64, 0, n)
	for range n {
		time.Sleep(every)
		took, err := c.exchange(request)
		if err != nil {
			return nil, err
		}
		times = append(times, float64(took.Nanoseconds()))
	}
	return times, nil
}

// together sends one request over each connection at once, and calls at when all
// are sent, before any is read to its end.
func (c crowd) together(request []byte, at func()) error {
	errs := make([]error, len(c))
	var sending, reading sync.WaitGroup
	sending.Add(len(c))
	for i, one := range c {
		reading.Go(func() {
			_, errs[i] = one.Write(request)
			sending.Done()
			if errs[i] == nil {
				_, errs[i] = one.answer()
			}
		})
	}
	sending.Wait()
	if at != nil {
		at()
	}
	reading.Wait()
	return errors.Join(errs...)
}
