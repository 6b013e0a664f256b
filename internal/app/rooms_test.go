package app

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"headway/internal/config"
)

// Who has neither a key nor a certificate learns both at once.
func TestAnAddressThatOthersReachNeedsAKeyAndTLS(t *testing.T) {
	const key, tls = "there is no key yet", "keys would travel in the clear"
	for _, c := range []struct {
		listen        string
		closed, proxy bool
		want          []string
	}{
		{listen: "127.0.0.1:0"},
		{listen: "0.0.0.0:0", want: []string{key, tls}},
		{listen: "0.0.0.0:0", closed: true, want: []string{tls}},
		{listen: "0.0.0.0:0", proxy: true, want: []string{key}},
		{listen: "0.0.0.0:0", closed: true, proxy: true},
	} {
		a := &App{config: config.Config{Listen: c.listen, HTTP: config.HTTP{BehindProxy: c.proxy}}}
		text := fmt.Sprint(a.checkListen(c.closed))
		if len(c.want) == 0 && text != "<nil>" {
			t.Errorf("%+v: %s", c, text)
		}
		for _, fault := range []string{key, tls} {
			if strings.Contains(text, fault) != slices.Contains(c.want, fault) {
				t.Errorf("%+v: %s", c, text)
			}
		}
	}
}

// The check before anything is opened takes a state file that cannot be read
// for one with keys. Once it is open, the keys that are in it count.
func TestNoKeyIsNoticedOnceTheStateIsOpen(t *testing.T) {
	c, err := config.Load(pflag.NewFlagSet("headway", pflag.ContinueOnError), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c.Listen, c.DataDir, c.HTTP.BehindProxy, c.Audit.File = "0.0.0.0:0", dir, true, filepath.Join(dir, "audit.log")
	a := &App{config: c, log: slog.New(slog.DiscardHandler), metrics: prometheus.NewRegistry()}
	defer func() {
		if err := a.close(); err != nil {
			t.Error(err)
		}
	}()
	for _, step := range []func(context.Context) error{a.readAccess, a.openStore, a.readSigningKey, a.openJournal} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.openAccess(t.Context()); err == nil || !strings.Contains(err.Error(), "there is no key yet") {
		t.Errorf("%v", err)
	}
}
