// Package app builds the service in one straight line, runs it and stops it
// last-in-first-out.
package app

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/access"
	"headway/internal/admission"
	"headway/internal/agent"
	"headway/internal/apiv1"
	"headway/internal/audit"
	"headway/internal/boltstore"
	"headway/internal/config"
	"headway/internal/decisionlog"
	"headway/internal/effectiveness"
	"headway/internal/event"
	"headway/internal/healthcheck"
	"headway/internal/httpapi"
	"headway/internal/live"
	"headway/internal/local"
	"headway/internal/monitor"
	"headway/internal/natsmq"
	"headway/internal/outbound"
	"headway/internal/pki"
	"headway/internal/policy"
	"headway/internal/proxy"
	"headway/internal/redisaudit"
	"headway/internal/registry"
	"headway/internal/routing"
	"headway/internal/strategy"
	"headway/internal/tracing"
	"headway/internal/trail"
	"headway/internal/upstream"
	"headway/internal/webhook"
)

// Options are what an App is made of.
type Options struct {
	Config  config.Config // that CheckHeads found no fault in
	Version string
	Commit  string
	Log     *slog.Logger // required
	// LogLinesLost is how many lines of Log could not be written; nil: that is not known.
	LogLinesLost func() uint64
}

// App is the built service, listening but not yet serving. Its fields stand in
// the order in which they are made.
type App struct {
	config   config.Config
	version  string
	log      *slog.Logger
	instance string // of this run; begins the ids of events
	metrics  *prometheus.Registry
	calls    *outbound.Calls
	messages *natsmq.Messages
	events   *event.Stream
	logged   *event.Subscription // from the start on, for the log

	listener     net.Listener
	dataListener net.Listener      // nil: listener serves the data plane too
	certs        *pki.Certificates // nil: no TLS
	access       access.Options    // without the keys at first
	webhooks     *webhook.Sender   // nil: no endpoints
	sink         trail.Sink        // the external Redis; nil: there is none

	store        *boltstore.Store
	journal      *audit.Journal
	auditFile    string
	signingKey   ed25519.PrivateKey   // of checkpoints; nil: they are not signed
	shippers     []*trail.Shipper     // what publishes the trail
	redis        *redisaudit.Embedded // nil: there is none
	guard        *access.Guard
	fleet        *registry.Registry
	admission    *admission.Admission
	known        *strategy.Known
	effect       *effectiveness.Watch
	decisionLog  *decisionlog.Log // nil: switched off
	router       *routing.Router
	policyFile   *policy.File
	verbs        *apiv1.Verbs
	live         *live.Hub
	queue        *natsmq.Queue // nil: switched off
	heads        *upstream.Heads
	headKeys     *headKeys
	checker      *healthcheck.Checker // nil: switched off
	tracer       *tracing.Tracer      // nil: switched off
	proxy        *proxy.Proxy
	monitor      *monitor.Monitor // nil: switched off
	monitorPages http.Handler     // nil: switched off
	console      http.Handler     // nil: switched off
	server       *httpapi.Server
	announcer    *local.Announcer
	roots        *x509.CertPool // of heads' certificates; nil: those of the system
	agents       *agent.Set     // of the static heads and those of discovery

	teardowns []teardown

	hurried context.Context // ends when work in flight is not waited for any more
	hurry   context.CancelFunc
}

// teardown ends a part of the service.
type teardown struct {
	part string
	stop func() error
}

// New builds the service and opens its listener. After an error everything
// opened is closed.
func New(ctx context.Context, o Options) (*App, error) {
	a := &App{config: o.Config, version: o.Version, log: o.Log, metrics: prometheus.NewRegistry(), instance: strings.ToLower(rand.Text()[:10])}
	registerProcess(a.metrics, o)
	a.hurried, a.hurry = context.WithCancel(context.Background())
	a.calls, a.messages, a.events = outbound.NewCalls(a.metrics), natsmq.NewMessages(a.metrics), event.New(a.metrics)
	a.logged = a.events.Subscribe()
	for _, step := range []func(context.Context) error{
		// Obstacles to a start are found before anything is written: an address
		// in use or reachable without credentials, forbidden servers, unreadable
		// files.
		a.listen, a.openCertificates, a.readAccess, a.check, a.openWebhooks, a.readRedis,
		a.openStore, a.openJournal, a.openRedis, a.openAccess, a.openFleet, a.openAdmission, a.openDecisionLog, a.openRouter, a.openLive,
		a.openQueue, a.openMonitor, a.openTracing, a.openProxy, a.openServer, a.announce,
	} {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, a.close())
		}
	}
	return a, nil
}

// onStop has a part ended before those that were opened earlier.
func (a *App) onStop(part string, stop func() error) {
	a.teardowns = append(a.teardowns, teardown{part, stop})
}

// close ends what New opened, last-in-first-out.
func (a *App) close() error {
	var errs []error
	for _, t := range slices.Backward(a.teardowns) {
		if err := t.stop(); err != nil {
			errs = append(errs, fmt.Errorf("stop the %s: %w", t.part, err))
		}
		a.log.Debug("stopped", "part", t.part)
	}
	a.teardowns = nil
	return errors.Join(errs...)
}

// Reload reads the policy file, the lists of heads and the certificates again and
// reopens the audit trail. A faulty part stays as it was.
func (a *App) Reload(ctx context.Context) error {
	heads, names, waiting, headsErr := a.reloadHeads()
	err := errors.Join(a.policyFile.Load(ctx), a.journal.Reopen(), a.reloadCertificates(), headsErr)
	e := audit.Entry{
		Category: audit.RoutingConfig, Action: "config.reload", Outcome: audit.Success,
		Actor: audit.Actor{Type: "system", Via: "signal"}, Target: audit.Target{Type: "config"},
	}
	if err != nil {
		e.Outcome, e.Reason = audit.Failure, err.Error()
	}
	a.journal.Note(e)
	changes := []any{"heads", heads, "discovery", names}
	if len(waiting) > 0 {
		changes = append(changes, "waits_for_start", strings.Join(waiting, ","))
	}
	switch {
	case err == nil:
		a.log.Info("reloaded: the policy file, the lists of heads, the certificates; the audit file is open again",
			append(changes, "policy_revision", a.router.Policy().Revision)...)
	case headsErr == nil:
		a.log.Info("reloaded: the lists of heads", changes...)
	}
	return err
}

// watchPolicy applies changes of the policy file.
func (a *App) watchPolicy(ctx context.Context) error {
	return everySecond(ctx, func() {
		if err := a.policyFile.Reload(ctx); err != nil {
			a.log.Error("the policy file is not in force; the policy is as it was", "error", err)
		}
	})
}

// watchCertificates applies changes of the certificates. They are read again
// each time, so a fault is logged once.
func (a *App) watchCertificates(ctx context.Context) error {
	logged := ""
	return everySecond(ctx, func() {
		fault := ""
		if err := a.reloadCertificates(); err != nil {
			fault = err.Error()
		}
		if fault != "" && fault != logged {
			a.log.Error("the certificates changed, and not all that changed is in force", "error", fault)
		}
		logged = fault
	})
}

// everySecond calls do until ctx ends. What is watched has a goroutine of its
// own, so that a disk that hangs holds up nothing else.
func everySecond(ctx context.Context, do func()) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			do()
		}
	}
}

// Addr is the listener's address.
func (a *App) Addr() net.Addr { return a.listener.Addr() }

// SkipLameDuck has a stop close the listener at once. It is called once.
func (a *App) SkipLameDuck() {
	a.log.Info("no lame duck: the stop was asked for at a terminal")
	a.server.SkipLameDuck()
}

// Cut has a stop wait for nothing any more: requests of the data plane end with an error,
// and Run says how many there were.
func (a *App) Cut() {
	a.log.Warn("a second signal: work in flight is cut; a third one ends the process at once")
	a.hurry()
}

// Run serves until ctx ends, then fails readiness, finishes work in flight and
// stops everything. It returns all failures.
func (a *App) Run(ctx context.Context) error {
	rooms, stopRooms := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRooms()
	stored := a.fromLists()
	running := newRunning()
	start := func(run func(context.Context) error) { running.start(rooms, run) }
	start(a.fleet.Run)
	start(a.router.Run)
	start(func(ctx context.Context) error { return a.access.Keys.Run(ctx, a.log) })
	if a.decisionLog != nil {
		start(a.decisionLog.Run)
	}
	start(a.live.Run)
	start(a.proxy.WatchKeys)
	start(a.proxy.PaceCollector)
	start(a.watchPolicy)
	start(a.agents.Run)
	start(func(ctx context.Context) error { return a.removeUnlisted(ctx, stored) })
	start(a.wakeWaiting)
	start(a.wakeWaitingAlways)
	start(a.forgetHeads)
	start(a.headKeys.follow)
	start(a.watchCertificates)
	start(a.logEvents)
	if a.checker != nil {
		start(a.checker.Run)
	}
	if a.webhooks != nil {
		start(a.webhooks.Run)
	}
	if a.queue != nil {
		start(a.queue.Run)
		a.log.Info("message queue", "mode", a.config.Queue.Mode, "addr", a.queue.Addr())
	}
	for _, s := range a.shippers {
		start(s.Run)
	}
	if a.monitor != nil {
		start(a.monitor.Run)
	}
	if a.tracer != nil {
		start(a.tracer.Run)
	}
	start(func(context.Context) error { return a.server.Serve(a.listener) })
	if a.dataListener != nil {
		start(func(context.Context) error { return a.server.ServeDataPlane(a.dataListener) })
		a.log.Info("the data plane listens", "addr", a.dataListener.Addr().String())
	}
	a.recordStart()
	if a.redis != nil {
		a.log.Info("the audit trail is published", "redis", a.redis.Addr().String(), "channel", a.config.Redis.Channel)
	}
	a.log.Info("listening", "addr", a.Addr().String(), "data_dir", a.config.DataDir,
		"heads", a.fleet.Snapshot().Heads, "policy_revision", a.router.Policy().Revision)

	select {
	case <-ctx.Done():
		a.log.Info("stopping: not ready any more, work in flight is finished; another signal cuts it",
			"shutdown_timeout", a.config.HTTP.ShutdownTimeout.String())
	case <-running.failed:
	}
	draining, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	defer context.AfterFunc(a.hurried, cut)() //nolint:contextcheck // a second signal ends it, not the first
	err := a.server.Drain(draining)
	stopRooms()
	err = errors.Join(running.wait(), err, a.close())
	if err == nil {
		a.log.Info("stopped", "reservations_open", a.router.Open())
	}
	return err
}
