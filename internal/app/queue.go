package app

import (
	"path/filepath"
	"strings"
	"time"

	"headway/internal/httpapi"
	"headway/internal/natsmq"
	"headway/internal/outbound"
)

// queueDir is where the embedded message queue keeps its streams, in the data
// directory.
const queueDir = "queue"

// queueTimeout is for connecting to an external one.
const queueTimeout = 5 * time.Second

// checkQueue returns what the configuration has against a start of the queue;
// closed says that a credential will be needed.
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
		Dialer: outbound.NewDialer(outbound.Options{Timeout: queueTimeout, Count: a.calls.Of("nats")}),
	}
}

// openQueue starts the message queue, or reaches for an external one.
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
		return nil // nobody can subscribe the audit trail
	}
	// An old trail would be published to none.
	return a.publish("nats", queueCursorFile, queue, a.journal.Stats().LastSeq)
}

// queueCursorFile keeps in the data directory how far the audit trail was
// published over the queue.
const queueCursorFile = "queue.cursor"

// withQueue lets the HTTP surface show the queue, if there is one.
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
