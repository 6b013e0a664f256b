package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"headway/internal/access"
	"headway/internal/config"
	"headway/internal/local"
)

// readAccess reads the configured credentials, without the keys.
func (a *App) readAccess(context.Context) (err error) {
	c, o := a.config, &a.access
	*o = access.Options{
		Metrics:     a.metrics,
		Now:         time.Now,
		LocalToken:  filepath.Join(c.DataDir, local.TokenFile),
		PerAddress:  c.Access.RequestsPerAddress,
		Failures:    c.Access.FailuresPerAddress,
		BehindProxy: c.HTTP.BehindProxy,
		Authorities: a.certs.ClientCAs,
	}
	if o.OIDC, err = a.openIssuer(c.Access.OIDC); err != nil {
		return err
	}
	for _, text := range c.Access.Certificates {
		holder, err := access.ParseHolder(text)
		if err != nil {
			return fmt.Errorf("access.certificates: %w", err)
		}
		o.Certificates = append(o.Certificates, holder)
	}
	for _, text := range c.HTTP.TrustedProxies {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return fmt.Errorf("http.trusted_proxies: %w", err)
		}
		o.TrustedProxies = append(o.TrustedProxies, prefix.Masked())
	}
	return nil
}

func (a *App) openAccess(ctx context.Context) (err error) {
	if err := a.openKeys(ctx); err != nil {
		return err
	}
	if a.guard, err = access.New(a.access); err != nil {
		return err
	}
	return a.checkListen(a.guard.Closed()) // again, with the keys that are in force
}

func (a *App) openKeys(ctx context.Context) (err error) {
	a.access.Keys, err = access.OpenKeys(ctx, access.KeysOptions{Store: a.store, Audit: a.journal, Now: time.Now, Rate: a.config.Access.RequestsPerKey})
	return err
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

// OfflineKeys changes the keys in the data directory of a stopped service, and
// records it in that service's audit trail.
func OfflineKeys(ctx context.Context, c config.Config, do func(context.Context, *access.Keys) error) (err error) {
	a := &App{config: c, log: slog.New(slog.DiscardHandler), metrics: prometheus.NewRegistry()}
	defer func() { err = errors.Join(err, a.close()) }()
	for _, step := range []func(context.Context) error{a.openStore, a.readSigningKey, a.openJournal, a.openKeys} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return do(ctx, a.access.Keys)
}
