package app

import (
	"path/filepath"
	"strings"
	"time"

	"headway/internal/httpapi"
	"headway/internal/natsmq"
	"headway/internal/outbound"
)

// queueDir holds the streams of the embedded message queue, in the data
// directory.
const queueDir = "queue"

const queueTimeout = 5 * time.Second

// checkQueue returns the faults of the queue's configuration; closed means that
// credentials are required.
func (a *App) checkQueue(closed bool) error {
	c := a.config.Queue
	switch {
	case c.Mode == "external":
		if err := mayCall("queue.url", strings.Split(c.URL, ",")...); err != nil {
			return err
		}
		external := a.externalQueue()
		return external.Check()
	case c.Mode == "embedded" && c.Listen != "":
		return natsmq.CheckListen(c.Listen, a.certs != nil && closed)
	}
	return nil
}

func (a *App) externalQueue() natsmq.External {
	c := a.config.Queue
	return natsmq.External{
		URL: c.URL, CredsFile: c.CredsFile, TokenFile: c.TokenFile, CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile,
		Dialer: outbound.NewDialer(outbound.Options{Timeout: queueTimeout, Count: a.calls.NATS}),
	}
}

// openQueue starts the embedded message queue, or connects to an external one.
func (a *App) openQueue(version string) error {
	c := a.config.Queue
	if c.Mode == "off" {
		return nil
	}
	o := natsmq.Options{
		Dir: filepath.Join(a.config.DataDir, queueDir), Listen: c.Listen, TLS: a.tlsConfig(), MaxBytes: c.MaxBytes, MinFree: a.config.State.MinFreeBytes,
		Verbs: a.verbs, Events: a.events, Metrics: a.metrics, Log: a.log, Instance: a.instance, Version: version,
		Begin: beginning(a.journal, a.config.Audit.Strict), Note: a.journal.Note,
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
	a.stops = append(a.stops, queue.Close)
	if c.Mode == "embedded" && c.Listen == "" || c.Mode == "external" && !c.Audit {
		return nil // no client can subscribe the audit trail
	}
	// An old trail would have no receivers.
	return a.publish("nats", queueCursorFile, queue, a.journal.Stats().LastSeq)
}

// queueCursorFile holds the position of the trail over NATS, in the data
// directory.
const queueCursorFile = "queue.cursor"

func (a *App) withQueue(o *httpapi.Options) {
	if a.queue == nil {
		return
	}
	o.Letters = a.queue
	o.Queue = func() string {
		_, detail := a.queue.Ready()
		return detail
	}
}
