package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"headway/internal/disk"
	"headway/internal/strict"
)

// ParseFile is Parse for the content of a file: JSON if its name ends in .json,
// else YAML.
func ParseFile(name string, data []byte) (*Policy, []strict.Fault) {
	if filepath.Ext(name) == ".json" {
		return Parse(data, "json")
	}
	return Parse(data, "yaml")
}

// ReadFile reads a policy file. The error has a line for each fault of the
// document.
func ReadFile(path string) (*Policy, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the policy (--policy): %w", err)
	}
	read, faults := ParseFile(path, data)
	if len(faults) > 0 {
		return nil, strict.Listed(fmt.Sprintf("the policy %s is invalid; nothing was changed", path), faults)
	}
	return read, nil
}

// Backoff after a fault that may pass.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// FileOptions are what a File is made of. All but Path are required.
type FileOptions struct {
	Path    string                                          // "": there is none
	Store   Store                                           // has the document applied last
	Apply   func(context.Context, *Policy) (*Policy, error) // returns the policy in force
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// File applies the policy of a file when that changes, and retries faults that
// an edit does not repair. A newer policy from the API stays in force, over
// restarts too, until the file differs from the one applied last. It is safe
// for concurrent use.
type File struct {
	o        FileOptions
	failures prometheus.Counter
	failed   atomic.Bool // the file as it is now is not in force

	mu      sync.Mutex
	seen    string        // the version that was last loaded
	applied []byte        // the document applied last, encoded; nil: not known yet
	pause   time.Duration // after the last failure; 0: no retry before the file changes
	retryAt time.Time
}

// NewFile makes a File. Load it first.
func NewFile(o FileOptions) (*File, error) {
	if o.Store == nil || o.Apply == nil || o.Log == nil || o.Metrics == nil {
		return nil, errors.New("policy: Store, Apply, Log and Metrics are required")
	}
	metrics := promauto.With(o.Metrics)
	f := &File{o: o, failures: metrics.NewCounter(prometheus.CounterOpts{
		Name: "headway_policy_load_failures_total",
		Help: "Times that the policy file could not be brought into force, each time that it is tried again included.",
	})}
	metrics.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "headway_policy_last_load_successful",
		Help: "1 if the policy file as it is now was taken over, or none is configured; else 0.",
	}, func() float64 {
		if f.failed.Load() {
			return 0
		}
		return 1
	})
	return f, nil
}

// Reload loads the file if it has changed, or if a retry is due.
func (f *File) Reload(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	due := f.pause > 0 && !time.Now().Before(f.retryAt)
	if !due && disk.Version(f.o.Path) == f.seen {
		return nil
	}
	return f.load(ctx)
}

// Load reads the file, and applies its policy if that differs from the one
// applied last. A faulty file changes nothing.
func (f *File) Load(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.load(ctx)
}

// load is Load. The caller holds mu.
func (f *File) load(ctx context.Context) error {
	f.seen = disk.Version(f.o.Path)
	final, err := f.apply(ctx)
	f.failed.Store(err != nil)
	if err != nil {
		f.failures.Inc()
	}
	if err == nil || final {
		f.pause = 0
		return err
	}
	f.pause = min(lastRetry, max(firstRetry, 2*f.pause))
	f.retryAt = time.Now().Add(f.pause)
	return err
}

// apply reports whether its error is final, so that only a change of the file
// can help.
func (f *File) apply(ctx context.Context) (final bool, err error) {
	if f.o.Path == "" {
		return false, nil
	}
	next, err := ReadFile(f.o.Path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist) || len(strict.FaultsOf(err)) > 0, err
	}
	if f.applied == nil {
		if f.applied, err = f.appliedLast(ctx); err != nil {
			return false, err
		}
	}
	if bytes.Equal(next.Canonical, f.applied) {
		f.o.Log.Info("the policy file has the policy applied last", "file", f.o.Path)
		return false, nil
	}
	current, err := f.o.Apply(ctx, next)
	if err != nil {
		return false, err
	}
	f.applied = next.Canonical
	f.o.Log.Info("policy in force", "file", f.o.Path, "revision", current.Revision)
	return false, nil
}

// appliedLast is the newest document of the history that came from a file; it
// is empty without one.
func (f *File) appliedLast(ctx context.Context) ([]byte, error) {
	list, err := f.o.Store.PolicyRevisions(ctx, math.MaxInt)
	if err != nil {
		return nil, fmt.Errorf("read the history of the policy: %w", err)
	}
	for _, p := range list {
		if p.Source == SourceFile {
			return p.Document, nil
		}
	}
	return []byte{}, nil
}
