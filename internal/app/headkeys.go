package app

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
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
	pattern string
	from    string // file, or env:NAME

	mu    sync.Mutex
	value string
	at    time.Time // of the last reading
}

// headKeyAge is how long a key that was read is used, so that a replaced file is
// noticed.
const headKeyAge = 10 * time.Second

// newHeadKeys reads proxy.head_keys. The error names what cannot be read, and no
// key.
func newHeadKeys(list []string, engines func(endpoint string) string, allowLinkLocal bool, log *slog.Logger) (*headKeys, error) {
	keys := &headKeys{engines: engines, exact: map[string]*headKey{}, log: log}
	var errs []error
	for _, entry := range list {
		endpoint, from, _ := strings.Cut(entry, "=") // the configuration has checked it
		k := &headKey{pattern: strings.TrimSuffix(strings.ToLower(endpoint), "/"), from: from}
		if strings.Contains(endpoint, "*") {
			keys.patterns = append(keys.patterns, k)
		} else if canonical, err := fleet.Endpoint(endpoint, allowLinkLocal); err != nil {
			errs = append(errs, fmt.Errorf("proxy.head_keys: %s %w", strict.Quote(endpoint), err))
		} else {
			keys.exact[canonical] = k
		}
		if err := k.read(time.Now()); err != nil {
			errs = append(errs, fmt.Errorf("proxy.head_keys: %s: %w", strict.Quote(endpoint), err))
		}
	}
	return keys, errors.Join(errs...)
}

func (k *headKey) read(now time.Time) (err error) {
	k.at = now
	var value string
	if name, is := strings.CutPrefix(k.from, config.KeyFromEnv); is {
		value, err = agent.CheckKey(strings.TrimSpace(os.Getenv(name)))
	} else {
		value, err = agent.KeyFile(k.from)()
	}
	if err == nil {
		k.value = value
	}
	return err
}

// of is the key of the head at an endpoint in its canonical form; "": it has none.
func (h *headKeys) of(endpoint string) string {
	if key := h.engines(endpoint); key != "" {
		return key
	}
	if k := h.exact[endpoint]; k != nil {
		return h.current(k)
	}
	for _, k := range h.patterns {
		if strict.Match(k.pattern, endpoint, nil) {
			return h.current(k)
		}
	}
	return ""
}

// current is the key as it was last read. One that cannot be read any more stays.
func (h *headKeys) current(k *headKey) string {
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	if now.Sub(k.at) >= headKeyAge {
		if err := k.read(now); err != nil {
			h.log.Warn("a head's key cannot be read again; the last one is used", "from", k.from, "error", err)
		}
	}
	return k.value
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
