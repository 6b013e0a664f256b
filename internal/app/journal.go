package app

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"headway/internal/audit"
	"headway/internal/config"
	"headway/internal/local"
	"headway/internal/pki"
	"headway/internal/trail"
)

// checkTrail returns the faults of the audit trail: an unreadable signing key,
// or an unwritable file. The data directory is made later. It leaves no file
// behind.
func checkTrail(c *config.Config) error {
	file := c.Audit.File
	if _, err := signingKey(c.Audit.SigningKeyFile); err != nil || file == "" {
		return err
	}
	err := tryTrail(file)
	if errors.Is(err, fs.ErrNotExist) {
		if sameDir(filepath.Dir(file), c.DataDir) {
			return nil
		}
		err = fmt.Errorf("there is no directory %s; make it first", filepath.Dir(file))
	}
	if err != nil {
		return fmt.Errorf("open the audit trail (--audit-file): %w", err)
	}
	return nil
}

func sameDir(a, b string) bool {
	a, errA := filepath.Abs(a)
	b, errB := filepath.Abs(b)
	return errA == nil && errB == nil && a == b
}

// openTrail opens the first candidate that is writable and not in use. The
// error is that of the last one.
func (a *App) openTrail() error {
	c := a.config
	key, err := signingKey(c.Audit.SigningKeyFile)
	if err != nil {
		return err
	}
	files := local.Trails(c.Audit.File, c.DataDir)
	for len(files) > 1 && tryTrail(files[0]) != nil {
		files = files[1:]
	}
	for _, a.trail = range files {
		a.journal, err = audit.Open(audit.Options{
			Path: a.trail, SideDir: c.DataDir, MaxBytes: c.Audit.MaxBytes, Keep: c.Audit.Keep, SigningKey: key, Log: a.log, Metrics: a.metrics,
			OnCheckpoint: a.publishCheckpoint,
			MinFreeBytes: c.State.MinFreeBytes / 4, // the trail must still record that the state cannot be written
		})
		if err == nil || !errors.Is(err, audit.ErrInUse) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("open the audit trail (--audit-file): %w", err)
	}
	a.stops = append(a.stops, a.journal.Close)
	switch a.trail {
	case c.Audit.File:
	case local.SystemTrail:
		a.log.Info("audit trail", "file", a.trail)
	default:
		a.log.Info("audit trail", "file", a.trail, "because", local.SystemTrail+" cannot be written, or another process writes it")
	}
	return nil
}

// tryTrail reports why the file is not writable. It leaves no file behind.
func tryTrail(file string) error {
	info, err := os.Stat(file)
	var f *os.File
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if f, err = os.CreateTemp(filepath.Dir(file), ".headway-*"); err == nil {
			err = errors.Join(f.Close(), os.Remove(f.Name()))
		}
	case err == nil && !info.IsDir() && !info.Mode().IsRegular(): // a pipe may wait for its reader
	case err == nil:
		if f, err = os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0); err == nil {
			err = f.Close()
		}
	}
	return err
}

func signingKey(path string) (key ed25519.PrivateKey, err error) {
	if path == "" {
		return nil, nil
	}
	if key, err = pki.ReadSigningKey(path); err != nil {
		return nil, fmt.Errorf("audit.signing_key_file: %w", err)
	}
	return key, nil
}

func beginning(journal *audit.Journal, strict bool) audit.BeginFunc {
	if strict {
		return journal.Strict
	}
	return journal.Lenient
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
		Path: a.trail, CursorPath: filepath.Join(a.config.DataDir, cursor), Sink: to, Log: a.log, Name: sink, Metrics: a.metrics,
		Durable: func() uint64 { return a.journal.Stats().LastSeq }, Begin: begin,
	})
	if err != nil {
		return err
	}
	all := append(slices.Clone(a.published()), shipper)
	a.shippers.Store(&all)
	return nil
}

func (a *App) published() []*trail.Shipper {
	if all := a.shippers.Load(); all != nil {
		return *all
	}
	return nil
}

// publishCheckpoint publishes a checkpoint behind the records it covers.
func (a *App) publishCheckpoint(c audit.Checkpoint) {
	for _, s := range a.published() {
		s.Checkpoint(c)
	}
}
