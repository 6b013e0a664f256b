package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"headway/internal/audit"
	"headway/internal/local"
	"headway/internal/pki"
	"headway/internal/trail"
)

// readSigningKey reads the key that signs checkpoints, if one is configured.
func (a *App) readSigningKey(context.Context) (err error) {
	if file := a.config.Audit.SigningKeyFile; file != "" {
		if a.signingKey, err = pki.ReadSigningKey(file); err != nil {
			return fmt.Errorf("audit.signing_key_file: %w", err)
		}
	}
	return nil
}

// openJournal opens the first audit file that is writable and not in use. The
// error is that of the last one.
func (a *App) openJournal(context.Context) (err error) {
	c := a.config
	files := local.Trails(c.Audit.File, c.DataDir)
	first := files[0]
	for len(files) > 1 && tryWrite(files[0]) != nil {
		files = files[1:]
	}
	for _, a.auditFile = range files {
		a.journal, err = audit.Open(audit.Options{ //nolint:contextcheck // the trail outlasts the start
			Path: a.auditFile, SideDir: c.DataDir, MaxBytes: c.Audit.MaxBytes, Keep: c.Audit.Keep, Lenient: !c.Audit.Strict, SigningKey: a.signingKey, Log: a.log, Metrics: a.metrics,
			MinFreeBytes: c.State.MinFreeBytes / 4, // the trail must still record that the state cannot be written
		})
		if err == nil || !errors.Is(err, audit.ErrInUse) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("open the audit trail (--audit-file): %w", err)
	}
	a.onStop("audit trail", a.journal.Close)
	switch a.auditFile {
	case c.Audit.File:
	case local.SystemTrail:
		a.log.Info("audit trail", "file", a.auditFile)
	case first:
		a.log.Info("audit trail", "file", a.auditFile, "because", "the trail of this data directory was begun there")
	default:
		a.log.Info("audit trail", "file", a.auditFile, "because", local.SystemTrail+" cannot be written, or another process writes it")
	}
	return nil
}

// recordStart records the settings of this start in the trail.
func (a *App) recordStart() {
	set, err := json.Marshal(a.config.Set())
	if err != nil {
		set = nil
	}
	a.journal.Note(audit.Entry{
		Category: audit.RoutingConfig, Action: "config.load", Outcome: audit.Success,
		Actor: audit.Actor{Type: "system", Via: "cli"}, Target: audit.Target{Type: "config"}, After: set,
	})
}

// publish sends the audit trail to a sink while the service runs, at first from
// the record after begin.
func (a *App) publish(sink, cursor string, to trail.Sink, begin uint64) error {
	shipper, err := trail.NewShipper(trail.ShipperOptions{
		Path: a.auditFile, CursorPath: filepath.Join(a.config.DataDir, cursor), Sink: to, Log: a.log, Name: sink, Metrics: a.metrics,
		Journal: a.journal, Begin: begin,
	})
	if err != nil {
		return err
	}
	a.shippers = append(a.shippers, shipper)
	return nil
}
