package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"headway/internal/app"
	"headway/internal/boltstore"
	"headway/internal/config"
)

func newState() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use:   "state",
		Short: "Check, export and import the state file",
		Long: `Check, export and import the state file (headway.db in the data directory),
which keeps registered heads, what operators set of them, and policies.`,
		Args: cobra.NoArgs,
	}
	flags := cmd.PersistentFlags()
	config.AddFlags(flags)
	flags.VisitAll(func(f *pflag.Flag) { f.Hidden = f.Name != "data-dir" && f.Name != "config" })
	// The service's own settings say where the state is, or a check would call
	// another file sound.
	cmd.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		c, err := config.Load(cmd.Flags(), os.Environ(), os.ReadFile)
		if err != nil {
			return usageError(err)
		}
		dataDir = c.DataDir
		return nil
	}
	path := func() string { return filepath.Join(dataDir, app.StateFile) }
	cmd.AddCommand(newStateCheck(path), newStateExport(path), newStateImport(&dataDir, path))
	return cmd
}

func newStateCheck(path func() string) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Verify every page, record and checksum of the state file",
		Long: `Verify every page, record and checksum of the state file. It changes nothing.
Exit code 0: sound; 8: damaged.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return checkState(cmd.OutOrStdout(), path()) },
	}
}

func newStateExport(path func() string) *cobra.Command {
	return &cobra.Command{
		Use:   "export [FILE]",
		Short: "Write the state as JSON lines to FILE or standard output",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return boltstore.Export(cmd.Context(), path(), cmd.OutOrStdout())
			}
			out, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return err
			}
			err = errors.Join(boltstore.Export(cmd.Context(), path(), out), out.Sync(), out.Close())
			if err != nil { // half an export must not pass for one
				err = errors.Join(err, os.Remove(args[0]))
			}
			return err
		},
	}
}

func newStateImport(dataDir *string, path func() string) *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE",
		Short: "Make a new state file from an export; - is standard input",
		Long: `Make a new state file from an export; - is standard input. An existing state
file is never overwritten: move it away first.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := io.NopCloser(cmd.InOrStdin())
			if args[0] != "-" {
				file, err := os.Open(args[0])
				if err != nil {
					return err
				}
				in = file
			}
			defer in.Close()
			if err := os.MkdirAll(*dataDir, 0o750); err != nil {
				return err
			}
			if err := asOwner(func() error { return boltstore.Import(cmd.Context(), in, path()) }, *dataDir); err != nil {
				return err
			}
			return checkState(cmd.OutOrStdout(), path())
		},
	}
}

func checkState(w io.Writer, path string) error {
	report, err := boltstore.Check(path)
	if err != nil {
		return err
	}
	for _, b := range report.Buckets {
		fmt.Fprintf(w, "%-10s %8d records\n", b.Name, b.Records)
	}
	for _, fault := range report.Faults {
		fmt.Fprintf(w, "damaged    %s\n", fault)
	}
	if len(report.Faults) > 0 {
		return &codedError{exitDamage, fmt.Errorf("%s is damaged in %d places; restore it from an export with 'headway state import'", path, len(report.Faults))}
	}
	_, err = fmt.Fprintf(w, "%s is sound\n", path)
	return err
}
