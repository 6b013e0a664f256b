package app

import (
	"context"
	"path/filepath"
	"time"

	"headway/internal/natsmq"
	"headway/internal/outbound"
)

// queueDir holds the streams of the embedded message queue, in the data
// directory.
const queueDir = "queue"

const queueTimeout = 5 * time.Second

func (a *App) externalQueue() natsmq.External {
	c := a.config.Queue
	return natsmq.External{
		URL: c.URL, CredsFile: c.CredsFile, TokenFile: c.TokenFile, CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile,
		Dialer: outbound.NewDialer(outbound.Options{Timeout: queueTimeout, Count: a.calls.NATS}),
	}
}

// openQueue starts the embedded message queue, or connects to an external one.
func (a *App) openQueue(context.Context) error {
	c := a.config.Queue
	if c.Mode == "off" {
		return nil
	}
	o := natsmq.Options{
		Dir: filepath.Join(a.config.DataDir, queueDir), Listen: c.Listen, TLS: a.certs.Config(), MaxBytes: c.MaxBytes, MinFree: a.config.State.MinFreeBytes,
		Verbs: a.verbs, Events: a.events, Metrics: a.metrics, Log: a.log, Instance: a.instance, Version: a.version,
		Audit:    a.journal,
		Messages: a.messages, Guard: a.guard,
	}
	if c.Mode == "external" {
		o.External = a.externalQueue()
	}
	queue, err := natsmq.Open(o)
	if err != nil {
		return err
	}
	a.queue = queue
	a.onStop("message queue", queue.Close)
	if c.Mode == "embedded" && c.Listen == "" || c.Mode == "external" && !c.Audit {
		return nil // no client can subscribe the audit trail
	}
	// An old trail would have no receivers.
	return a.publish("nats", queueCursorFile, queue, a.journal.Stats().LastSeq)
}

// queueCursorFile holds the position of the trail over NATS, in the data
// directory.
const queueCursorFile = "queue.cursor"
