package app

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"time"

	"headway/internal/outbound"
	"headway/internal/pki"
)

const acmeTimeout = 30 * time.Second

func (a *App) openCertificates(context.Context) (err error) {
	c := a.config.TLS
	if c.CertFile == "" && len(c.ACMEHosts) == 0 {
		return nil
	}
	if len(c.ACMEHosts) > 0 && c.ACMEDirectory != "" {
		if err := mayCall("tls.acme_directory", c.ACMEDirectory); err != nil {
			return err
		}
	}
	a.certs, err = pki.Open(pki.Options{
		CertFile: c.CertFile, KeyFile: c.KeyFile, ClientCAFile: c.ClientCAFile, Log: a.log, Metrics: a.metrics,
		ACME: pki.ACME{
			Hosts: c.ACMEHosts, Email: c.ACMEEmail, Directory: c.ACMEDirectory,
			CacheDir: filepath.Join(a.config.DataDir, "acme"),
			Client:   a.client(a.calls.ACME, acmeTimeout),
		},
	})
	return err
}

// reloadCertificates reads changed files, and updates the announced certificate
// and the open connections of clients. One file may be faulty and another not,
// so it updates after an error too.
func (a *App) reloadCertificates() error {
	if a.certs == nil {
		return nil
	}
	before := a.certs.ClientCAs()
	err := a.certs.Reload()
	if a.certs.ClientCAs() != before {
		a.guard.AuthoritiesChanged()
	}
	return errors.Join(err, a.announcer.Refresh())
}

// client makes an HTTP client whose requests are counted.
func (a *App) client(count *outbound.Counter, timeout time.Duration) *http.Client {
	c := outbound.NewClient(outbound.Options{Timeout: timeout, Count: count})
	a.onStop("idle connections", func() error { c.CloseIdleConnections(); return nil })
	return c
}
