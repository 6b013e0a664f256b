// Package pki has the certificates of the service: files that are reloaded when
// they change, ACME, and a small authority for a first installation.
package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"headway/internal/disk"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Options name the source of certificates. CertFile and KeyFile, or ACME, are
// required.
type Options struct {
	CertFile     string // PEM: the certificate and its chain
	KeyFile      string // PEM
	ClientCAFile string // PEM: who signs the certificates of clients; "": none are asked for
	ACME         ACME
	Log          *slog.Logger          // required
	Metrics      prometheus.Registerer // required
	Now          func() time.Time
}

// Certificates hold what is served. They are safe for concurrent use. A nil
// *Certificates is a service without TLS.
type Certificates struct {
	o        Options
	server   atomic.Pointer[tls.Certificate]
	clients  atomic.Pointer[x509.CertPool]
	failures prometheus.Counter

	mu      sync.Mutex // one reload at a time
	version string     // of the files, as read last without an error
}

// Open reads every file once. Later, an invalid file changes nothing.
func Open(o Options) (*Certificates, error) {
	if o.Log == nil || o.Metrics == nil {
		return nil, errors.New("pki: Log and Metrics are required")
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		return nil, errors.New("a certificate and its key go together: set both tls.cert_file and tls.key_file")
	}
	if o.CertFile != "" && len(o.ACME.Hosts) > 0 {
		return nil, errors.New("certificates come from files or by ACME: set tls.cert_file or tls.acme_hosts, not both")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Certificates{o: o, failures: promauto.With(o.Metrics).NewCounter(prometheus.CounterOpts{
		Name: "headway_tls_reload_failures_total", Help: "Times that a certificate changed and could not be read.",
	})}
	if _, err := c.reload(); err != nil {
		return nil, err
	}
	promauto.With(o.Metrics).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "headway_tls_certificate_not_after_seconds", Help: "Time at which the certificate from tls.cert_file ends, in seconds since 1970.",
	}, func() float64 {
		if end := c.NotAfter(); !end.IsZero() {
			return float64(end.Unix())
		}
		return math.NaN()
	})
	return c, nil
}

// Reload reads changed files. After an error the previous certificates stay.
func (c *Certificates) Reload() error {
	changed, err := c.reload()
	if err != nil {
		c.failures.Inc()
		return err
	}
	if changed {
		c.o.Log.Info("certificates read again", "cert_file", c.o.CertFile, "until", c.NotAfter())
	}
	return nil
}

// NotAfter is when the certificate from the file expires; zero without one.
func (c *Certificates) NotAfter() time.Time {
	if cert := c.server.Load(); cert != nil {
		return cert.Leaf.NotAfter
	}
	return time.Time{}
}

// ClientCAs are the authorities for client certificates, nil if clients need
// none. Each change makes a new pool.
func (c *Certificates) ClientCAs() *x509.CertPool {
	if c == nil {
		return nil
	}
	return c.clients.Load()
}

// Covers reports whether the current certificate is valid for a name.
func (c *Certificates) Covers(name string) bool {
	if c == nil {
		return false
	}
	if cert := c.server.Load(); cert != nil {
		return cert.Leaf.VerifyHostname(name) == nil
	}
	return slices.ContainsFunc(c.o.ACME.Hosts, func(host string) bool { return strings.EqualFold(host, name) })
}

func (c *Certificates) reload() (changed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	version := disk.Version(c.o.CertFile, c.o.KeyFile, c.o.ClientCAFile)
	if version == c.version {
		return false, nil
	}
	if c.o.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(c.o.CertFile, c.o.KeyFile)
		if err != nil {
			return false, fmt.Errorf("read the certificate %s and its key %s: %w", c.o.CertFile, c.o.KeyFile, err)
		}
		if now := c.o.Now(); now.After(cert.Leaf.NotAfter) && c.server.Load() == nil {
			return false, fmt.Errorf("the certificate %s ended at %s", c.o.CertFile, cert.Leaf.NotAfter.Format(time.RFC3339))
		}
		c.server.Store(&cert)
	}
	pool, err := ReadAuthorities(c.o.ClientCAFile)
	if err != nil {
		return false, fmt.Errorf("read who signs the certificates of clients: %w", err)
	}
	if !pool.Equal(c.clients.Load()) {
		c.clients.Store(pool)
	}
	c.version = version // only now: after an error all are read again
	return true, nil
}

// Config is for a TLS listener. With ClientCAFile set, clients may present a
// certificate, which must then be valid.
func (c *Certificates) Config() *tls.Config {
	if c == nil {
		return nil
	}
	base := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	if len(c.o.ACME.Hosts) > 0 {
		c.o.ACME.configure(base)
	} else {
		base.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.server.Load(), nil }
	}
	if c.o.ClientCAFile == "" {
		return base
	}
	base.ClientAuth = tls.VerifyClientCertIfGiven
	config := base.Clone()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now := base.Clone()
		now.ClientCAs = c.clients.Load()
		return now, nil
	}
	return config
}
