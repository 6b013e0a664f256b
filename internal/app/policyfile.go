package app

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/audit"
	"headway/internal/policy"
	"headway/internal/routing"
	"headway/internal/strict"
)

const watchInterval = time.Second

// Backoff after a fault that may pass.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// policyFile applies the policy file when it changes, and retries faults that
// are not of its content. A newer policy from the API stays in force, over
// restarts too, until the file differs from the one applied last.
type policyFile struct {
	path     string
	router   *routing.Router
	log      *slog.Logger
	failures prometheus.Counter
	failed   atomic.Bool // the file as it is now is not in force

	mu      sync.Mutex
	seen    fs.FileInfo   // as last looked at
	taken   []byte        // the document last taken over, encoded
	pause   time.Duration // after the last failure; 0: it is not tried again until the file changes
	retryAt time.Time
}

func newPolicyFile(path string, router *routing.Router, log *slog.Logger, metrics prometheus.Registerer) (*policyFile, error) {
	p := &policyFile{
		path: path, router: router, log: log,
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headway_policy_load_failures_total",
			Help: "Times that the policy file could not be brought into force, each time that it is tried again included.",
		}),
	}
	return p, errors.Join(metrics.Register(p.failures), metrics.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "headway_policy_last_load_successful",
		Help: "1 if the policy file as it is now was taken over, or none is configured; else 0.",
	}, func() float64 {
		if p.failed.Load() {
			return 0
		}
		return 1
	})))
}

func (p *policyFile) Run(ctx context.Context) error {
	if p.path == "" {
		return nil
	}
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			again := p.due()
			if !again && !p.changed() {
				continue
			}
			err := p.Load(ctx)
			switch {
			case err != nil && again:
				p.log.Error("the policy file still cannot be brought into force; it is tried again", "error", err)
			case err != nil:
				p.log.Error("the policy file changed and cannot be used; the policy in force is unchanged", "error", err)
			}
		}
	}
}

// changed reports whether the file differs from the one last read.
func (p *policyFile) changed() bool {
	info, err := os.Stat(p.path)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		return p.seen != nil // tell once that it is gone
	}
	return p.seen == nil || !info.ModTime().Equal(p.seen.ModTime()) || info.Size() != p.seen.Size() || !os.SameFile(info, p.seen)
}

// due reports whether it is time to retry.
func (p *policyFile) due() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pause > 0 && !time.Now().Before(p.retryAt)
}

// fileError is a fault of the file's content, which only an edit can repair.
type fileError struct{ error }

func (e *fileError) Unwrap() error { return e.error }

// Load reads the file and applies its policy, if it differs from the last one
// from the file. A faulty file changes nothing.
func (p *policyFile) Load(ctx context.Context) error {
	if p.path == "" {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.load(ctx)
	p.failed.Store(err != nil)
	if err != nil {
		p.failures.Inc()
	}
	if _, written := errors.AsType[*fileError](err); err == nil || written {
		p.pause = 0
		return err
	}
	p.pause = min(lastRetry, max(firstRetry, 2*p.pause))
	p.retryAt = time.Now().Add(p.pause)
	return err
}

func (p *policyFile) load(ctx context.Context) error {
	info, err := os.Stat(p.path)
	p.seen = info
	if err != nil { // changed tells when it is there again
		return &fileError{fmt.Errorf("read the policy (--policy): %w", err)}
	}
	next, err := readPolicy(p.path)
	if err != nil {
		return err
	}
	if p.taken == nil {
		if p.taken, err = p.lastTaken(ctx); err != nil {
			return err
		}
	}
	if bytes.Equal(next.Canonical, p.taken) {
		p.log.Info("the policy file is as it was when last taken over", "file", p.path, "revision_in_force", p.router.Policy().Revision)
		return nil
	}
	ctx = audit.WithIdentity(ctx, &audit.Identity{Actor: audit.Actor{Type: "system", ID: filepath.Base(p.path), Via: "file"}})
	before := p.router.Policy().Revision
	current, err := p.router.Apply(ctx, routing.Change{
		Make: routing.To(next), Expect: routing.AnyRevision,
		Source: policy.SourceFile, Action: "policy.load", Note: filepath.Base(p.path),
	})
	if err != nil {
		return err
	}
	p.taken = next.Canonical
	p.log.Info("policy in force", "file", p.path, "revision", current.Revision, "changed", current.Revision != before)
	return nil
}

func readPolicy(path string) (*policy.Policy, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the policy (--policy): %w", err)
	}
	format := "yaml"
	if filepath.Ext(path) == ".json" {
		format = "json"
	}
	read, faults := policy.Parse(data, format)
	if len(faults) > 0 {
		return nil, policyError(path, faults)
	}
	return read, nil
}

// lastTaken is the newest document of the history that came from a file, if
// any.
func (p *policyFile) lastTaken(ctx context.Context) ([]byte, error) {
	list, err := p.router.Revisions(ctx, maxHistory)
	if err != nil {
		return nil, err
	}
	for _, revision := range list {
		if revision.Source == policy.SourceFile {
			return revision.Document, nil
		}
	}
	return []byte{}, nil
}

// maxHistory is more revisions than a store keeps.
const maxHistory = 1000

func policyError(file string, faults []strict.Fault) error {
	errs := []error{fmt.Errorf("the policy %s is invalid; nothing was changed", file)}
	for _, f := range faults {
		errs = append(errs, fmt.Errorf("  %s: %s", cmp.Or(f.Pointer, "the document"), f.Text()))
	}
	return &fileError{errors.Join(errs...)}
}
