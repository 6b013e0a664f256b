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
	"time"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/client"
	"headway/internal/boltstore"
	"headway/internal/local"
)

func newState() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "state",
		Short: "Check, export and import the state file",
		Long: `Check, export and import the state file (headway.db in the data directory),
which keeps registered heads, what operators set of them, policies and the hashes
of API keys. While the service runs, it is asked for the copy or the check, which
needs the role admin; else the file itself is read.`,
		Args: cobra.NoArgs,
	}
	r := new(remote)
	r.addFlags(cmd)
	r.addConfigFlag(cmd)
	cmd.AddCommand(newStateCheck(r), newStateExport(r), newStateImport(r))
	return cmd
}

// withState does something with the state: of the service that is named or runs,
// or else with the file that no service has open. A data directory that is named
// is nearer than a service that the environment names.
func (r *remote) withState(cmd *cobra.Command, service func(*client.Client) error, file func(path string) error) error {
	if cmd.Flags().Changed("data-dir") && !cmd.Flags().Changed("server") {
		r.server = ""
	}
	if err := r.useConfig(); err != nil {
		return err
	}
	_, running, err := local.Running(r.dataDir)
	if err != nil {
		return err
	}
	if r.server != "" || running {
		return r.tooOld(r.do(nil, service))
	}
	c, err := r.settings()
	if err != nil {
		return err
	}
	return file(filepath.Join(c.DataDir, local.StateFile))
}

// tooOld explains the answer of a service that knows no copy of its state.
func (r *remote) tooOld(err error) error {
	refused, ok := errors.AsType[*client.Error](err)
	if !ok || refused.Problem.Code != api.CodeNotFound {
		return err
	}
	where, _ := r.where()
	return &codedError{exitNotFound, fmt.Errorf("the service at %s is older than this command and cannot export or check its state while it runs; stop it, then run this again on its machine, which reads its file", where)}
}

func newStateCheck(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Verify every page, record and checksum of the state file",
		Long: `Verify every page, record and checksum of the state file. It changes nothing. A
service that runs makes no change of its state meanwhile, mostly for less than a
second. Exit code 0: sound; 8: damaged.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := cmd.OutOrStdout()
			return r.withState(cmd, func(c *client.Client) error {
				report, err := c.CheckState(cmd.Context())
				if err != nil {
					return err
				}
				where, err := r.where()
				return errors.Join(err, printCheck(w, "the state of "+where, report))
			}, func(path string) error { return checkState(w, path) })
		},
	}
}

func newStateExport(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:   "export [FILE]",
		Short: "Write the state as JSON lines to FILE or standard output",
		Long: `Write the state as JSON lines to FILE, which must not exist, or to standard output:
a copy of one moment, also while the service runs and changes it. Its last line
has a checksum, without which 'state import' refuses it.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			written := new(lineCount)
			err := withOwnFile(name, "name a file that does not exist", forReading(cmd.OutOrStdout()), func(w io.Writer) error {
				w = io.MultiWriter(w, written)
				return r.withState(cmd,
					func(c *client.Client) error { return copyState(cmd.Context(), c, r.timeout, w) },
					func(path string) error { return boltstore.Export(cmd.Context(), path, w) },
				)
			})
			if err == nil && name != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "wrote %s to %s\n", counted(int(*written)-frameLines, "record"), seen(name))
			}
			return err
		},
	}
}

// frameLines are the first and the last line of an export, which are no records.
const frameLines = 2

// lineCount counts the lines that are written to it.
type lineCount int

func (n *lineCount) Write(b []byte) (int, error) {
	*n += lineCount(bytes.Count(b, []byte{'\n'}))
	return len(b), nil
}

// copyState writes what the service exports. It gives up when nothing comes for
// so long.
func copyState(ctx context.Context, c *client.Client, patience time.Duration, w io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(patience, func() { cancel(fmt.Errorf("%w: nothing came for %v", client.ErrUnavailable, patience)) })
	defer silence.Stop()
	state, err := c.ExportState(ctx)
	if err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	defer func() { _ = state.Close() }()
	if _, err := io.Copy(w, &heard{state, func() { silence.Reset(patience) }}); err != nil {
		return fmt.Errorf("export the state: %w", cmp.Or(context.Cause(ctx), err))
	}
	return nil
}

// heard calls a function whenever something was read.
type heard struct {
	io.Reader
	call func()
}

func (h *heard) Read(b []byte) (int, error) {
	n, err := h.Reader.Read(b)
	h.call()
	return n, err
}

func newStateImport(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE",
		Short: "Make a new state file from an export; - is standard input",
		Long: `Make a new state file from an export; - is standard input. An existing state
file is never overwritten: stop the service and move it away first.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("server") {
				return usageError(errors.New("a state is imported where the service will run, with --data-dir, and not over --server"))
			}
			in := io.NopCloser(cmd.InOrStdin())
			if args[0] != "-" {
				file, err := os.Open(args[0])
				if err != nil {
					return err
				}
				in = file
			}
			defer in.Close()
			c, err := r.settings()
			if err != nil {
				return err
			}
			if err := os.MkdirAll(c.DataDir, 0o750); err != nil {
				return err
			}
			path := filepath.Join(c.DataDir, local.StateFile)
			if err := local.AsOwner(func() error { return boltstore.Import(cmd.Context(), in, path) }, c.DataDir); err != nil {
				return err
			}
			return checkState(cmd.OutOrStdout(), path)
		},
	}
}

func checkState(w io.Writer, path string) error {
	found, err := boltstore.Check(path)
	if err != nil {
		return err
	}
	report := api.StateReport{Sound: len(found.Faults) == 0, Faults: found.Faults}
	for _, b := range found.Buckets {
		report.Buckets = append(report.Buckets, api.StateBucket(b))
	}
	return printCheck(w, path, report)
}

func printCheck(w io.Writer, what string, report api.StateReport) error {
	for _, b := range report.Buckets {
		fmt.Fprintf(w, "%-10s %8d records\n", seen(b.Name), b.Records)
	}
	for _, fault := range report.Faults {
		fmt.Fprintf(w, "damaged    %s\n", seen(fault))
	}
	if !report.Sound {
		return &codedError{exitDamage, fmt.Errorf("%s is damaged in %s; restore it from an export with 'headway state import'", what, counted(len(report.Faults), "place"))}
	}
	_, err := fmt.Fprintf(w, "%s is sound\n", seen(what))
	return err
}
