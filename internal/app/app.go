// Package app builds the service in one straight line, runs it and stops it
// last-in-first-out.
package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"headway/internal/access"
	"headway/internal/apiv1"
	"headway/internal/audit"
	"headway/internal/boltstore"
	"headway/internal/config"
	"headway/internal/event"
	"headway/internal/httpapi"
	"headway/internal/live"
	"headway/internal/local"
	"headway/internal/monitor"
	"headway/internal/natsmq"
	"headway/internal/outbound"
	"headway/internal/pki"
	"headway/internal/policy"
	"headway/internal/redisaudit"
	"headway/internal/registry"
	"headway/internal/routing"
	"headway/internal/trail"
	"headway/internal/webhook"
)

// Options are what an App is made of.
type Options struct {
	Config  config.Config
	Version string
	Commit  string
	Log     *slog.Logger // required
}

// App is the built service, listening but not yet serving.
type App struct {
	config       config.Config
	log          *slog.Logger
	events       *event.Stream
	logged       *event.Subscription // from the start on, for the log
	fleet        *registry.Registry
	router       *routing.Router
	verbs        *apiv1.Verbs
	live         *live.Hub
	queue        *natsmq.Queue   // nil: switched off
	webhooks     *webhook.Sender // nil: no endpoints
	instance     string          // of this run; begins the ids of events
	policyFile   *policy.File
	server       *httpapi.Server
	journal      *audit.Journal
	trail        string                           // path of the audit file
	certs        *pki.Certificates                // nil: no TLS
	shippers     atomic.Pointer[[]*trail.Shipper] // what publishes the trail
	redis        *redisaudit.Embedded             // nil: there is none
	metrics      *prometheus.Registry
	calls        *outbound.Calls
	messages     *natsmq.Messages
	keys         *access.Keys
	monitor      *monitor.Monitor // nil: switched off
	monitorPages http.Handler     // nil: switched off
	console      http.Handler     // nil: switched off
	guard        *access.Guard
	listener     net.Listener
	announcer    *local.Announcer
	stops        []func() error // undone last-in-first-out
}

// New builds the service and opens its listener. After an error everything
// opened is closed.
func New(ctx context.Context, o Options) (_ *App, err error) {
	a := &App{config: o.Config, log: o.Log, metrics: prometheus.NewRegistry(), instance: strings.ToLower(rand.Text()[:10])}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	if err := registerProcess(a.metrics, o); err != nil {
		return nil, err
	}
	a.calls = outbound.NewCalls(a.metrics)
	a.messages = natsmq.NewMessages(a.metrics)
	a.events = event.New(a.metrics)
	a.logged = a.events.Subscribe()
	// Obstacles to a start are found before anything is written: an address in
	// use or reachable without credentials, forbidden servers, unreadable
	// files.
	if err := a.listen(ctx); err != nil {
		return nil, err
	}
	if err := a.openCertificates(); err != nil {
		return nil, err
	}
	entry, err := a.readAccess()
	if err != nil {
		return nil, err
	}
	if err := a.check(a.mayBeClosed(entry)); err != nil {
		return nil, err
	}
	if err := a.openWebhooks(); err != nil {
		return nil, err
	}
	externalRedis, err := a.readRedis()
	if err != nil {
		return nil, err
	}
	store, err := a.openStore()
	if err != nil {
		return nil, err
	}
	if err := a.openTrail(); err != nil { //nolint:contextcheck // the trail outlasts the start
		return nil, err
	}
	if err := a.openRedis(ctx, externalRedis); err != nil {
		return nil, err
	}
	if err := a.openAccess(ctx, store, entry); err != nil {
		return nil, err
	}
	if err := a.buildRooms(ctx, store); err != nil {
		return nil, err
	}
	if err := a.openQueue(o.Version); err != nil {
		return nil, err
	}
	if err := a.openMonitor(); err != nil {
		return nil, err
	}
	surface := httpapi.Options{
		Fleet: a.fleet, Router: a.router, Verbs: a.verbs, Live: a.live, Metrics: a.metrics, Log: a.log,
		Guard: a.guard, Keys: a.keys, AuditFile: a.trail, Note: a.journal.Note,
		TLS: a.tlsConfig(), Names: a.ownName, Limits: limits(o.Config.HTTP), Version: o.Version,
		Monitor: a.monitorPages, Console: a.console, State: state{store}, External: a.external(),
	}
	a.withQueue(&surface)
	if a.server, err = httpapi.New(surface); err != nil {
		return nil, err
	}
	return a, a.announce()
}

// check returns the faults of the configuration and its files; closed means
// that credentials are required.
func (a *App) check(closed bool) error {
	c := a.config
	if err := a.checkListen(closed); err != nil {
		return err
	}
	if err := a.checkQueue(closed); err != nil {
		return err
	}
	if err := a.checkMonitor(); err != nil {
		return err
	}
	if c.Policy != "" {
		if _, err := policy.ReadFile(c.Policy); err != nil {
			return err
		}
	}
	return checkTrail(&c)
}

func (a *App) openStore() (*boltstore.Store, error) {
	if err := os.MkdirAll(a.config.DataDir, 0o750); err != nil {
		return nil, fmt.Errorf("make the data directory (--data-dir): %w", err)
	}
	store, err := boltstore.Open(filepath.Join(a.config.DataDir, local.StateFile), boltstore.Options{
		MinFreeBytes: a.config.State.MinFreeBytes, Metrics: a.metrics,
	})
	if err != nil {
		return nil, err
	}
	a.stops = append(a.stops, store.Close)
	return store, nil
}

// announce writes the file by which the command line finds the service.
func (a *App) announce() (err error) {
	o := local.Options{DataDir: a.config.DataDir, AuditFile: a.trail, Addr: a.listener.Addr()}
	if a.certs != nil {
		o.Certificate = a.certs.Config().GetCertificate
	}
	if a.queue != nil {
		o.QueueAddr = a.queue.Addr()
	}
	if a.announcer, err = local.Announce(o); err != nil {
		return err
	}
	a.stops = append(a.stops, func() error {
		if err := a.announcer.End(); err != nil {
			a.log.Warn("the file that leads the command line here cannot be removed", "error", err)
		}
		return nil
	})
	return nil
}

func (a *App) buildRooms(ctx context.Context, store *boltstore.Store) (err error) {
	c := a.config
	begin := beginning(a.journal, c.Audit.Strict)
	a.fleet, err = registry.New(registry.Options{
		Store: store, Events: a.events, Metrics: a.metrics, Log: a.log, Begin: begin, Note: a.journal.Happened,
		Lease: registry.LeaseOptions{
			BaseInterval:        c.Lease.BaseInterval,
			MaxReportsPerSecond: c.Lease.MaxReportsPerSecond,
			RemoveAfter:         c.Lease.RemoveAfter,
			SlowStart:           c.Lease.SlowStart,
			GuardShare:          c.Lease.GuardShare,
			GuardMinHeads:       c.Lease.GuardMinHeads,
			GuardHold:           c.Lease.GuardHold,
		},
		Eject:    ejectOptions(&c.Eject),
		MaxHeads: c.Heads.Max, MaxModelTypes: c.Heads.MaxModelTypes, AllowLinkLocal: c.Heads.AllowLinkLocal,
	})
	if err != nil {
		return err
	}
	if err := a.fleet.Load(ctx); err != nil {
		return err
	}
	a.router, err = routing.New(routing.Options{
		Fleet: a.fleet, Events: a.events, Metrics: a.metrics, Log: a.log, Policies: store, Begin: begin,
		ReservationTTL: c.Decisions.ReservationTTL, MaxTTL: c.Decisions.MaxTTL, Recent: c.Decisions.Recent,
		ExplainShare: c.Decisions.ExplainShare,
	})
	if err != nil {
		return err
	}
	if err := a.router.LoadPolicy(ctx); err != nil {
		return err
	}
	if a.verbs, err = apiv1.New(a.fleet, a.router); err != nil {
		return err
	}
	a.live, err = live.New(live.Options{
		Instance: a.instance,
		Fleet:    a.fleet, Router: a.router, Verbs: a.verbs, Events: a.events, Metrics: a.metrics, Log: a.log, Guard: a.guard, Note: a.journal.Note,
		MaxStreams: c.Realtime.MaxStreams, MaxMessage: c.Realtime.MaxMessageBytes, MaxRate: c.Realtime.MaxRate,
		Timing: live.Timing{Heartbeat: c.Realtime.Heartbeat},
	})
	if err != nil {
		return err
	}
	a.policyFile, err = policy.NewFile(policy.FileOptions{Path: c.Policy, Store: store, Apply: a.applyFile, Log: a.log, Metrics: a.metrics})
	if err != nil {
		return err
	}
	return a.policyFile.Load(ctx)
}

// applyFile brings the policy of the file into force.
func (a *App) applyFile(ctx context.Context, next *policy.Policy) (*policy.Policy, error) {
	name := filepath.Base(a.config.Policy)
	ctx = audit.WithIdentity(ctx, &audit.Identity{Actor: audit.Actor{Type: "system", ID: name, Via: "file"}})
	return a.router.Apply(ctx, routing.Change{
		Make: routing.To(next), Expect: routing.AnyRevision, Source: policy.SourceFile, Action: "policy.load", Note: name,
	})
}

// ejectOptions maps the settings whose 0 means "off".
func ejectOptions(c *config.Eject) registry.EjectOptions {
	o := registry.EjectOptions{
		Enabled: c.Enabled, ConsecutiveErrors: c.ConsecutiveErrors, ErrorShare: c.ErrorShare, MinRequests: c.MinRequests,
		Window: c.Window, BaseTime: c.BaseTime, MaxTime: c.MaxTime, MaxShare: c.MaxShare,
	}
	if c.ConsecutiveErrors == 0 {
		o.ConsecutiveErrors = -1
	}
	return o
}

// Reload reads the policy file and the certificates again and reopens the audit
// trail. A faulty part stays as it was.
func (a *App) Reload(ctx context.Context) error {
	a.journal.Note(audit.Entry{
		Category: audit.RoutingConfig, Action: "config.reload", Outcome: audit.Success,
		Actor: audit.Actor{Type: "system", Via: "signal"}, Target: audit.Target{Type: "config"},
	})
	return errors.Join(a.policyFile.Load(ctx), a.journal.Reopen(), a.reloadCertificates())
}

// watchInterval is how often files are checked for changes.
const watchInterval = time.Second

// watchFiles applies changes of the policy file and of the certificates. A fault
// of the certificates, which are read again each time, is logged once.
func (a *App) watchFiles(ctx context.Context) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	logged := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := a.policyFile.Reload(ctx); err != nil {
			a.log.Error("the policy file is not in force; the policy is as it was", "error", err)
		}
		fault := ""
		if err := a.reloadCertificates(); err != nil {
			fault = err.Error()
		}
		if fault != "" && fault != logged {
			a.log.Error("the certificates changed, and not all that changed is in force", "error", fault)
		}
		logged = fault
	}
}

// listen opens the listener, and checks the addresses of the message queue.
// Connections are accepted once the service is built.
func (a *App) listen(ctx context.Context) (err error) {
	if q := a.config.Queue; q.Mode == "embedded" && q.Listen != "" {
		free, err := (&net.ListenConfig{}).Listen(ctx, "tcp", q.Listen)
		if err != nil {
			return fmt.Errorf("listen for the message queue on another address with --queue-listen: %w", err)
		}
		if err := free.Close(); err != nil {
			return err
		}
	}
	a.listener, err = (&net.ListenConfig{Control: noticeVanished}).Listen(ctx, "tcp", a.config.Listen)
	if err != nil {
		return fmt.Errorf("listen on another address with --listen: %w", err)
	}
	a.stops = append(a.stops, func() error {
		if err := a.listener.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	return nil
}

// Addr is the listener's address.
func (a *App) Addr() net.Addr { return a.listener.Addr() }

// Run serves until ctx ends, then fails readiness, finishes work in flight and
// stops everything. It returns all failures.
func (a *App) Run(ctx context.Context) error {
	rooms, stopRooms := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRooms()
	running := newRunning()
	start := func(run func(context.Context) error) { running.start(rooms, run) }
	start(a.fleet.Run)
	start(a.router.Run)
	start(func(ctx context.Context) error { return a.keys.Run(ctx, a.log) })
	start(a.live.Run)
	start(a.watchFiles)
	start(a.logEvents)
	if a.webhooks != nil {
		start(a.webhooks.Run)
	}
	if a.queue != nil {
		start(a.queue.Run)
		a.log.Info("message queue", "mode", a.config.Queue.Mode, "addr", a.queue.Addr())
	}
	for _, s := range a.published() {
		start(s.Run)
	}
	if a.monitor != nil {
		start(a.monitor.Run)
	}
	start(func(context.Context) error { return a.server.Serve(a.listener) })
	a.recordStart()
	if a.redis != nil {
		a.log.Info("the audit trail is published", "redis", a.redis.Addr().String(), "channel", a.config.Redis.Channel)
	}
	a.log.Info("listening", "addr", a.Addr().String(), "data_dir", a.config.DataDir,
		"heads", a.fleet.Snapshot().Heads, "policy_revision", a.router.Policy().Revision)

	select {
	case <-ctx.Done():
		a.log.Info("stopping: not ready any more, work in flight is finished", "lame_duck", a.config.HTTP.LameDuck.String())
	case <-running.failed:
	}
	err := a.server.Drain(context.WithoutCancel(ctx))
	stopRooms()
	err = errors.Join(running.wait(), err, a.close())
	if err == nil {
		a.log.Info("stopped", "reservations_open", a.router.Open())
	}
	return err
}

func limits(c config.HTTP) httpapi.Limits {
	return httpapi.Limits{
		HeaderTimeout: c.HeaderTimeout, ReadTimeout: c.ReadTimeout, WriteTimeout: c.WriteTimeout, IdleTimeout: c.IdleTimeout,
		MaxHeaderBytes: c.MaxHeaderBytes, MaxBodyBytes: c.MaxBodyBytes, MaxConnections: c.MaxConnections,
		LameDuck: c.LameDuck, ShutdownTimeout: c.ShutdownTimeout, AllowedHosts: c.AllowedHosts,
		MaxPerAddress: c.MaxConnectionsPerAddress,
	}
}

// close stops what New opened, last-in-first-out.
func (a *App) close() error {
	var errs []error
	for i := len(a.stops) - 1; i >= 0; i-- {
		errs = append(errs, a.stops[i]())
	}
	a.stops = nil
	return errors.Join(errs...)
}

// registerProcess registers the process metrics under Prometheus' usual names.
func registerProcess(metrics prometheus.Registerer, o Options) error {
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "headway_build_info", Help: "Always 1; the labels name the version and commit.",
		ConstLabels: prometheus.Labels{"version": o.Version, "commit": o.Commit},
	})
	build.Set(1)
	return errors.Join(
		metrics.Register(build),
		metrics.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})),
		metrics.Register(collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(
			collectors.GoRuntimeMetricsRule{Matcher: schedLatency},
		))),
	)
}
