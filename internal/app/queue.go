package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/httpapi"
	"headway/internal/natsmq"
	"headway/internal/outbound"
	"headway/internal/trail"
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
		Dialer: outbound.NewDialer(outbound.Options{Timeout: queueTimeout, Count: a.outside.counts("nats")}),
	}
}

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
		Guard: a.guard,
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
	return a.openQueueTrail(metrics)
}

// queueCursorFile keeps in the data directory how far the audit trail was
// published over the queue.
const queueCursorFile = "queue.cursor"

// openQueueTrail makes what publishes the audit trail over the queue, where there
// can be subscribers. It begins with what is recorded from the first time on: an
// old trail would be published to none.
func (a *App) openQueueTrail(metrics prometheus.Registerer) error {
	if c := a.config.Queue; c.Mode == "embedded" && c.Listen == "" || c.Mode == "external" && !c.Audit {
		return nil
	}
	cursor := filepath.Join(a.config.DataDir, queueCursorFile)
	if _, err := os.Stat(cursor); errors.Is(err, fs.ErrNotExist) {
		now, err := json.Marshal(trail.Cursor{Seq: a.journal.Stats().LastSeq, Receivers: -1})
		if err == nil {
			err = os.WriteFile(cursor, now, 0o600)
		}
		if err != nil {
			return fmt.Errorf("keep how far the audit trail was published over the queue: %w", err)
		}
	}
	shipper, err := trail.NewShipper(trail.ShipperOptions{
		Path: a.trail, CursorPath: cursor, Sink: a.queue, Log: a.log,
		Durable: func() uint64 { return a.journal.Stats().LastSeq },
	})
	if err != nil {
		return err
	}
	a.queueShipper.Store(shipper)
	return metrics.Register(newShipMetrics(shipper, "nats"))
}

// shipOverQueue publishes the audit trail over the queue until ctx ends.
func (a *App) shipOverQueue(ctx context.Context) error {
	if s := a.queueShipper.Load(); s != nil {
		return s.Run(ctx)
	}
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
