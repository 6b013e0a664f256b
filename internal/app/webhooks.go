package app

import "headway/internal/webhook"

func (a *App) openWebhooks() error {
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
