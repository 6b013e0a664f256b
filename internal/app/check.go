package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"headway/internal/address"
	"headway/internal/monitor"
	"headway/internal/natsmq"
	"headway/internal/policy"
)

// check returns all faults of the configuration and its files.
func (a *App) check(ctx context.Context) error {
	closed := a.mayBeClosed()
	return errors.Join(
		a.checkListen(closed), a.checkQueue(closed), a.checkMonitor(), a.checkPolicy(), a.readSigningKey(ctx), a.checkAuditFile(), a.checkHeads(),
	)
}

func (a *App) checkPolicy() (err error) {
	if file := a.config.Policy; file != "" {
		_, err = policy.ReadFile(file)
	}
	return err
}

// checkQueue returns the faults of the queue's configuration; closed means that
// credentials are required.
func (a *App) checkQueue(closed bool) error {
	c := a.config.Queue
	switch {
	case c.Mode == "external":
		external := a.externalQueue()
		return errors.Join(mayCall("queue.url", strings.Split(c.URL, ",")...), external.Check())
	case c.Mode == "embedded" && c.Listen != "":
		return natsmq.CheckListen(c.Listen, a.certs != nil && closed)
	}
	return nil
}

func (a *App) checkMonitor() error {
	c := a.config.Monitor
	if !c.Enabled {
		return nil
	}
	err := errors.Join(mayCall("monitor.alertmanagers", c.Alertmanagers...), mayCall("monitor.alert_webhooks", c.AlertWebhooks...))
	if c.RulesFile != "" {
		err = errors.Join(err, monitor.CheckRules(c.RulesFile, a.log))
	}
	return err
}

// checkAuditFile returns why the configured audit file cannot be written. The
// data directory is made later.
func (a *App) checkAuditFile() error {
	file := a.config.Audit.File
	if file == "" {
		return nil
	}
	err := tryWrite(file)
	if errors.Is(err, fs.ErrNotExist) {
		if sameDir(filepath.Dir(file), a.config.DataDir) {
			return nil
		}
		err = fmt.Errorf("there is no directory %s; make it first", filepath.Dir(file))
	}
	if err != nil {
		return fmt.Errorf("open the audit trail (--audit-file): %w", err)
	}
	return nil
}

func sameDir(a, b string) bool {
	a, errA := filepath.Abs(a)
	b, errB := filepath.Abs(b)
	return errA == nil && errB == nil && a == b
}

// tryWrite returns why a file is not writable. It leaves no file behind.
func tryWrite(file string) error {
	info, err := os.Stat(file)
	var f *os.File
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if f, err = os.CreateTemp(filepath.Dir(file), ".headway-*"); err == nil {
			err = errors.Join(f.Close(), os.Remove(f.Name()))
		}
	case err == nil && !info.IsDir() && !info.Mode().IsRegular(): // a pipe may wait for its reader
	case err == nil:
		if f, err = os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0); err == nil {
			err = f.Close()
		}
	}
	return err
}

// mayCall refuses configured servers at forbidden addresses. Private ones are
// allowed, link-local ones are not. Resolved and redirected addresses are
// checked when they are dialed.
func mayCall(setting string, servers ...string) error {
	for _, server := range servers {
		u, err := url.Parse(strings.TrimSpace(server))
		if err != nil { // the configuration has checked it
			return fmt.Errorf("%s is not a URL", setting)
		}
		if wrong := address.CheckHost(u.Hostname(), false, ""); wrong != "" {
			return fmt.Errorf("%s %s", setting, wrong)
		}
	}
	return nil
}
