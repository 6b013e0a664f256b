package app

import (
	"context"
	"time"

	"headway/internal/proxy"
	"headway/internal/upstream"
)

// openProxy makes the data plane and its connections to heads.
func (a *App) openProxy(ctx context.Context) (err error) {
	a.heads, err = upstream.New(upstream.Options{
		Metrics: a.metrics, AllowLinkLocal: a.config.Heads.AllowLinkLocal, Setting: "heads.allow_link_local",
		Limits: upstream.Limits{
			Connect: 2 * time.Second, Write: 30 * time.Second, FirstByte: 10 * time.Minute, Idle: 5 * time.Minute, Total: time.Hour,
		},
		IdleTimeout: time.Minute, MaxOpen: 16384, MaxOpenPerHead: 4096, MaxIdlePerHead: 256,
	})
	if err != nil {
		return err
	}
	a.onStop("connections to heads", func() error { return a.heads.Close(context.WithoutCancel(ctx)) })
	a.proxy, err = proxy.New(proxy.Options{Router: a.router, Fleet: a.fleet, Heads: a.heads, Metrics: a.metrics, Log: a.log})
	return err
}
