// Package agent keeps inference engines registered that know nothing of
// Headway: it probes one, and registers and reports for it.
package agent

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"headway/api"
	"headway/internal/engines"
	"headway/internal/fleet"
	"headway/internal/outbound"
	"headway/internal/strict"
)

// The bounds of an agent's work.
const (
	DefaultInterval   = 2 * time.Second
	DefaultDrainLimit = 30 * time.Second

	probeLimit = 5 * time.Second // of all calls of one probe
	closeLimit = 5 * time.Second // of ending the lease
	tooMany    = 3               // failures in a row that change the status
	idleEnough = 2               // probes in a row that find no request: callers may be on their way at the first
)

// Lease keeps one head registered, as client.Agent does. Its methods are safe
// for concurrent use, and only Run and Close block.
type Lease interface {
	Run(ctx context.Context)                    // registers, and reports until ctx ends or it is closed
	SetStatus(status string) error              // reports it at once; an error is an unknown status
	Serve(models []string, limit *api.Capacity) // registers again with these
	Close(ctx context.Context) error            // ends Run and deregisters
}

// Options say what is registered. Engine, URL, Registration.ID, .Endpoint and
// .Region, and Open are required.
type Options struct {
	Engine         *engines.Engine
	URL            string                 // of the engine's API, without a path
	MetricsURL     string                 // of its metrics, without a path; "": URL
	Key            func() (string, error) // the engine's own API key; nil: it needs none
	Transport      http.RoundTripper      // nil: one that checks addresses and uses no proxy
	RootCAs        *x509.CertPool         // of the engine, in that transport; nil: those of the system
	Count          *outbound.Counter      // of calls to the engine; nil: they are not counted
	AllowLinkLocal bool                   // of the engine

	Registration api.Registration // its model types, if any, replace what the engine lists
	Open         func(r api.Registration, load func() fleet.Load) (Lease, error)
	Interval     time.Duration // between probes; 0: DefaultInterval
	DrainLimit   time.Duration // of waiting for requests at the end; 0: DefaultDrainLimit
	Log          *slog.Logger  // nil: none
}

// Agent keeps one engine registered.
type Agent struct {
	Options
	source engines.Source
	fixed  []string // model types that were configured

	load atomic.Pointer[fleet.Load] // for the next report
	key  atomic.Pointer[string]     // as last read; nil: it was not yet

	// Of Run's goroutine.
	lease   Lease
	keeping sync.WaitGroup // the lease's Run
	status  string         // reported
	served  []string
	limit   int64   // requests at a time; 0: unknown
	started float64 // the engine's process
	unwell  int     // probes in a row that found the engine unable to work
	silent  int     // probes in a row without its models or metrics
	trouble string  // as logged
	left    string  // models that the head cannot have, as logged
}

// New makes an agent.
func New(o Options) (*Agent, error) {
	for _, required := range []struct {
		name    string
		missing bool
	}{
		{"Engine", o.Engine == nil},
		{"URL", o.URL == ""},
		{"Open", o.Open == nil},
		{"Registration.ID", o.Registration.ID == ""},
		{"Registration.Endpoint", o.Registration.Endpoint == ""},
		{"Registration.Region", o.Registration.Region == ""},
	} {
		if required.missing {
			return nil, fmt.Errorf("make an agent: %s is missing", required.name)
		}
	}
	if o.Interval == 0 {
		o.Interval = DefaultInterval
	}
	if o.DrainLimit == 0 {
		o.DrainLimit = DefaultDrainLimit
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Log = o.Log.With("head", o.Registration.ID)
	if o.Transport == nil {
		t := outbound.NewTransport(outbound.Options{Timeout: probeLimit, AllowLinkLocal: o.AllowLinkLocal, Setting: "heads.allow_link_local"})
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs}
		o.Transport = t
	}
	if o.MetricsURL == "" {
		o.MetricsURL = o.URL
	}
	o.Registration.Engine = o.Engine.Name
	a := &Agent{Options: o, fixed: o.Registration.ModelTypes, status: fleet.StatusActive.String()}
	if o.Registration.Capacity != nil {
		a.limit = o.Registration.Capacity.MaxInFlight
	}
	a.source = engines.Source{Engine: o.Engine, URL: o.URL, MetricsURL: o.MetricsURL, HTTP: &http.Client{
		Transport:     &counted{o.Transport, o.Count},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if o.Key != nil {
		a.source.Key = func() (string, error) {
			key, err := o.Key()
			if err == nil {
				a.key.Store(&key)
			}
			return key, err
		}
	}
	return a, nil
}

// counted counts the calls to an engine. A status below 500 is a success: engines
// that have no metrics or no list of slots answer 404.
type counted struct {
	http.RoundTripper
	count *outbound.Counter
}

// RoundTrip implements http.RoundTripper.
func (c *counted) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := c.RoundTripper.RoundTrip(r)
	if !errors.Is(r.Context().Err(), context.Canceled) { // else the agent has ended
		c.count.Add(err == nil && answer.StatusCode < http.StatusInternalServerError)
	}
	return answer, err
}

// CloseIdleConnections is what http.Client asks of its transport.
func (c *counted) CloseIdleConnections() {
	if t, ok := c.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// Run probes the engine and keeps it registered from the first probe on that
// finds it able to work. When leave is closed it drains the head, waits for its
// requests within the limit, and deregisters it. When ctx ends it returns at
// once: the head stays registered until its lease expires. It is called once.
func (a *Agent) Run(ctx context.Context, leave <-chan struct{}) error {
	defer a.source.HTTP.CloseIdleConnections()
	defer a.keeping.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tick := time.NewTicker(a.Interval)
	defer tick.Stop()
	for {
		if err := a.probe(ctx, leave); err != nil {
			return err
		}
		select {
		case <-leave:
			return a.leave(ctx, tick.C)
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// probe asks the engine and follows what it says, unless the end comes between:
// what fails then says nothing of the engine.
func (a *Agent) probe(ctx context.Context, leave <-chan struct{}) error {
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	found := make(chan finding, 1)
	go func() { found <- a.ask(asking) }()
	select {
	case f := <-found:
		if ctx.Err() != nil {
			return nil
		}
		return a.follow(ctx, f)
	case <-leave:
		cancel()
		<-found
		return nil
	}
}

// finding is what one probe found.
type finding struct {
	unwell error // the engine cannot work, or serves nothing
	silent error // it does not say what it serves, or how loaded it is
	models []string
	left   []string // models that the head cannot have
	load   engines.Load
}

// ask probes the engine once.
func (a *Agent) ask(ctx context.Context) finding {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	f := finding{models: a.fixed, load: engines.UnknownLoad()}
	if f.unwell = a.source.Healthy(ctx); f.unwell != nil {
		return f
	}
	if len(a.fixed) == 0 {
		if f.models, f.left, f.silent = a.source.Models(ctx); f.silent == nil && len(f.models) == 0 {
			f.unwell = errors.New("the engine serves no model that a head can have")
			return f
		}
	}
	var err error
	f.load, err = a.source.Load(ctx)
	f.silent = cmp.Or(f.silent, err)
	return f
}

// follow registers and reports what a probe found. A single failure changes
// nothing, since a busy engine may answer late.
func (a *Agent) follow(ctx context.Context, f finding) error {
	if f.models != nil || f.left != nil {
		a.noteLeft(f.left)
	}
	a.note(cmp.Or(f.unwell, f.silent))
	a.load.Store(&f.load.Load)
	switch {
	case f.unwell != nil:
		a.unwell++
	case f.silent != nil:
		a.unwell, a.silent = 0, a.silent+1
	default:
		a.unwell, a.silent = 0, 0
	}
	if a.lease == nil {
		if f.unwell == nil && len(f.models) > 0 {
			return a.register(ctx, f)
		}
		return nil
	}
	status := a.status
	switch {
	case a.unwell >= tooMany:
		status = fleet.StatusOffline.String()
	case a.unwell > 0 || a.silent > 0 && a.silent < tooMany:
		// As before.
	case a.silent >= tooMany:
		status = fleet.StatusDegraded.String()
	default:
		status = fleet.StatusActive.String()
	}
	if f.unwell == nil {
		a.serve(f, a.status == fleet.StatusOffline.String() && status != a.status)
	}
	if status == a.status {
		return nil
	}
	a.Log.Info("status changed", "from", a.status, "to", status)
	a.status = status
	return a.lease.SetStatus(status)
}

// register opens the lease.
func (a *Agent) register(ctx context.Context, f finding) error {
	r := a.Registration
	r.ModelTypes, r.ModelType, r.Status = f.models, "", a.status
	a.served, a.started = f.models, f.load.Started
	if r.Capacity = a.capacity(f); r.Capacity != nil {
		a.limit = r.Capacity.MaxInFlight
	}
	lease, err := a.Open(r, func() fleet.Load { return *a.load.Load() })
	if err != nil {
		return err
	}
	a.lease = lease
	a.keeping.Go(func() { lease.Run(ctx) })
	return nil
}

// serve registers the head again if what it serves changed, or if its engine is back
// or was started again, and so has forgotten its prefixes.
func (a *Agent) serve(f finding, back bool) {
	restarted := back || f.load.Started != 0 && a.started != 0 && f.load.Started != a.started
	if f.load.Started != 0 {
		a.started = f.load.Started
	}
	models := f.models
	if len(models) == 0 {
		models = a.served // it did not say
	}
	limit := a.capacity(f)
	if !restarted && slices.Equal(models, a.served) && (limit == nil || limit.MaxInFlight == a.limit) {
		return
	}
	a.Log.Info("registering again", "models", models, "engine_restarted", restarted)
	a.served = models
	if limit != nil {
		a.limit = limit.MaxInFlight
	}
	a.lease.Serve(models, limit)
}

// capacity is the configured limit of requests, else the engine's, as last
// heard; nil: unknown.
func (a *Agent) capacity(f finding) *api.Capacity {
	if a.Registration.Capacity != nil {
		return a.Registration.Capacity
	}
	if n := cmp.Or(f.load.MaxInFlight, a.limit); n > 0 {
		return &api.Capacity{MaxInFlight: n}
	}
	return nil
}

// note logs what is wrong with the engine when that changes.
func (a *Agent) note(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == a.trouble {
		return
	}
	a.trouble = text
	if err != nil {
		a.Log.Warn("the engine does not answer as it should", "error", err)
	} else {
		a.Log.Info("the engine answers again")
	}
}

// noteLeft logs which models of the engine are left out, when that changes.
func (a *Agent) noteLeft(models []string) {
	const most = 10
	var names []string
	for _, m := range models[:min(len(models), most)] {
		names = append(names, strict.Quote(m))
	}
	text := strings.Join(names, " ")
	if text == a.left {
		return
	}
	if a.left = text; text != "" {
		a.Log.Warn("models of the engine are left out: a head has too many already, or cannot have the name", "count", len(models), "models", text)
	}
}

// leave drains the head: it takes no new requests, ends those that it has
// within the limit, and is deregistered.
func (a *Agent) leave(ctx context.Context, tick <-chan time.Time) error {
	if a.lease == nil {
		return nil
	}
	a.Log.Info("draining", "limit", a.DrainLimit)
	err := a.lease.SetStatus(fleet.StatusDraining.String())
	drained := a.drained(ctx, tick)
	switch {
	case ctx.Err() != nil:
		return err
	case !drained:
		a.Log.Warn("requests may still run at the engine, and the limit of draining is reached")
	}
	closing, cancel := context.WithTimeout(ctx, closeLimit)
	defer cancel()
	if closed := a.lease.Close(closing); closed != nil {
		err = errors.Join(err, fmt.Errorf("deregister head %s: %w", a.Registration.ID, closed))
	} else {
		a.Log.Info("deregistered and stopped")
	}
	return err
}

// drained waits until the engine has no request or is gone, and reports whether
// that was within the limit. Without a count of requests it is not.
func (a *Agent) drained(ctx context.Context, tick <-chan time.Time) bool {
	ctx, cancel := context.WithTimeout(ctx, a.DrainLimit)
	defer cancel()
	for idle, gone := 0, 0; idle < idleEnough && gone < tooMany; {
		select {
		case <-ctx.Done():
			return false
		case <-tick:
		}
		f := a.ask(ctx)
		if ctx.Err() != nil {
			return false
		}
		a.load.Store(&f.load.Load)
		switch {
		case f.unwell != nil:
			gone++
		case f.load.InFlight == 0 && f.load.Queued <= 0:
			idle, gone = idle+1, 0
		default:
			idle, gone = 0, 0
		}
	}
	return true
}

// Report is a load as it is reported over the API: what is unknown is left out.
func Report(l fleet.Load) api.Load {
	count := func(n int64) *int64 {
		if n == fleet.Unknown {
			return nil
		}
		return &n
	}
	number := func(v float64) *float64 {
		if math.IsNaN(v) {
			return nil
		}
		return &v
	}
	return api.Load{
		InFlight: count(l.InFlight), Queued: count(l.Queued), PendingPromptTokens: count(l.PendingPromptTokens),
		KVCacheUsage: number(l.KVCacheUsage), KVCapacityTokens: count(l.KVCapacityTokens),
		Utilization: number(l.Utilization), TokensPerSecond: number(l.TokensPerSecond),
	}
}
