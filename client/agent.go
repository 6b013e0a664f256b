package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"headway/api"
)

// The statuses of a head.
const (
	StatusActive   = "active"
	StatusDegraded = "degraded"
	StatusDraining = "draining"
	StatusOffline  = "offline"
)

// Bounds of retries.
const (
	minBackoff  = 200 * time.Millisecond
	maxBackoff  = 5 * time.Second
	maxRefused  = 30 * time.Second       // between calls that are refused for what they are
	agentCall   = 5 * time.Second        // one call
	minInterval = 100 * time.Millisecond // a lower bound on the router's interval
	maxInterval = 10 * time.Minute
	earliest    = 0.9 // of the interval: reports of a fleet spread, and none is late
	callsInARow = 2   // registrations and reports that follow each other at once
)

// Agent keeps one head registered. It registers, renews the lease with load
// reports at the router's interval, registers again if the router lost the head
// or knows a newer epoch, and backs off while the router is down. If another
// endpoint holds the lease it retries until that expires. TakeOver applies to
// the first accepted registration. It is safe for concurrent use.
type Agent struct {
	client       *Client
	registration api.Registration // its id and endpoint never change; the rest under mu
	load         func() api.Load
	changed      chan struct{} // holds one when the status to report changed
	ready        chan struct{} // closed after the first accepted report
	closed       context.Context
	close        context.CancelFunc

	running sync.Mutex // held by Run

	mu       sync.Mutex
	state    AgentState
	sequence uint64
	changes  uint64 // of the registration
}

// AgentState is an agent's view of its lease.
type AgentState struct {
	Status        string        // to report
	Epoch         uint64        // 0: not registered
	Interval      time.Duration // between reports, as the router asks
	ExpiresAt     time.Time     // of the lease, by the router's clock
	Registrations uint64        // accepted
	Reports       uint64        // accepted
	Failures      uint64        // calls without a good answer
	LastError     error         // of the last call; nil when it was good
}

// NewAgent makes an agent of a head. The status in r is the first one, active
// if empty. load is called before each report and must not block. [Agent.Run]
// makes the first call.
func (c *Client) NewAgent(r api.Registration, load func() api.Load) (*Agent, error) {
	if r.ID == "" || r.Endpoint == "" || load == nil {
		return nil, errors.New("make an agent: it needs the head's id, endpoint and load")
	}
	status := cmp.Or(r.Status, StatusActive)
	if !knownStatus(status) {
		return nil, fmt.Errorf("make an agent of %s: there is no status %q", r.ID, status)
	}
	r.Load = nil // the first report brings it
	a := &Agent{
		client: c, registration: r, load: load, state: AgentState{Status: status},
		changed: make(chan struct{}, 1), ready: make(chan struct{}),
	}
	a.closed, a.close = context.WithCancel(context.Background())
	return a, nil
}

func knownStatus(status string) bool {
	return slices.Contains([]string{StatusActive, StatusDegraded, StatusDraining, StatusOffline}, status)
}

// State is what the agent knows now.
func (a *Agent) State() AgentState {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state
}

// Ready is closed after the first accepted report: an active head takes
// requests from then on.
func (a *Agent) Ready() <-chan struct{} { return a.ready }

// SetStatus reports another status, at once and from then on. An unknown status
// is an error.
func (a *Agent) SetStatus(status string) error {
	if !knownStatus(status) {
		return fmt.Errorf("set the status of %s: there is no status %q", a.registration.ID, status)
	}
	a.mu.Lock()
	a.state.Status = status
	a.mu.Unlock()
	select {
	case a.changed <- struct{}{}:
	default: // it is to be reported already
	}
	return nil
}

// Serve changes the model types and the capacity of the head; nil is an unknown
// one. The head registers again at once, with a new epoch, also if they are as
// before.
func (a *Agent) Serve(modelTypes []string, c *api.Capacity) {
	a.mu.Lock()
	a.registration.ModelTypes, a.registration.ModelType, a.registration.Capacity = slices.Clone(modelTypes), "", c
	a.changes++
	a.state.Epoch = 0
	a.mu.Unlock()
	select {
	case a.changed <- struct{}{}:
	default: // it is to be reported already
	}
}

// Drain reports draining: no new requests come, running ones may finish.
func (a *Agent) Drain() { _ = a.SetStatus(StatusDraining) }

// Run keeps the head registered until ctx ends or the agent is closed. It lets
// the lease expire; [Agent.Close] ends it at once. A second Run waits for the
// first.
func (a *Agent) Run(ctx context.Context) {
	a.running.Lock()
	defer a.running.Unlock()
	if a.closed.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(a.closed, cancel)() //nolint:contextcheck // the agent's own
	timer := time.NewTimer(0)
	defer timer.Stop()
	changed := a.changed // nil while backing off: no status change is worth more calls then
	var backoff time.Duration
	for straight := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-changed:
		}
		if ctx.Err() != nil {
			return
		}
		epoch := a.State().Epoch
		wait, err := a.step(ctx, epoch)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			backoff, changed = 0, a.changed
			if epoch != 0 {
				straight = 0
			}
		case errors.Is(err, errGone) && straight < callsInARow:
			straight++
			wait = 0
		default:
			// Two heads with one id would otherwise take the lease from each
			// other at full speed.
			backoff = a.nextBackoff(backoff, err)
			wait, changed = max(wait, backoff), nil
		}
		timer.Reset(wait)
	}
}

// nextBackoff draws a wait between the minimum and three times the last one, so
// that agents do not retry in step.
func (a *Agent) nextBackoff(last time.Duration, err error) time.Duration {
	bound := maxBackoff
	if errors.Is(err, ErrUnauthorized) || errors.Is(err, ErrForbidden) || errors.Is(err, ErrInvalid) {
		bound = maxRefused
	}
	most := min(bound, max(3*last, 2*minBackoff))
	return minBackoff + time.Duration(a.client.random()*float64(most-minBackoff))
}

// errGone reports a lost lease.
var errGone = errors.New("the lease is gone")

// step registers or reports, and returns the wait before the next call, after
// an error the least.
func (a *Agent) step(ctx context.Context, epoch uint64) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, agentCall)
	defer cancel()
	if epoch == 0 {
		return a.register(ctx)
	}
	return a.report(ctx, epoch)
}

func (a *Agent) register(ctx context.Context) (time.Duration, error) {
	a.mu.Lock()
	r, changes := a.registration, a.changes
	r.Status = a.state.Status
	a.mu.Unlock()
	k := registering(&r)
	k.once = true // the agent retries
	out, err := fetch[api.RegistrationAnswer](ctx, a.client, k)
	if err == nil && out.Lease.Epoch == 0 {
		err = fmt.Errorf("register head %s: %w: the lease has no epoch", r.ID, ErrAnswer)
	}
	if err != nil {
		return a.failed(err), err
	}
	a.mu.Lock()
	if changes == a.changes { // else it registers again
		a.state.Epoch = out.Lease.Epoch
	}
	a.state.Registrations++
	a.registration.TakeOver = false // once: two agents must not take the head from each other for ever
	a.sequence = 0
	a.mu.Unlock()
	a.client.log.Info("registered", "head", r.ID, "epoch", out.Lease.Epoch)
	for _, w := range out.Warnings {
		a.client.log.Warn("registered, with a warning", "head", r.ID, "warning", w)
	}
	a.renewed(&out.Lease)
	return 0, nil // the first report follows at once, since it makes the head routable
}

func (a *Agent) report(ctx context.Context, epoch uint64) (time.Duration, error) {
	l := a.load()
	a.mu.Lock()
	a.sequence++
	r := api.StatusReport{Epoch: epoch, Status: a.state.Status, Load: &l, Sequence: a.sequence}
	a.mu.Unlock()
	k := reporting(a.registration.ID, &r)
	k.once = true // the agent retries
	out, err := fetch[api.StatusAnswer](ctx, a.client, k)
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrConflict) {
		err = fmt.Errorf("%w: %w", errGone, err)
	}
	if err != nil {
		return a.failed(err), err
	}
	a.mu.Lock()
	a.state.Reports++
	first := a.state.Reports == 1
	a.mu.Unlock()
	if first {
		close(a.ready)
	}
	return a.renewed(&out.Lease), nil
}

func (a *Agent) renewed(l *api.Lease) time.Duration {
	seconds := min(l.HeartbeatIntervalSeconds, maxInterval.Seconds())
	interval := max(time.Duration(seconds*float64(time.Second)), minInterval)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state.Interval, a.state.ExpiresAt, a.state.LastError = interval, l.ExpiresAt, nil
	return time.Duration((earliest + (1-earliest)*a.client.random()) * float64(interval))
}

// failed notes a failed call, and returns the router's Retry-After. The first
// of several in a row is logged.
func (a *Agent) failed(err error) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state.Failures++
	if a.state.LastError == nil {
		a.client.log.Warn("the router gave no good answer", "head", a.registration.ID, "error", err)
	}
	a.state.LastError = err
	if errors.Is(err, errGone) {
		a.state.Epoch = 0
	}
	if refused, ok := errors.AsType[*Error](err); ok {
		return min(refused.RetryAfter, time.Minute)
	}
	return 0
}

// Deregister ends the lease at once. Run must have returned, or it registers
// again. An unknown head is no error.
func (a *Agent) Deregister(ctx context.Context) error {
	if err := a.client.DeleteHead(ctx, a.registration.ID); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state.Epoch = 0
	return nil
}

// Close ends Run, waits for it and deregisters the head, within ctx. A later
// Run returns at once.
func (a *Agent) Close(ctx context.Context) error {
	a.close()
	a.running.Lock() // Run gives it back: its calls have ended by now
	defer a.running.Unlock()
	return a.Deregister(ctx)
}
