package app

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"

	"headway/internal/apiv1"
	"headway/internal/audit"
	"headway/internal/boltstore"
	"headway/internal/decisionlog"
	"headway/internal/effectiveness"
	"headway/internal/fleet"
	"headway/internal/httpapi"
	"headway/internal/live"
	"headway/internal/local"
	"headway/internal/policy"
	"headway/internal/registry"
	"headway/internal/routing"
	"headway/internal/strategy"
	"headway/internal/webhook"
)

func (a *App) openWebhooks(context.Context) error {
	c := a.config.Webhooks
	if c.File == "" {
		return nil
	}
	endpoints, err := webhook.Read(c.File, c.AllowLinkLocal)
	if err != nil {
		return err
	}
	a.webhooks, err = webhook.New(webhook.Options{
		Endpoints: endpoints, AllowLinkLocal: c.AllowLinkLocal, Events: a.events, Metrics: a.metrics, Log: a.log, Instance: a.instance,
		Count: a.calls.Webhook,
	})
	return err
}

func (a *App) openStore(context.Context) (err error) {
	if err := os.MkdirAll(a.config.DataDir, 0o750); err != nil {
		return fmt.Errorf("make the data directory (--data-dir): %w", err)
	}
	a.store, err = boltstore.Open(filepath.Join(a.config.DataDir, local.StateFile), boltstore.Options{
		MinFreeBytes: a.config.State.MinFreeBytes, Metrics: a.metrics,
	})
	if err != nil {
		return err
	}
	a.onStop("state file", a.store.Close)
	return nil
}

func (a *App) openFleet(ctx context.Context) (err error) {
	c := a.config
	eject := fleet.EjectOptions(c.Eject)
	eject.ConsecutiveErrors = cmp.Or(eject.ConsecutiveErrors, -1) // 0 switches it off
	a.fleet, err = registry.New(registry.Options{
		Store: a.store, Events: a.events, Metrics: a.metrics, Log: a.log, Audit: a.journal,
		Lease: registry.LeaseOptions(c.Lease), Eject: eject,
		MaxHeads: c.Heads.Max, MaxModelTypes: c.Heads.MaxModelTypes, AllowLinkLocal: c.Heads.AllowLinkLocal, Itself: a.leadsHere,
	})
	if err != nil {
		return err
	}
	return a.fleet.Load(ctx)
}

// openDecisionLog opens the decision log, if there is one.
func (a *App) openDecisionLog(context.Context) (err error) {
	c := a.config
	if c.Logged.Rate == 0 {
		return nil
	}
	a.decisionLog, err = decisionlog.New(decisionlog.Options{
		Dir: filepath.Join(c.DataDir, local.DecisionLogDir), MaxDisk: c.Logged.MaxBytes, MaxMemory: c.Logged.MaxMemory, Rate: c.Logged.Rate,
		MinFree: 2 * c.State.MinFreeBytes, // the state and the trail must still be written
		Metrics: a.metrics, Log: a.log,
	})
	return err
}

func (a *App) watchers() []routing.Watcher {
	if a.decisionLog == nil {
		return []routing.Watcher{a.effect}
	}
	return []routing.Watcher{a.effect, a.decisionLog}
}

func (a *App) openRouter(ctx context.Context) (err error) {
	c := a.config
	var secret [16]byte
	_, _ = rand.Read(secret[:]) // it never fails
	a.known = strategy.NewKnown(strategy.KnownOptions{Secret: secret})
	if a.effect, err = effectiveness.New(effectiveness.Options{
		Known: a.known, Metrics: a.metrics, Objective: effectiveness.Objective(a.config.Objective),
	}); err != nil {
		return err
	}
	a.router, err = routing.New(routing.Options{
		Memory: a.known,
		Fleet:  a.fleet, Events: a.events, Metrics: a.metrics, Log: a.log, Policies: a.store, Audit: a.journal,
		ReservationTTL: c.Decisions.ReservationTTL, MaxTTL: c.Decisions.MaxTTL, Recent: c.Decisions.Recent,
		ExplainShare: c.Decisions.ExplainShare, Freed: a.freed, Watchers: a.watchers(),
	})
	if err != nil {
		return err
	}
	if err := a.router.LoadPolicy(ctx); err != nil {
		return err
	}
	a.policyFile, err = policy.NewFile(policy.FileOptions{Path: c.Policy, Store: a.store, Apply: a.applyFile, Log: a.log, Metrics: a.metrics})
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

func (a *App) openLive(context.Context) (err error) {
	c := a.config.Realtime
	if a.verbs, err = apiv1.New(a.fleet, a.router); err != nil {
		return err
	}
	a.live, err = live.New(live.Options{
		Instance: a.instance,
		Fleet:    a.fleet, Router: a.router, Verbs: a.verbs, Events: a.events, Metrics: a.metrics, Log: a.log, Guard: a.guard, Audit: a.journal,
		MaxStreams: c.MaxStreams, MaxMessage: c.MaxMessageBytes, MaxRate: c.MaxRate,
		Timing: live.Timing{Heartbeat: c.Heartbeat},
	})
	return err
}

func (a *App) openServer(context.Context) (err error) {
	o := httpapi.Options{
		Fleet: a.fleet, Router: a.router, Verbs: a.verbs, Effect: a.effect, Speeds: a.known, Live: a.live, Metrics: a.metrics, Log: a.log,
		Guard: a.guard, Keys: a.access.Keys, AuditFile: a.auditFile, Audit: a.journal,
		TLS: a.certs.Config(), Names: a.certs.Covers, Limits: httpapi.Limits(a.config.HTTP.Limits), Version: a.version,
		Proxy: a.proxy, Monitor: a.monitorPages, Console: a.console, State: state{a.store}, DecisionLog: a.decisionLog, External: a.external(), DataPlaneApart: a.dataListener != nil,
	}
	if a.queue != nil {
		o.Letters = a.queue
		o.Queue = func() string {
			_, detail := a.queue.Ready()
			return detail
		}
	}
	a.server, err = httpapi.New(o) //nolint:contextcheck // requests bring their own
	return err
}

// announce writes the file by which the command line finds the service.
func (a *App) announce(context.Context) (err error) {
	o := local.Options{DataDir: a.config.DataDir, AuditFile: a.auditFile, Addr: a.listener.Addr()}
	if a.certs != nil {
		o.Certificate = a.certs.Config().GetCertificate
	}
	if a.queue != nil {
		o.QueueAddr = a.queue.Addr()
	}
	if a.announcer, err = local.Announce(o); err != nil {
		return err
	}
	a.onStop("announcement", func() error {
		if err := a.announcer.End(); err != nil {
			a.log.Warn("the file that leads the command line here cannot be removed", "error", err)
		}
		return nil
	})
	return nil
}
