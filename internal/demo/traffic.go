package demo

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"headway/client"
	"headway/internal/workload"
)

// Bounds of the load generator.
const (
	maxConcurrent  = 1000 // requests in flight, a goroutine each
	lateAfter      = time.Second
	lookTimeout    = 2 * time.Second // for what the service knows of the heads
	answerTimeout  = 5 * time.Minute
	streamInterval = 16 // tokens in a chunk of the demo's heads
)

// userAgent is that of the demo's own requests, which heads see too.
const userAgent = "headway-demo"

type traffic struct {
	router  *client.Client // for what the service knows of the heads
	service *http.Client   // for the requests
	url     string         // of chat completions
	work    *workload.Workload
	stats   *stats
	slots   chan struct{}
}

type tokens struct{ input, output, cached int64 }

// failure is why a request was not answered whole.
type failure struct {
	reason string // begins with one of the fail constants
	head   string // that began to answer; "": none did
}

func (f *failure) Error() string { return f.reason }

// run sends the workload until ctx ends, then waits for requests in flight
// until patience ends.
func (t *traffic) run(ctx, patience context.Context) {
	var inFlight sync.WaitGroup
	defer inFlight.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	start := time.Now()
	for {
		a := t.work.Next()
		late := time.Since(start.Add(a.At))
		timer.Reset(max(0, -late))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		if late > lateAfter {
			t.stats.wasLate()
			start = start.Add(late) // go on from here, without a burst
		}
		select {
		case t.slots <- struct{}{}:
			inFlight.Go(func() {
				defer func() { <-t.slots }()
				t.serve(patience, &a)
			})
		default:
			t.stats.failed(failCrowded)
		}
	}
}

func (t *traffic) serve(ctx context.Context, a *workload.Arrival) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if err := t.ask(ctx, a); err != nil {
		f, ok := errors.AsType[*failure](err)
		if !ok {
			f = &failure{reason: failRouterRefused}
		}
		if f.head != "" && ctx.Err() == nil {
			t.stats.headFailed(f.head)
		}
		t.stats.failed(f.reason)
	}
}

// ask streams the answer to one request, as any client of OpenAI would.
func (t *traffic) ask(ctx context.Context, a *workload.Arrival) error {
	began := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, bytes.NewReader(completion(a)))
	if err != nil {
		return err
	}
	h := req.Header
	h.Set("Content-Type", "application/json")
	h.Set("User-Agent", userAgent)
	h.Set("X-Headway-Region", a.Region)
	if a.Session != "" {
		h.Set("X-Headway-Session", a.Session)
	}
	resp, err := t.service.Do(req)
	if err != nil {
		return &failure{reason: ifOver(ctx, failRouterDown)}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxChunk)) // so that the connection serves again
		return &failure{reason: refused(resp.StatusCode)}
	}
	head := cmp.Or(resp.Header.Get("X-Headway-Head"), "unnamed")
	overhead, _ := strconv.ParseFloat(resp.Header.Get("X-Headway-Overhead-Ms"), 64)
	t.stats.begun(time.Now(), head, resp.Header.Get("X-Headway-Strategy"), time.Duration(overhead*float64(time.Millisecond)))
	u, err := readStream(resp.Body, func() {
		now := time.Now()
		t.stats.firstToken(now, now.Sub(began))
	})
	if err != nil {
		return &failure{reason: ifOver(ctx, failCut), head: head}
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxChunk))
	attempts := resp.Header.Get("X-Headway-Attempts")
	t.stats.finished(head, attempts != "" && attempts != "1", u)
	return nil
}

// refused is the reason of an answer with an error.
func refused(status int) string {
	switch status {
	case http.StatusServiceUnavailable:
		return failNoHead
	case http.StatusTooManyRequests:
		return failHeadBusy
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout:
		return failHeadBroken
	}
	return fmt.Sprintf("%s: %d", failRouterRefused, status)
}

// ifOver is the reason of a failed call, or the context's once it has ended.
func ifOver(ctx context.Context, reason string) string {
	switch err := ctx.Err(); {
	case errors.Is(err, context.DeadlineExceeded):
		return failTimeout
	case err != nil:
		return failStopped
	}
	return reason
}

func newConnections() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
			MaxIdleConns:        maxConcurrent,
			MaxIdleConnsPerHost: maxConcurrent,
			IdleConnTimeout:     30 * time.Second,
			DisableCompression:  true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
