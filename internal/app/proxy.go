package app

import (
	"context"
	"strings"
	"time"

	"headway/internal/event"
	"headway/internal/fleet"
	"headway/internal/healthcheck"
	"headway/internal/proxy"
	"headway/internal/upstream"
)

// closeHeads is how long the end of the exchanges with heads is waited for.
const closeHeads = 5 * time.Second

// forgetHeads closes the unused connections of heads that left the fleet, when they
// leave: what has their address next is another head.
func (a *App) forgetHeads(ctx context.Context) error {
	events := a.events.Subscribe()
	for {
		e, _, err := events.Next(ctx) // of events that were lost the connections end by idling
		if err != nil {
			return nil //nolint:nilerr // the end of the service
		}
		if e.Type == event.HeadRemoved {
			a.heads.Forget(e.Endpoint)
		}
	}
}

// openProxy makes the data plane and its connections to heads.
func (a *App) openProxy(ctx context.Context) (err error) {
	c := a.config.Proxy
	a.headKeys, err = newHeadKeys(c.HeadKeys, a.agents.KeyOf, a.config.Heads.AllowLinkLocal, a.log)
	if err != nil {
		return err
	}
	a.heads, err = upstream.New(upstream.Options{ //nolint:contextcheck // connections outlast the start
		Metrics: a.metrics, AllowLinkLocal: a.config.Heads.AllowLinkLocal, Setting: "heads.allow_link_local",
		RootCAs: a.roots, Limits: upstream.Limits(c.HeadLimits), IdleTimeout: c.IdleConnection,
		MaxOpen: c.MaxConnections, MaxOpenPerHead: c.MaxConnectionsPerHead, MaxIdlePerHead: c.MaxIdlePerHead,
	})
	if err != nil {
		return err
	}
	a.onStop("connections to heads", func() error {
		// All requests have ended when this runs; what is left would be a fault of ours.
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeHeads)
		defer cancel()
		return a.heads.Close(closing)
	})
	var failed func(*fleet.Head)
	if c.HealthChecks {
		a.checker, err = healthcheck.New(healthcheck.Options{
			Checked: a.fleet.Checked, Metrics: a.metrics, Log: a.log, Interval: c.HealthCheckInterval, AllowLinkLocal: a.config.Heads.AllowLinkLocal,
			Count: a.calls.HeadProbe, RootCAs: a.roots,
		})
		if err != nil {
			return err
		}
		failed = a.checker.Failed
	}
	a.proxy, err = proxy.New(proxy.Options{
		HeadKey: a.headKeys.of, Guard: a.guard,
		Failed: failed, Admission: a.admission, Audit: a.journal, ClientPaths: clientPaths(c.ClientPaths),
		DropHeaders: c.DropHeaders, PassHeaders: c.PassHeaders,
		Router: a.router, Fleet: a.fleet, Heads: a.heads, Metrics: a.metrics, Calls: a.calls.Head, Tracer: a.tracer, Log: a.log, Limits: proxy.Limits(c.ProxyLimits), AskUsage: c.AskUsage,
		ID: a.instance,
	})
	return err
}

// clientPaths reads proxy.client_paths, whose form was checked.
func clientPaths(list []string) (paths []proxy.ClientPath) {
	for _, line := range list {
		model, path, _ := strings.Cut(line, "=/")
		paths = append(paths, proxy.ClientPath{ModelType: model, Path: "/" + path})
	}
	return paths
}
