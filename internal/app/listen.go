package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"

	"headway/internal/access"
	"headway/internal/address"
	"headway/internal/boltstore"
	"headway/internal/local"
)

// listen opens the listener, and checks the addresses of the message queue.
// Connections are accepted once the service is built.
func (a *App) listen(ctx context.Context) (err error) {
	if q := a.config.Queue; q.Mode == "embedded" && q.Listen != "" {
		free, err := (&net.ListenConfig{}).Listen(ctx, "tcp", q.Listen)
		if err != nil {
			return fmt.Errorf("listen for the message queue on another address with --queue-listen: %w", err)
		}
		if err := free.Close(); err != nil {
			return err
		}
	}
	if a.listener, err = a.open(ctx, "listener", "--listen", a.config.Listen); err == nil && a.config.Proxy.Listen != "" {
		a.dataListener, err = a.open(ctx, "listener of the data plane", "--proxy-listen", a.config.Proxy.Listen)
	}
	return err
}

func (a *App) open(ctx context.Context, part, flag, addr string) (net.Listener, error) {
	l, err := (&net.ListenConfig{Control: noticeVanished}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on another address with %s: %w", flag, err)
	}
	a.onStop(part, func() error {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	return l, nil
}

// checkListen refuses an address that other machines can reach, unless the
// service requires credentials, as closed says, over TLS.
func (a *App) checkListen(closed bool) error {
	return errors.Join(a.checkAddr("--listen", a.config.Listen, closed), a.checkAddr("--proxy-listen", a.config.Proxy.Listen, closed))
}

func (a *App) checkAddr(flag, addr string, closed bool) error {
	if addr == "" || address.Loopback(addr) {
		return nil
	}
	var key, tls error
	if !closed {
		key = fmt.Errorf("%s %q: there is no key yet, so any caller of this address could change the fleet. "+
			"Make an administrator's key first: headway keys create --role admin --name NAME --data-dir %s. "+
			"Or listen on 127.0.0.1", flag, addr, a.config.DataDir)
	}
	if a.certs == nil && !a.config.HTTP.BehindProxy {
		tls = fmt.Errorf("%s %q: keys would travel in the clear. Give a certificate with --tls-cert-file and --tls-key-file "+
			"(headway tls init makes one), or say --http-behind-proxy if a proxy in front ends TLS. Or listen on 127.0.0.1", flag, addr)
	}
	return errors.Join(key, tls)
}

// mayBeClosed reports whether the guard will require credentials, as far as
// that is known before anything is written. An unreadable state file counts as
// one with keys, since opening it reports the error.
func (a *App) mayBeClosed() bool {
	if a.access.OIDC != nil || len(a.access.Certificates) > 0 {
		return true
	}
	keys, err := boltstore.ReadKeys(filepath.Join(a.config.DataDir, local.StateFile))
	return err != nil || slices.ContainsFunc(keys, func(k access.Key) bool { return k.RevokedAt.IsZero() })
}
