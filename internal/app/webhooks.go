package app

import (
	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/webhook"
)

// openWebhooks makes what posts events to the endpoints of webhooks.file.
func (a *App) openWebhooks(metrics prometheus.Registerer) error {
	c := a.config.Webhooks
	if c.File == "" {
		return nil
	}
	endpoints, err := webhook.Read(c.File, c.AllowLinkLocal)
	if err != nil {
		return err
	}
	a.webhooks, err = webhook.New(webhook.Options{
		Endpoints: endpoints, AllowLinkLocal: c.AllowLinkLocal, Events: a.events, Metrics: metrics, Log: a.log, Instance: a.instance,
		Count: a.outside.counts("webhook"),
	})
	return err
}
