package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/client"
	"headway/internal/app"
	"headway/internal/boltstore"
	"headway/internal/cmdline"
	"headway/internal/config"
	"headway/internal/local"
	"headway/internal/terminal"
)

func newState() *cobra.Command {
	r := new(remote)
	return r.addConfigFlag(r.addFlags(group("state", "Check, export and import the state file", `Check, export and import the state file (headway.db in the data directory),
which keeps registered heads, what operators set of them, policies and the hashes
of API keys. While the service runs, it is asked for the copy or the check, which
needs the role admin; else the file itself is read.`,
		newStateCheck(r), newStateExport(r), newStateImport(r))))
}

// withState does something with the state: of the service that is named or runs,
// or else with the file that no service has open. A data directory that is named
// is nearer than a service that the environment names.
func (r *remote) withState(c *call, service func(*call) error, file func(path string) error) error {
	if c.Flags().Changed("data-dir") && !c.Flags().Changed("server") {
		r.Server = ""
	}
	return r.either(c, func(c *call) error { return r.tooOld(service(c)) }, func(settings config.Config) error {
		return file(filepath.Join(settings.DataDir, local.StateFile))
	})
}

// tooOld explains the answer of a service that knows no copy of its state.
func (r *remote) tooOld(err error) error {
	refused, ok := errors.AsType[*client.Error](err)
	if !ok || refused.Problem.Code != api.CodeNotFound {
		return err
	}
	where, _ := r.URL()
	return &codedError{exitNotFound, fmt.Errorf("the service at %s is older than this command and cannot export or check its state while it runs; stop it, then run this again on its machine, which reads its file", where)}
}

func newStateCheck(r *remote) *cobra.Command {
	return command("check", "Verify every page, record and checksum of the state file",
		`Verify every page, record and checksum of the state file. It changes nothing. A
service that runs makes no change of its state meanwhile, mostly for less than a
second. Exit code 0: sound; 8: damaged.`, func(c *call) error {
			return r.withState(c, func(c *call) error {
				report, err := c.CheckState(c.Context())
				if err != nil {
					return err
				}
				where, err := r.URL()
				return errors.Join(err, c.printState("the state of "+where, "", report))
			}, c.checkState)
		})
}

func newStateExport(r *remote) *cobra.Command {
	return command("export [FILE]", "Write the state as JSON lines to FILE or standard output",
		`Write the state as JSON lines to FILE, which must not exist, or to standard output:
a copy of one moment, also while the service runs and changes it. Its last line
has a checksum, without which 'state import' refuses it.`, func(c *call) error {
			name := strings.Join(c.args, "")
			lines := 0
			err := withOwnFile(name, "name a file that does not exist", terminal.EscapeWriter(c.w), func(w io.Writer) error {
				w = io.MultiWriter(w, tap(func(b []byte) { lines += bytes.Count(b, []byte{'\n'}) }))
				return r.withState(c,
					func(c *call) error { return copyState(c, r.Timeout, w) },
					func(path string) error { return missing(boltstore.Export(c.Context(), path, w)) },
				)
			})
			if err == nil && name != "" {
				c.note("wrote %s to %s\n", terminal.Count(lines-frameLines, "record"), name)
			}
			return err
		})
}

// frameLines are the first and the last line of an export, which are no records.
const frameLines = 2

// tap is called with what is written to it.
type tap func(b []byte)

func (t tap) Write(b []byte) (int, error) {
	t(b)
	return len(b), nil
}

// copyState writes what the service exports.
func copyState(c *call, patience time.Duration, w io.Writer) error {
	return copyPatiently(c.Context(), patience, "export the state", w, c.ExportState)
}

// copyPatiently writes what the service sends. It gives up when nothing comes for so
// long.
func copyPatiently(ctx context.Context, patience time.Duration, what string, w io.Writer, open func(context.Context) (io.ReadCloser, error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(patience, func() { cancel(fmt.Errorf("%w: nothing came for %v", client.ErrUnavailable, patience)) })
	defer silence.Stop()
	body, err := open(ctx)
	if err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	defer func() { _ = body.Close() }()
	if _, err := io.Copy(io.MultiWriter(w, tap(func([]byte) { silence.Reset(patience) })), body); err != nil {
		return fmt.Errorf("%s: %w", what, cmp.Or(context.Cause(ctx), err))
	}
	return nil
}

func newStateImport(r *remote) *cobra.Command {
	return command("import FILE", "Make a new state file from an export; - is standard input",
		`Make a new state file from an export; - is standard input. An existing state
file is never overwritten: stop the service and move it away first.`, func(c *call) error {
			if c.Flags().Changed("server") {
				return cmdline.Errorf("a state is imported where the service will run, with --data-dir, and not over --server")
			}
			in := io.NopCloser(c.InOrStdin())
			if c.args[0] != "-" {
				file, err := os.Open(c.args[0])
				if err != nil {
					return missing(err)
				}
				in = file
			}
			defer in.Close()
			settings, err := loadConfig(r.flags)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(settings.DataDir, 0o750); err != nil {
				return err
			}
			path := filepath.Join(settings.DataDir, local.StateFile)
			if err := local.AsOwner(func() error { return boltstore.Import(c.Context(), in, path) }, settings.DataDir); err != nil {
				return err
			}
			return c.checkState(path)
		})
}

// checkState checks the file of a service that does not run.
func (c *call) checkState(path string) error {
	found, err := boltstore.Check(path)
	if err != nil {
		return missing(err)
	}
	return c.printState(path, " --data-dir "+filepath.Dir(path), app.StateReport(found))
}

// printState shows a report; flag names the directory that an import is for.
func (c *call) printState(what, flag string, report api.StateReport) error {
	for _, b := range report.Buckets {
		_, noun, _ := strings.Cut(terminal.Count(b.Records, "record"), " ")
		_ = c.say("%-10s %8d %s\n", b.Name, b.Records, noun)
	}
	for _, fault := range report.Faults {
		_ = c.say("fault      %s\n", fault)
	}
	if !report.Sound {
		return &codedError{exitDamage, fmt.Errorf("%s is damaged in %s; move the file away and restore an export with 'headway state import FILE%s'", what, terminal.Count(len(report.Faults), "place"), flag)}
	}
	return c.say("%s is sound\n", what)
}
