package app

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"headway/internal/config"
)

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
