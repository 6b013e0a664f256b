package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"headway/api"
	"headway/client"
	"headway/internal/workload"
)

// Bounds of the load generator.
const (
	maxConcurrent  = 1000 // requests in flight, a goroutine each
	lateAfter      = time.Second
	decideTimeout  = 5 * time.Second
	reportTimeout  = 2 * time.Second // for progress and outcome
	answerTimeout  = 5 * time.Minute
	maxAttempts    = 3  // heads asked for one request
	streamInterval = 16 // tokens in a chunk of the demo's heads
)

type traffic struct {
	router *client.Client
	heads  *http.Client
	work   *workload.Workload
	stats  *stats
	slots  chan struct{}
}

type tokens struct{ input, output, cached int64 }

type failure struct {
	reason string // one of the fail constants
	status int    // of the head's answer, 0: none
	final  bool   // no other head can take over: tokens have come, or the request is at fault
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
	began := time.Now()
	d, err := t.decide(ctx, a)
	if err != nil {
		t.stats.failed(reasonOf(err))
		return
	}
	now := time.Now()
	t.stats.decided(now, d.Head.ID, d.Strategy, now.Sub(began))
	body := completion(a)
	targets := append([]api.DecisionHead{d.Head}, d.Alternatives...)
	for i, head := range targets[:min(len(targets), maxAttempts)] {
		err = t.attempt(ctx, began, d, i, head, body)
		if err == nil {
			return
		}
		var f *failure
		if ctx.Err() != nil || !errors.As(err, &f) || f.final {
			break
		}
	}
	t.stats.failed(reasonOf(err))
}

// attempt calls the i-th head: the decision's own, then the alternatives. The
// outcome of the first gives its place back; alternatives have none.
func (t *traffic) attempt(ctx context.Context, began time.Time, d *client.Decision, i int, head api.DecisionHead, body []byte) error {
	sent := time.Now()
	var first time.Time
	u, err := t.ask(ctx, head, body, func() {
		first = time.Now()
		t.stats.firstToken(first, first.Sub(began))
		if i == 0 {
			report(ctx, d.FirstToken)
		}
	})
	now := time.Now()
	if i == 0 {
		outcome := newOutcome(ctx, u, err, sent, first, now)
		report(ctx, func(ctx context.Context) error { return d.Outcome(ctx, outcome) })
	}
	if err != nil {
		if ctx.Err() == nil {
			t.stats.headFailed(head.ID)
		}
		return err
	}
	t.stats.finished(head.ID, i > 0, u)
	return nil
}

func (t *traffic) decide(ctx context.Context, a *workload.Arrival) (*client.Decision, error) {
	input := int64(a.Input)
	in := api.DecisionRequest{ModelType: a.Model, Region: a.Region, SessionKey: a.Session, InputTokens: &input}
	ctx, cancel := context.WithTimeout(ctx, decideTimeout)
	defer cancel()
	d, err := t.router.Decide(ctx, in)
	if err == nil {
		return d, nil
	}
	refused, answered := errors.AsType[*client.Error](err)
	switch {
	case errors.Is(err, client.ErrNoHead):
		return nil, &failure{reason: failNoHead}
	case answered:
		return nil, &failure{reason: fmt.Sprintf("%s: %d", failRouterRefused, refused.Status)}
	case errors.Is(err, client.ErrAnswer):
		return nil, &failure{reason: failRouterRefused + ": no decision in its answer"}
	}
	return nil, &failure{reason: ifOver(ctx, failRouterDown)}
}

// report sends progress or an outcome, also after ctx has ended. The router's
// time limit covers a lost report.
func report(ctx context.Context, send func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTimeout)
	defer cancel()
	_ = send(ctx)
}

// ask streams an answer of a head and calls first at its first token.
func (t *traffic) ask(ctx context.Context, head api.DecisionHead, body []byte, first func()) (tokens, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(head.Endpoint, "/")+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return tokens{}, &failure{reason: failHeadDown}
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := t.heads.Do(req)
	if err != nil {
		return tokens{}, &failure{reason: ifOver(ctx, failHeadDown)}
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		f := &failure{reason: failHeadBroken, status: resp.StatusCode}
		switch {
		case resp.StatusCode == http.StatusTooManyRequests:
			f.reason = failHeadBusy
		case resp.StatusCode < http.StatusInternalServerError:
			f.reason, f.final = fmt.Sprintf("%s: %d", failHeadRefused, resp.StatusCode), true
		}
		return tokens{}, f
	}
	u, begun, err := readStream(resp.Body, first)
	if err != nil {
		return u, &failure{reason: ifOver(ctx, failCut), status: resp.StatusCode, final: begun}
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxChunk)) // so that the connection serves again
	return u, nil
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

func reasonOf(err error) string {
	var f *failure
	if errors.As(err, &f) {
		return f.reason
	}
	return failHeadBroken
}

func newConnections(heads int) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
			MaxIdleConns:        maxConcurrent,
			MaxIdleConnsPerHost: max(64, maxConcurrent/max(1, heads)),
			IdleConnTimeout:     30 * time.Second,
			DisableCompression:  true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
