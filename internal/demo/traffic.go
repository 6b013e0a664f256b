package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"headway/api"
	"headway/internal/workload"
)

// Bounds of the load generator.
const (
	maxConcurrent   = 1000 // requests in flight, a goroutine each
	lateAfter       = time.Second
	decideTimeout   = 5 * time.Second
	tellTimeout     = 2 * time.Second // for progress and outcome
	answerTimeout   = 5 * time.Minute
	maxAttempts     = 3 // heads asked for one request
	maxDecisionBody = 1 << 20
	streamInterval  = 16 // tokens in a chunk of the demo's heads
)

// traffic plays a workload against the router and the heads that it names.
type traffic struct {
	server string // base URL, no slash at its end
	router *http.Client
	client *http.Client // to the heads
	work   *workload.Workload
	stats  *stats
	slots  chan struct{}
}

// tokens are the counts of one answer.
type tokens struct{ input, output, cached int64 }

// failure is why a request or an attempt failed.
type failure struct {
	reason string // one of the fail constants
	status int    // of the head's answer, 0: none
	final  bool   // no other head can take over: tokens have come, or the request is at fault
}

func (f *failure) Error() string { return f.reason }

// run sends the workload until ctx ends, then waits for what is in flight, at
// most until patience ends.
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

// serve takes one request from its decision to its outcome.
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

// attempt asks the i-th head. The decision's own is the first; its place is
// given back by the outcome, and an alternative then answers without one.
func (t *traffic) attempt(ctx context.Context, began time.Time, d *api.Decision, i int, head api.DecisionHead, body []byte) error {
	sent := time.Now()
	var first time.Time
	u, err := t.ask(ctx, head, body, func() {
		first = time.Now()
		t.stats.firstToken(first, first.Sub(began))
		if i == 0 {
			t.tell(ctx, d.DecisionID, "progress", api.Progress{Event: "first_token"})
		}
	})
	now := time.Now()
	if i == 0 {
		t.tell(ctx, d.DecisionID, "outcome", newOutcome(ctx, u, err, sent, first, now))
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

// decide asks the router for a head.
func (t *traffic) decide(ctx context.Context, a *workload.Arrival) (*api.Decision, error) {
	input := int64(a.Input)
	in := api.DecisionRequest{ModelType: a.Model, Region: a.Region, InputTokens: &input}
	if a.Session {
		in.SessionKey = "conversation-" + strconv.FormatUint(a.Key, 36)
	}
	ctx, cancel := context.WithTimeout(ctx, decideTimeout)
	defer cancel()
	resp, err := post(ctx, t.router, t.server+"/api/v1/decisions", encode(in))
	if err != nil {
		return nil, &failure{reason: ifOver(ctx, failRouterDown)}
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxDecisionBody))
	if err != nil {
		return nil, &failure{reason: ifOver(ctx, failRouterDown)}
	}
	switch {
	case resp.StatusCode == http.StatusOK:
	case resp.StatusCode == http.StatusServiceUnavailable && bytes.Contains(text, []byte(api.CodeNoEligibleHead)):
		return nil, &failure{reason: failNoHead, status: resp.StatusCode}
	default:
		return nil, &failure{reason: fmt.Sprintf("%s: %d", failRouterRefused, resp.StatusCode), status: resp.StatusCode}
	}
	d := new(api.Decision)
	if err := json.Unmarshal(text, d); err != nil || d.DecisionID == "" || d.Head.Endpoint == "" {
		return nil, &failure{reason: failRouterRefused + ": no decision in its answer", status: resp.StatusCode}
	}
	return d, nil
}

// tell reports progress or an outcome. What the router does not hear, the
// decision's time limit makes good, so its failure changes nothing here. An
// outcome is told even when the demo stops.
func (t *traffic) tell(ctx context.Context, id, what string, v any) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellTimeout)
	defer cancel()
	resp, err := post(ctx, t.router, t.server+"/api/v1/decisions/"+id+"/"+what, encode(v))
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxDecisionBody)) // so that the connection serves again
	_ = resp.Body.Close()
}

func post(ctx context.Context, client *http.Client, url string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	return client.Do(req)
}

// ask gets a streamed answer of a head and calls first at its first token.
func (t *traffic) ask(ctx context.Context, head api.DecisionHead, body []byte, first func()) (tokens, error) {
	resp, err := post(ctx, t.client, strings.TrimSuffix(head.Endpoint, "/")+"/v1/chat/completions", body)
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
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxDecisionBody)) // so that the connection serves again
	return u, nil
}

// ifOver is the reason of a failed call: the context's when it has ended.
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

// newClient is one pool of connections to the router and all heads.
func newClient(heads int) *http.Client {
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
