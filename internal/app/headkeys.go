package app

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"headway/internal/agent"
	"headway/internal/config"
	"headway/internal/fleet"
	"headway/internal/strict"
)

// headKeys are the API keys that heads ask of this service, by endpoint and not by
// id: a head that takes over another's id gets no key.
type headKeys struct {
	engines  func(endpoint string) string // of the heads that the service itself registers, from their key_file
	exact    map[string]*headKey          // by endpoint
	patterns []*headKey
	log      *slog.Logger
}

// headKey is a key of one head, or of all whose endpoint matches the pattern.
type headKey struct {
	pattern *endpointPattern // nil: it is of one endpoint
	from    string           // file, or env:NAME
	value   atomic.Pointer[string]
}

// headKeyAge is how often files with keys are read again, so that a replaced one is
// noticed.
const headKeyAge = 10 * time.Second

// newHeadKeys reads proxy.head_keys. The error names what cannot be read, and no
// key.
func newHeadKeys(list []string, engines func(endpoint string) string, allowLinkLocal bool, log *slog.Logger) (*headKeys, error) {
	keys := &headKeys{engines: engines, exact: map[string]*headKey{}, log: log}
	var errs []error
	for _, entry := range list {
		endpoint, from, _ := strings.Cut(entry, "=") // the configuration has checked it
		k := &headKey{from: from}
		if strings.Contains(endpoint, "*") {
			k.pattern = newEndpointPattern(endpoint)
			keys.patterns = append(keys.patterns, k)
			if k.pattern.anyDomain() {
				errs = append(errs, fmt.Errorf("proxy.head_keys: %s: a star in the last part of a name may stand for a domain of others", strict.Quote(endpoint)))
			}
		} else if canonical, err := fleet.Endpoint(endpoint, allowLinkLocal); err != nil {
			errs = append(errs, fmt.Errorf("proxy.head_keys: %s %w", strict.Quote(endpoint), err))
		} else {
			keys.exact[canonical] = k
		}
		if err := k.read(); err != nil {
			errs = append(errs, fmt.Errorf("proxy.head_keys: %s: %w", strict.Quote(endpoint), err))
		}
	}
	return keys, errors.Join(errs...)
}

func (k *headKey) read() (err error) {
	var value string
	if name, is := strings.CutPrefix(k.from, config.KeyFromEnv); is {
		value, err = agent.CheckKey(strings.TrimSpace(os.Getenv(name)))
	} else {
		value, err = agent.KeyFile(k.from)()
	}
	if err == nil {
		k.value.Store(&value)
	}
	return err
}

// of is the key of the head at an endpoint in its canonical form; "": it has none.
// It does not block.
func (h *headKeys) of(endpoint string) string {
	if key := h.engines(endpoint); key != "" {
		return key
	}
	if k := h.exact[endpoint]; k != nil {
		return *k.value.Load()
	}
	for _, k := range h.patterns {
		if k.pattern.matches(endpoint) {
			return *k.value.Load()
		}
	}
	return ""
}

// follow reads the keys again until the service ends.
func (h *headKeys) follow(ctx context.Context) error {
	every := time.NewTicker(headKeyAge)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
			h.readAgain()
		}
	}
}

// readAgain reads all keys. One that cannot be read any more stays as it was.
func (h *headKeys) readAgain() {
	for _, k := range append(slices.Collect(maps.Values(h.exact)), h.patterns...) {
		if err := k.read(); err != nil {
			h.log.Warn("a head's key cannot be read again; the last one is used", "from", k.from, "error", err)
		}
	}
}

// headRoots are the authorities of heads' certificates: those of the system, and of
// the file if there is one; nil: those of the system alone.
func headRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // as documented
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("proxy.ca_file: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("proxy.ca_file: %s has no certificate in PEM", file)
	}
	return pool, nil
}
