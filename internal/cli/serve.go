package cli

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"headway/internal/app"
	"headway/internal/cmdline"
	"headway/internal/config"
	"headway/internal/terminal"
)

func newServe(b Build) *cobra.Command {
	cmd := command("serve", "Run the service",
		`Run the service. Without any flag it listens on 127.0.0.1:8080 and keeps its
state in ./data.

Settings come from flags, then HEADWAY_* variables, then the file that --config
names, then defaults; 'headway config print' shows them with where each comes
from. SIGTERM and Ctrl-C stop it without losing work in flight; a second one cuts
what is still under way. SIGHUP reads the policy file, the lists of heads and the
certificates again, and opens the audit file again.`, func(c *call) error {
			settings, err := loadConfig(c.Flags(), app.CheckHeads(true))
			if err != nil {
				return err
			}
			log, lines := newLogger(c.ErrOrStderr(), settings)
			defer lines.flush()
			a, err := app.New(c.Context(), app.Options{Config: settings, Version: b.Version, Commit: b.Commit, Log: log, LogLinesLost: lines.lost.Load})
			if err != nil {
				return err
			}
			defer reloadOnHangup(c.Context(), a, log)()
			defer hurryOnSignals(a, log, terminal.IsTerminal(c.InOrStdin()))()
			return lines.say(a.Run(c.Context()))
		})
	config.AddFlags(cmd.Flags())
	return cmd
}

// loadConfig reads the configuration of a service from flags, which may be nil,
// and the environment.
func loadConfig(flags *pflag.FlagSet, checks ...config.Check) (config.Config, error) {
	c, err := config.Load(flags, os.Environ(), os.ReadFile, checks...)
	if err != nil {
		return c, cmdline.Errorf("%w", err)
	}
	return c, nil
}

// reloadOnHangup reloads on SIGHUP until the returned function is called.
func reloadOnHangup(ctx context.Context, a *app.App, log *slog.Logger) (stop func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range hangups {
			if err := a.Reload(ctx); err != nil {
				log.Error("reload failed; what is faulty stays as it was", "error", err)
			}
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(hangups)
		<-done
	}
}

// Together is the time within which signals count as one: supervisors signal a process
// and its group.
const Together = 500 * time.Millisecond

// hurryOnSignals listens, until the returned function is called, to the signals that
// end the context of the service too. People at a terminal wait for no lame duck,
// and the second signal cuts what is under way; the third has its usual effect.
func hurryOnSignals(a *app.App, log *slog.Logger, atTerminal bool) (stop func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		defer close(done)
		first, ok := <-signals
		if ok && first == os.Interrupt && atTerminal {
			a.SkipLameDuck()
		}
		together := func() {
			log.Info("a signal that came together with the first is one with it; a later one cuts work in flight")
		}
		if awaitSecond(signals, together) {
			signal.Stop(signals)
			a.Cut()
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		<-done
	}
}

// awaitSecond waits for a signal that is apart from the one that just came. It returns
// false if there will be none. together is called if one comes that is not: who sent
// it may wait for its effect.
func awaitSecond(signals <-chan os.Signal, together func()) bool {
	together = sync.OnceFunc(together)
	for began := time.Now(); ; {
		if _, ok := <-signals; !ok {
			return false
		}
		if time.Since(began) >= Together {
			return true
		}
		together()
	}
}

func newConfig() *cobra.Command {
	show := command("print", "Print the effective configuration and where each value comes from", "", func(c *call) error {
		settings, err := loadConfig(c.Flags(), app.CheckHeads(false))
		if err != nil {
			return err
		}
		return settings.Print(c.w, true)
	})
	config.AddFlags(show.Flags())
	return group("config", "Show the configuration", "", show)
}
