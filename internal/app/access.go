package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/access"
	"headway/internal/address"
	"headway/internal/boltstore"
	"headway/internal/config"
	"headway/internal/local"
)

// readAccess reads the configured credentials, without the keys.
func (a *App) readAccess() (o access.Options, err error) {
	c := a.config
	o = access.Options{
		Now:         time.Now,
		LocalToken:  filepath.Join(c.DataDir, local.TokenFile),
		PerAddress:  c.Access.RequestsPerAddress,
		Failures:    c.Access.FailuresPerAddress,
		BehindProxy: c.HTTP.BehindProxy,
	}
	if o.OIDC, err = a.openIssuer(c.Access.OIDC); err != nil {
		return o, err
	}
	for _, text := range c.Access.Certificates {
		holder, err := access.ParseHolder(text)
		if err != nil {
			return o, fmt.Errorf("access.certificates: %w", err)
		}
		o.Certificates = append(o.Certificates, holder)
	}
	if len(o.Certificates) > 0 && c.TLS.ClientCAFile == "" {
		return o, errors.New("access.certificates names holders of certificates, but tls.client_ca_file does not say who signs them")
	}
	if a.certs != nil {
		o.Authorities = a.certs.ClientCAs
	}
	for _, text := range c.HTTP.TrustedProxies {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return o, fmt.Errorf("http.trusted_proxies: %w", err)
		}
		o.TrustedProxies = append(o.TrustedProxies, prefix.Masked())
	}
	return o, nil
}

func (a *App) openAccess(ctx context.Context, store access.KeyStore, o access.Options) (err error) {
	c := a.config
	o.Metrics = a.metrics
	if o.Keys, err = access.OpenKeys(ctx, store, beginning(a.journal, c.Audit.Strict), c.Access.RequestsPerKey, time.Now); err != nil {
		return err
	}
	a.keys = o.Keys
	if a.guard, err = access.New(o); err != nil {
		return err
	}
	return a.checkListen(a.guard.Closed())
}

// mayBeClosed reports whether the guard will require credentials, as far as
// that is known before anything is written. An unreadable state file counts as
// one with keys, since opening it reports the error.
func (a *App) mayBeClosed(o access.Options) bool {
	if o.OIDC != nil || len(o.Certificates) > 0 {
		return true
	}
	keys, err := boltstore.ReadKeys(filepath.Join(a.config.DataDir, local.StateFile))
	return err != nil || slices.ContainsFunc(keys, func(k access.Key) bool { return k.RevokedAt.IsZero() })
}

const issuerTimeout = 5 * time.Second

// openIssuer is nil if no issuer is trusted.
func (a *App) openIssuer(c config.OIDC) (*access.OIDC, error) {
	if c.Issuer == "" {
		return nil, nil
	}
	o := access.OIDCOptions{
		Issuer: c.Issuer, Audience: c.Audience, Algorithms: c.Algorithms, RolesClaim: c.RolesClaim,
		HeadsClaim: c.HeadsClaim, RegionsClaim: c.RegionsClaim, Roles: map[string]access.Role{}, Now: time.Now,
		Client: a.client(a.calls.OIDC, issuerTimeout),
	}
	for _, text := range c.Roles {
		at := strings.LastIndexByte(text, '=') // the configuration has checked that there is one
		o.Roles[text[:at]] = access.Role(text[at+1:])
	}
	return access.NewOIDC(o)
}

// checkListen refuses an address that other machines can reach, unless the
// service requires credentials, as closed says, over TLS.
func (a *App) checkListen(closed bool) error {
	switch {
	case address.Loopback(a.config.Listen):
	case !closed:
		return fmt.Errorf("--listen %q: there is no key yet, so any caller of this address could change the fleet.  "+
			"Make an administrator's key first: headway keys create --role admin --name NAME --data-dir %s. "+
			"Or listen on 127.0.0.1", a.config.Listen, a.config.DataDir)
	case a.certs == nil && !a.config.HTTP.BehindProxy:
		return fmt.Errorf("--listen %q: keys would travel in the clear. Give a certificate with --tls-cert-file and --tls-key-file "+
			"(headway tls init makes one), or say --http-behind-proxy if a proxy in front ends TLS. Or listen on 127.0.0.1", a.config.Listen)
	}
	return nil
}

// OfflineKeys changes the keys in the data directory of a stopped service, and
// records it in that service's audit trail.
func OfflineKeys(ctx context.Context, c config.Config, do func(context.Context, *access.Keys) error) (err error) {
	a := &App{config: c, log: slog.New(slog.DiscardHandler), metrics: prometheus.NewRegistry()}
	defer func() { err = errors.Join(err, a.close()) }()
	store, err := a.openStore()
	if err != nil {
		return err
	}
	if err := a.openTrail(); err != nil { //nolint:contextcheck // the trail outlasts the start
		return err
	}
	keys, err := access.OpenKeys(ctx, store, beginning(a.journal, c.Audit.Strict), 0, time.Now)
	if err != nil {
		return err
	}
	return do(ctx, keys)
}
