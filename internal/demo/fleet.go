package demo

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"headway/client"
	"headway/internal/engine"
	"headway/internal/mockhead"
)

// state is a head's stage of life.
type state string

const (
	stateUp       state = "up"
	stateDraining state = "draining"
	stateDying    state = "dying" // for the moment in which its connections are cut
	stateDown     state = "down"
)

const (
	drainTimeout = 60 * time.Second // for its requests in flight
	leaveTimeout = 8 * time.Second  // over the 5 s that a server waits for a connection's first request
	drainPoll    = 100 * time.Millisecond
)

type heads struct {
	units  []*unit
	router *client.Client // of the agents
	work   sync.WaitGroup // agents and drains
	over   chan struct{}  // closed when drains have waited long enough

	mu     sync.Mutex
	random *rand.Rand
	closed bool
	armed  bool   // the head that answers a request of no demo's is killed at it
	notes  []note // the newest last
}

type note struct {
	at   time.Time
	text string
}

const maxNotes = 20

// unit is one head with its agent. A restart gives it an empty cache.
type unit struct {
	id, model, region, zone string
	options                 mockhead.Options

	// Guarded by the mutex of heads.
	state state
	head  *mockhead.Head
	addr  string // where the head listens, over its restarts
	agent *client.Agent
	quiet context.CancelFunc // ends the agent
	known bool               // to the service: it may be registered there
}

func newHeads(o *Options, router *client.Client) *heads {
	f := &heads{router: router, random: rand.New(rand.NewPCG(o.Seed, 2)), over: make(chan struct{})}
	for i := range o.Heads {
		model := o.Models[i%len(o.Models)]
		place := i / len(o.Models)
		u := &unit{
			id: fmt.Sprintf("demo-%0*d", len(fmt.Sprint(o.Heads)), i+1), model: model,
			region: o.Regions[place%len(o.Regions)], zone: string(rune('a' + place/len(o.Regions)%3)),
			state: stateDown,
			options: mockhead.Options{
				Addr: o.Ports.address(i), Models: []string{model}, Speed: o.Speed, StreamInterval: streamInterval, Control: o.Faults, Logger: o.Logger,
			},
		}
		u.options.Dies = func(r *http.Request) bool { return f.dies(u, r) }
		f.units = append(f.units, u)
	}
	return f
}

// startAll starts the heads, up to the first failure. They run until stopAll,
// not until ctx ends.
func (f *heads) startAll(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, u := range f.units {
		if err := f.start(ctx, u); err != nil {
			return err
		}
	}
	return nil
}

// start starts a head; the caller holds the mutex.
func (f *heads) start(ctx context.Context, u *unit) error {
	ctx = context.WithoutCancel(ctx)
	o := u.options
	o.Addr = cmp.Or(o.Addr, u.addr) // the same head at another endpoint would be contested
	head, err := mockhead.Start(ctx, o)
	if err != nil && o.Addr != u.options.Addr { // another process has that port now
		head, err = mockhead.Start(ctx, u.options)
	}
	if err != nil {
		return err
	}
	agent, err := head.NewAgent(f.router, mockhead.Place{ID: u.id, Region: u.region, Zone: u.zone, Version: "demo", TakeOver: true})
	if err != nil {
		head.Close()
		return err
	}
	ctx, quiet := context.WithCancel(ctx)
	u.state, u.head, u.addr, u.agent, u.quiet, u.known = stateUp, head, strings.TrimPrefix(head.URL(), "http://"), agent, quiet, true
	f.work.Go(func() { agent.Run(ctx) })
	return nil
}

// pick returns a random head in a state, or nil; the caller holds the mutex.
func (f *heads) pick(s state) *unit {
	var list []*unit
	for _, u := range f.units {
		if u.state == s {
			list = append(list, u)
		}
	}
	if len(list) == 0 || f.closed {
		return nil
	}
	return list[f.random.IntN(len(list))]
}

// kill stops a random head like a crash: connections are cut, the router is not
// notified. It returns the head's id, "" if none is up.
func (f *heads) kill() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.pick(stateUp)
	if u == nil {
		f.note("no head is up to be killed")
		return ""
	}
	u.state = stateDown
	u.quiet()
	u.head.Close()
	f.note(u.id + " killed: its connections are cut, its reports stop")
	return u.id
}

// arm has the head killed that answers the next request from outside.
func (f *heads) arm() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = true
	f.note("the head that answers the next request from outside the demo will be killed in the middle of it")
}

// dies kills u if that was asked for and r is from outside the demo. The head cannot
// be closed before the handler of r has ended.
func (f *heads) dies(u *unit, r *http.Request) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.armed || f.closed || u.state != stateUp || r.UserAgent() == userAgent {
		return false
	}
	f.armed = false
	u.state = stateDying
	u.quiet()
	f.note(u.id + " killed in the middle of an answer: its connections are cut, its reports stop")
	f.work.Go(func() {
		u.head.Close()
		f.mu.Lock()
		defer f.mu.Unlock()
		u.state = stateDown
	})
	return true
}

// A damaged head goes wrong in one of these ways, for a time.
var damages = []struct {
	fault mockhead.Fault
	text  string
}{
	{mockhead.Fault{Kind: mockhead.ResetRequest}, "it resets connections"},
	{mockhead.Fault{Kind: mockhead.Status, Status: http.StatusInternalServerError}, "it answers 500"},
	{mockhead.Fault{Kind: mockhead.Status, Status: http.StatusTooManyRequests, RetryAfter: "2"}, "it answers 429 and asks for 2 s"},
	{mockhead.Fault{Kind: mockhead.Stall, After: 2, Seconds: 5}, "its answers pause for 5 s"},
	{mockhead.Fault{Kind: mockhead.Cut, After: 3}, "it breaks its answers off"},
}

const damageTime = 15 * time.Second

// damage makes a random head go wrong.
func (f *heads) damage() {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.pick(stateUp)
	if u == nil {
		f.note("no head is up to be damaged")
		return
	}
	d := damages[f.random.IntN(len(damages))]
	injection, err := u.head.Inject(d.fault)
	if err != nil {
		f.note(fmt.Sprintf("%s takes no fault: %v", u.id, err))
		return
	}
	f.note(fmt.Sprintf("%s damaged for %s: %s", u.id, damageTime, d.text))
	f.work.Go(func() {
		timer := time.NewTimer(damageTime)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-f.over:
		}
		injection.Remove()
	})
}

// revive starts the named head, or a random one that is down.
func (f *heads) revive(ctx context.Context, id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.pick(stateDown)
	for _, other := range f.units {
		if other.id == id && other.state == stateDown && !f.closed {
			u = other
		}
	}
	if u == nil {
		f.note("no head is down to be started")
		return
	}
	if err := f.start(ctx, u); err != nil {
		f.note(fmt.Sprintf("%s does not start: %v", u.id, err))
		return
	}
	f.note(u.id + " started: with an empty cache")
}

// drain makes a random head report draining, finish and deregister.
func (f *heads) drain(ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.pick(stateUp)
	if u == nil {
		f.note("no head is up to be drained")
		return
	}
	u.state = stateDraining
	u.agent.Drain()
	f.note(u.id + " draining: it takes no new requests and finishes the others")
	f.work.Go(func() { f.finish(ctx, u) })
}

func (f *heads) finish(ctx context.Context, u *unit) {
	deadline := time.NewTimer(drainTimeout)
	defer deadline.Stop()
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	// Requests decided before the router learned of the drain are still to
	// come, so one idle moment is not enough.
	for idle, waiting := 0, true; waiting && idle < 5; {
		select {
		case <-tick.C:
		case <-deadline.C:
			waiting = false
		case <-f.over:
			waiting = false
		}
		if l := u.head.Load(); l.Running+l.Waiting == 0 {
			idle++
		} else {
			idle = 0
		}
	}
	err := u.leave(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	u.state, u.known = stateDown, err != nil
	if err != nil {
		f.note(fmt.Sprintf("%s drained, but: %v", u.id, err))
		return
	}
	f.note(u.id + " drained and deregistered")
}

func (u *unit) leave(ctx context.Context) error {
	defer u.quiet()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	return cmp.Or(u.agent.Close(ctx), u.head.Shutdown(ctx))
}

// stopAll stops every head, and waits for all goroutines of the fleet. Those that
// were killed are deregistered too: they do not come back. The error is that of the
// first head that failed.
func (f *heads) stopAll(ctx context.Context) error {
	f.mu.Lock()
	f.closed = true
	var known []*unit
	for _, u := range f.units {
		if u.known && u.state != stateDraining {
			u.state = stateDown
			known = append(known, u)
		}
	}
	f.mu.Unlock()
	errs := make([]error, len(known))
	var leaving sync.WaitGroup
	for i, u := range known {
		leaving.Go(func() { errs[i] = u.leave(ctx) })
	}
	close(f.over)
	leaving.Wait()
	f.work.Wait()
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("heads that did not leave: %d of %d; the first: %w", len(errs), len(known), errs[0])
}

// note logs a line; the caller holds the mutex.
func (f *heads) note(text string) {
	f.notes = append(f.notes, note{time.Now(), strings.ReplaceAll(text, "\n", "; ")})
	if len(f.notes) > maxNotes {
		f.notes = f.notes[1:]
	}
}

type unitView struct {
	id, model, region string
	url               string // "" while it is down
	state             state
	load              engine.Load
	agent             client.AgentState
}

func (f *heads) view() ([]unitView, []note) {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]unitView, len(f.units))
	for i, u := range f.units {
		list[i] = unitView{id: u.id, model: u.model, region: u.region, state: u.state}
		if u.state != stateDown {
			list[i].load, list[i].url = u.head.Load(), u.head.URL()
		}
		if u.agent != nil {
			list[i].agent = u.agent.State()
		}
	}
	return list, append([]note(nil), f.notes...)
}

// awaitReady waits for a report of every head, or the end of ctx. It returns
// how many are ready.
func (f *heads) awaitReady(ctx context.Context) int {
	f.mu.Lock()
	var agents []*client.Agent
	for _, u := range f.units {
		agents = append(agents, u.agent)
	}
	f.mu.Unlock()
	n := 0
	for _, a := range agents {
		select {
		case <-a.Ready():
			n++
		case <-ctx.Done():
		}
	}
	return n
}
