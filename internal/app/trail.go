package app

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/audit"
	"headway/internal/config"
	"headway/internal/local"
)

// checkTrail returns what the configuration has against the audit trail: a
// signing key that cannot be read, or a file that nothing can be written to.
// The directory of the data is made later. It leaves nothing behind.
func checkTrail(c *config.Config) error {
	file := c.Audit.File
	if _, err := signingKey(c.Audit.SigningKeyFile); err != nil || file == "" {
		return err
	}
	info, err := os.Stat(file)
	switch {
	case err == nil && info.IsDir():
		err = fmt.Errorf("%s is a directory", file)
	case err == nil && info.Mode().IsRegular(): // a pipe may wait for its reader
		var f *os.File
		if f, err = os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0); err == nil {
			err = f.Close()
		}
	case errors.Is(err, fs.ErrNotExist):
		var f *os.File
		f, err = os.CreateTemp(filepath.Dir(file), ".headway-*")
		switch {
		case err == nil:
			err = errors.Join(f.Close(), os.Remove(f.Name()))
		case errors.Is(err, fs.ErrNotExist) && sameDir(filepath.Dir(file), c.DataDir):
			err = nil
		case errors.Is(err, fs.ErrNotExist):
			err = fmt.Errorf("there is no directory %s; make it first", filepath.Dir(file))
		}
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

// openTrail opens the audit trail at the first of its places that is writable
// and that no other process has. The last one must be both.
func openTrail(c config.Config, log *slog.Logger, onCheckpoint func(audit.Checkpoint)) (journal *audit.Journal, file string, err error) {
	key, err := signingKey(c.Audit.SigningKeyFile)
	if err != nil {
		return nil, "", err
	}
	files := local.Trails(c.Audit.File, c.DataDir)
	for len(files) > 1 && !writable(files[0]) {
		files = files[1:]
	}
	for _, file = range files {
		journal, err = audit.Open(audit.Options{
			Path: file, SideDir: c.DataDir, MaxBytes: c.Audit.MaxBytes, Keep: c.Audit.Keep, SigningKey: key, Log: log, OnCheckpoint: onCheckpoint,
			MinFreeBytes: c.State.MinFreeBytes / 4, // the trail must still tell of a state that cannot be written
		})
		if err == nil || !errors.Is(err, audit.ErrInUse) {
			break
		}
	}
	if err != nil {
		return nil, "", fmt.Errorf("open the audit trail (--audit-file): %w", err)
	}
	switch file {
	case c.Audit.File:
	case local.SystemTrail:
		log.Info("audit trail", "file", file)
	default:
		log.Info("audit trail", "file", file, "because", local.SystemTrail+" cannot be written, or another process writes it")
	}
	return journal, file, nil
}

// writable reports whether the file can be appended to, or made.
func writable(path string) bool {
	_, err := os.Stat(path)
	fresh := errors.Is(err, os.ErrNotExist)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640) //nolint:gosec // the group of a log file reads it, as with others of /var/log
	if err != nil {
		return false
	}
	err = f.Close()
	if fresh { // whether it is taken is not decided yet
		err = errors.Join(err, os.Remove(path))
	}
	return err == nil
}

func signingKey(path string) (ed25519.PrivateKey, error) {
	if path == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read audit.signing_key_file: %w", err)
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fmt.Errorf("audit.signing_key_file %s is not PEM", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("audit.signing_key_file %s: %w", path, err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("audit.signing_key_file %s holds a %T; want an Ed25519 key, as 'openssl genpkey -algorithm ed25519' makes", path, parsed)
	}
	return key, nil
}

// beginning is how operations are announced in the trail.
func beginning(journal *audit.Journal, strict bool) audit.BeginFunc {
	if strict {
		return journal.Strict
	}
	return journal.Lenient
}

// tellTrail records with which settings the service starts.
func (a *App) tellTrail() {
	set, err := json.Marshal(a.config.Set())
	if err != nil {
		set = nil
	}
	a.journal.Note(audit.Entry{
		Category: audit.RoutingConfig, Action: "config.load", Outcome: audit.Success,
		Actor: audit.Actor{Type: "system", Via: "cli"}, Target: audit.Target{Type: "config"}, After: set,
	})
}

// trailMetrics shows what a journal counts.
type trailMetrics struct {
	journal *audit.Journal
	syncs   *prometheus.Desc
	values  []trailValue
}

type trailValue struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(*audit.Stats) float64
}

func newTrailMetrics(journal *audit.Journal) *trailMetrics {
	m := &trailMetrics{journal: journal, syncs: prometheus.NewDesc("headway_audit_sync_duration_seconds",
		"Time that the disk took to make records of the audit trail durable.", nil, nil)}
	add := func(kind prometheus.ValueType, name, help string, of func(*audit.Stats) float64) {
		m.values = append(m.values, trailValue{prometheus.NewDesc(name, help, nil, nil), kind, of})
	}
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue
	add(counter, "headway_audit_records_total", "Records of the audit trail that are durable.", func(s *audit.Stats) float64 { return float64(s.Written) })
	add(counter, "headway_audit_write_failures_total", "Records that could not be made durable when they had to be, so that what they announced did not happen.", func(s *audit.Stats) float64 { return float64(s.Failed) })
	add(counter, "headway_audit_late_total", "Records that were written later than they happened.", func(s *audit.Stats) float64 { return float64(s.Late) })
	add(counter, "headway_audit_dropped_total", "Records that were lost because too many waited for the disk, or because the process before ended while they did.", func(s *audit.Stats) float64 { return float64(s.Dropped) })
	add(counter, "headway_audit_folded_total", "Denied attempts that another record stands for.", func(s *audit.Stats) float64 { return float64(s.Folded) })
	add(counter, "headway_audit_rotations_total", "Files of the audit trail begun after others.", func(s *audit.Stats) float64 { return float64(s.Rotations) })
	add(gauge, "headway_audit_sequence", "Sequence number of the last record of the audit trail.", func(s *audit.Stats) float64 { return float64(s.LastSeq) })
	add(gauge, "headway_audit_waiting", "Records that are not written yet.", func(s *audit.Stats) float64 { return float64(s.Waiting) })
	add(gauge, "headway_audit_up", "1 if the last write of the audit trail succeeded.", func(s *audit.Stats) float64 {
		if s.Down {
			return 0
		}
		return 1
	})
	return m
}

// Describe implements prometheus.Collector.
func (m *trailMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.syncs
	for _, v := range m.values {
		ch <- v.desc
	}
}

// Collect implements prometheus.Collector.
func (m *trailMetrics) Collect(ch chan<- prometheus.Metric) {
	s := m.journal.Stats()
	for _, v := range m.values {
		ch <- prometheus.MustNewConstMetric(v.desc, v.kind, v.of(&s))
	}
	below, count := map[float64]uint64{}, uint64(0)
	for i, n := range s.Syncs.Counts {
		if count += n; i < len(s.Syncs.Bounds) {
			below[s.Syncs.Bounds[i]] = count
		}
	}
	ch <- prometheus.MustNewConstHistogram(m.syncs, count, s.Syncs.Sum, below)
}
