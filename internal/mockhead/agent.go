package mockhead

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"headway/api"
)

// The statuses that an agent reports.
const (
	statusActive   = "active"
	statusDraining = "draining"
)

// Bounds of an agent's patience.
const (
	minBackoff    = 200 * time.Millisecond
	maxBackoff    = 5 * time.Second
	callTimeout   = 5 * time.Second
	minInterval   = 100 * time.Millisecond // whatever a server says
	maxInterval   = 10 * time.Minute
	maxAnswer     = 64 << 10
	callsInARow   = 2 // registrations and reports that follow each other at once
	agentUserName = "headway-mockhead"
)

// AgentOptions say for which head an agent speaks, and to whom. Server,
// Registration and Load are required.
type AgentOptions struct {
	Server       string           // base URL of the router
	Registration api.Registration // the status in it is the agent's to set
	Load         func() Load
	Client       *http.Client // nil: one of its own
	Logger       *slog.Logger
	Random       *rand.Rand // for the jitter; nil: seeded anew
}

// Agent keeps one head registered: it registers, renews the lease by reporting
// the head's load as often as the server asks for, registers again when the
// server does not know it or knows a newer epoch, and backs off while the
// server is away.
type Agent struct {
	o       AgentOptions
	base    string
	changed chan struct{} // holds one when the status to report changed
	ready   chan struct{} // closed after the first accepted report

	mu       sync.Mutex
	state    AgentState
	status   string
	sequence uint64
}

// AgentState is what an agent knows of its lease.
type AgentState struct {
	Epoch         uint64 // 0: not registered
	Interval      time.Duration
	Registrations uint64 // accepted
	Reports       uint64 // accepted
	Failures      uint64 // calls without a good answer
	LastError     string // of the last call, empty when it was good
}

// NewAgent makes an agent that has not yet called anyone.
func NewAgent(o AgentOptions) (*Agent, error) {
	u, err := url.Parse(o.Server)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("make an agent: %q is no http or https URL of a router", o.Server)
	}
	if o.Registration.ID == "" || o.Load == nil {
		return nil, errors.New("make an agent: it needs a head's id and load")
	}
	if o.Client == nil {
		o.Client = &http.Client{Transport: &http.Transport{IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 1}}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Random == nil {
		o.Random = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	return &Agent{
		o: o, base: strings.TrimSuffix(o.Server, "/") + "/api/v1/heads", status: statusActive,
		changed: make(chan struct{}, 1), ready: make(chan struct{}),
	}, nil
}

// State is what the agent knows now.
func (a *Agent) State() AgentState {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state
}

// Ready is closed after the first accepted report: from then on the head takes
// requests.
func (a *Agent) Ready() <-chan struct{} { return a.ready }

// Drain lets the agent report draining, at once and from then on.
func (a *Agent) Drain() {
	a.mu.Lock()
	a.status = statusDraining
	a.mu.Unlock()
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// Run keeps the head registered until ctx ends. It leaves the lease to run
// out; [Agent.Deregister] ends it at once.
func (a *Agent) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	backoff := time.Duration(0)
	for straight := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-a.changed:
		}
		epoch := a.State().Epoch
		wait, err := a.call(ctx, epoch)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			backoff = 0
			if epoch != 0 {
				straight = 0
			}
		case errors.Is(err, errRegisterAgain) && straight < callsInARow:
			straight++
			wait = 0
		default:
			// Two heads under one id would otherwise take the lease from each
			// other as fast as the server answers.
			backoff = a.nextBackoff(backoff)
			wait = max(wait, backoff)
		}
		timer.Reset(wait)
	}
}

// nextBackoff draws a wait between the least and three times the last one, so
// that the agents of a fleet don't come back in step.
func (a *Agent) nextBackoff(last time.Duration) time.Duration {
	most := min(maxBackoff, max(3*last, 2*minBackoff))
	return minBackoff + time.Duration(a.o.Random.Int64N(int64(most-minBackoff)+1))
}

// errRegisterAgain says that the lease is gone.
var errRegisterAgain = errors.New("the lease is gone")

// call registers or reports, whichever is due, and returns how long to wait
// until the next call. With an error that is the least that the server asks
// for.
func (a *Agent) call(ctx context.Context, epoch uint64) (time.Duration, error) {
	if epoch == 0 {
		return a.register(ctx)
	}
	return a.report(ctx, epoch)
}

func (a *Agent) register(ctx context.Context) (time.Duration, error) {
	var answer api.RegistrationAnswer
	r := a.o.Registration
	a.mu.Lock()
	r.Status = a.status
	a.mu.Unlock()
	status, wait, err := a.send(ctx, http.MethodPost, a.base, r, &answer)
	if err == nil && status != http.StatusOK && status != http.StatusCreated {
		err = fmt.Errorf("unexpected status %d", status)
	}
	if err == nil && answer.Lease.Epoch == 0 {
		err = errors.New("the lease has no epoch")
	}
	if err != nil {
		err = fmt.Errorf("register %s: %w", r.ID, err)
		a.failed(err, false)
		return wait, err
	}
	a.mu.Lock()
	a.state.Epoch = answer.Lease.Epoch
	a.state.Registrations++
	a.sequence = 0
	a.mu.Unlock()
	a.o.Logger.Info("registered", "head", r.ID, "epoch", answer.Lease.Epoch)
	a.renewed(&answer.Lease)
	return 0, nil // the first report follows at once, since it makes the head routable
}

func (a *Agent) report(ctx context.Context, epoch uint64) (time.Duration, error) {
	l := reported(a.o.Load())
	a.mu.Lock()
	a.sequence++
	r := api.StatusReport{Epoch: epoch, Status: a.status, Load: &l, Sequence: a.sequence}
	a.mu.Unlock()
	var answer api.StatusAnswer
	status, wait, err := a.send(ctx, http.MethodPut, a.headURL()+"/status", r, &answer)
	switch {
	case status == http.StatusNotFound, status == http.StatusConflict:
		err = fmt.Errorf("report %s: status %d: %w", a.o.Registration.ID, status, errRegisterAgain)
		a.failed(err, true)
		return wait, err
	case err != nil:
		err = fmt.Errorf("report %s: %w", a.o.Registration.ID, err)
		a.failed(err, false)
		return wait, err
	}
	a.mu.Lock()
	a.state.Reports++
	first := a.state.Reports == 1
	a.mu.Unlock()
	if first {
		close(a.ready)
	}
	return a.renewed(&answer.Lease), nil
}

// Deregister ends the lease at once; Run must have returned, or it registers
// anew. A head that the server does not know is gone already.
func (a *Agent) Deregister(ctx context.Context) error {
	status, _, err := a.send(ctx, http.MethodDelete, a.headURL(), nil, nil)
	if err != nil && status != http.StatusNotFound {
		return fmt.Errorf("deregister %s: %w", a.o.Registration.ID, err)
	}
	a.mu.Lock()
	a.state.Epoch = 0
	a.mu.Unlock()
	return nil
}

func (a *Agent) headURL() string { return a.base + "/" + url.PathEscape(a.o.Registration.ID) }

// renewed notes a good answer and returns how long until the next report.
func (a *Agent) renewed(l *api.Lease) time.Duration {
	interval := time.Duration(l.HeartbeatIntervalSeconds * float64(time.Second))
	interval = min(max(interval, minInterval), maxInterval)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state.Interval = interval
	a.state.LastError = ""
	return interval
}

// failed notes a call without a good answer; gone says that the lease is lost.
func (a *Agent) failed(err error, gone bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state.Failures++
	if a.state.LastError == "" {
		a.o.Logger.Warn("the router gave no good answer", "head", a.o.Registration.ID, "error", err)
	}
	a.state.LastError = err.Error()
	if gone {
		a.state.Epoch = 0
	}
}

// send makes one call. For a status of 400 and above it returns an error with
// the problem's detail, and how long the server asks to wait.
func (a *Agent) send(ctx context.Context, method, target string, in, out any) (status int, wait time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var body io.Reader = http.NoBody
	if in != nil {
		body = bytes.NewReader(encode(in))
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return 0, 0, err
	}
	req.Header.Set("User-Agent", agentUserName)
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := a.o.Client.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return resp.StatusCode, 0, err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return resp.StatusCode, retryAfter(resp.Header), problemOf(resp.StatusCode, text)
	}
	if out == nil {
		return resp.StatusCode, 0, nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return resp.StatusCode, 0, fmt.Errorf("read the answer: %w", err)
	}
	return resp.StatusCode, 0, nil
}

// retryAfter reads a number of seconds; dates are not used between us.
func retryAfter(h http.Header) time.Duration {
	n, err := strconv.ParseUint(h.Get("Retry-After"), 10, 16)
	if err != nil {
		return 0
	}
	return min(time.Duration(n)*time.Second, time.Minute)
}

// reported is a load on the wire: an engine knows all of it.
func reported(l Load) api.Load {
	running, waiting := int64(l.Running), int64(l.Waiting)
	pending, capacity := int64(l.PendingPromptTokens), int64(l.KVCapacityTokens)
	return api.Load{
		InFlight: &running, Queued: &waiting, PendingPromptTokens: &pending,
		KVCacheUsage: &l.KVUsage, KVCapacityTokens: &capacity,
		Utilization: &l.Utilization, TokensPerSecond: &l.TokensPerSecond,
	}
}

// problemOf makes an error of an RFC 9457 problem, or of a status alone.
func problemOf(status int, text []byte) error {
	var p api.Problem
	if json.Unmarshal(text, &p) != nil || p.Code == "" {
		return fmt.Errorf("status %d", status)
	}
	for _, f := range p.Errors {
		p.Detail += fmt.Sprintf("; %s: %s", f.Pointer, f.Reason)
	}
	return fmt.Errorf("status %d, %s: %s", status, p.Code, p.Detail)
}
