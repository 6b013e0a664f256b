package app

import (
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/httpapi"
	"headway/internal/natsmq"
)

// queueDir is where the embedded message queue keeps its streams, in the data
// directory.
const queueDir = "queue"

// openQueue starts the message queue, or reaches for an external one.
func (a *App) openQueue(metrics prometheus.Registerer, version string) error {
	c := a.config.Queue
	if c.Mode == "off" {
		return nil
	}
	o := natsmq.Options{
		Dir: filepath.Join(a.config.DataDir, queueDir), Listen: c.Listen, TLS: a.tlsConfig(), MaxBytes: c.MaxBytes, MinFree: a.config.State.MinFreeBytes,
		Desk: a.desk, Events: a.events, Metrics: metrics, Log: a.log, Instance: a.instance, Version: version,
		Begin: beginning(a.journal, a.config.Audit.Strict), Note: a.journal.Note,
		Count: a.outside.message,
		Access: natsmq.Access{
			Authenticate: a.guard.AuthenticateConnection, Anonymous: a.guard.Anonymous, Ended: a.guard.Ended, Changed: a.guard.Changed, Known: a.guard.Known,
			Spend: a.guard.Spend, Unnamed: a.guard.Unnamed,
		},
	}
	if c.Mode == "external" {
		o.External = natsmq.External{
			URL: c.URL, CredsFile: c.CredsFile, TokenFile: c.TokenFile, CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile,
		}
	}
	queue, err := natsmq.Open(o)
	if err != nil {
		return err
	}
	a.queue = queue
	a.stops = append(a.stops, queue.Close)
	return nil
}

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
