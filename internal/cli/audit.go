package cli

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/client"
	"headway/internal/audit"
	"headway/internal/local"
	"headway/internal/trail"
)

func newAudit() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Read and verify the audit trail",
		Long: `Read and verify the audit trail. tail and search ask the service, or read --file;
verify and export read the file, which without --file is that of the service of
this machine, or of --data-dir or --config.`,
		Args: cobra.NoArgs,
	}
	t := &trailSource{remote: new(remote)}
	t.addFlags(cmd)
	cmd.PersistentFlags().StringVar(&t.file, "file", "", "audit file to read, with those that were rotated beside it")
	t.addConfigFlag(cmd)
	cmd.AddCommand(newAuditTail(t), newAuditSearch(t), newAuditVerify(t), newAuditExport(t))
	return cmd
}

func recordTable(list []api.AuditRecord) *table {
	t := &table{columns: []string{"TIME", "ACTION", "OUTCOME", "ACTOR", "TARGET", "REASON", "SEQ", "FROM", "REQUEST", "AFTER"}, wide: 6}
	for i := range list {
		r := &list[i]
		outcome := r.Outcome
		if r.Stage == "intent" {
			outcome = "intent"
		}
		t.add(r.Time.Format(time.RFC3339), r.Action, outcome, joined(r.Actor.Type, r.Actor.ID), joined(r.Target.Type, r.Target.ID), orDash(r.Reason),
			fmt.Sprint(r.Seq), orDash(r.Src.IP), orDash(r.RequestID), orDash(string(r.After)))
	}
	return t
}

func joined(kind, id string) string {
	if id == "" {
		return kind
	}
	return kind + ":" + id
}

func newAuditSearch(t *trailSource) *cobra.Command {
	var out output
	var limit int
	cmd := &cobra.Command{
		Use:   "search",
		Short: "Find records, the newest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(out.check(), atLeastNone("limit", limit), t.times(time.Now())); err != nil {
				return err
			}
			list, err := t.records(cmd.Context(), t.query, limit)
			if err != nil {
				return err
			}
			return out.write(cmd.OutOrStdout(), list, recordTable(list))
		},
	}
	t.addQuery(cmd)
	out.addFlag(cmd)
	cmd.Flags().IntVar(&limit, "limit", 100, "records at most; 0 is all")
	return cmd
}

func newAuditTail(t *trailSource) *cobra.Command {
	var out output
	var count int
	var follow bool
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Show the newest records, and with -f those that come",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(out.check(), atLeastNone("lines", count), t.times(time.Now())); err != nil {
				return err
			}
			if !follow {
				_, err := t.last(cmd, &out, count)
				return err
			}
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			return t.follow(cmd, &out, count, tick.C)
		},
	}
	t.addQuery(cmd)
	out.addFlag(cmd)
	cmd.Flags().IntVarP(&count, "lines", "n", 20, "records to begin with; 0 is none")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "wait for more")
	return cmd
}

// atLeastNone refuses a number of records below 0.
func atLeastNone(flag string, n int) error {
	if n < 0 {
		return usageError(fmt.Errorf("--%s %d: want 0 or more", flag, n))
	}
	return nil
}

// last shows the newest records, the oldest of them first.
func (t *trailSource) last(cmd *cobra.Command, out *output, count int) (list []api.AuditRecord, err error) {
	if count > 0 {
		if list, err = t.records(cmd.Context(), t.query, count); err != nil {
			return nil, err
		}
	}
	shown := slices.Clone(list)
	slices.Reverse(shown)
	return list, out.write(cmd.OutOrStdout(), shown, recordTable(shown))
}

// follow shows the newest records and then, at each tick, those that have come.
func (t *trailSource) follow(cmd *cobra.Command, out *output, count int, tick <-chan time.Time) error {
	ctx := cmd.Context()
	newest, err := t.records(ctx, client.AuditQuery{}, 1)
	if err != nil {
		return err
	}
	list, err := t.last(cmd, out, count)
	if err != nil {
		return err
	}
	var from position
	from.reach(newest)
	from.reach(list)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick:
		}
		list, err := t.fresh(ctx, &from)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if len(list) == 0 {
			continue
		}
		slices.Reverse(list)
		table := recordTable(list)
		table.bare = true
		if err := out.write(cmd.OutOrStdout(), list, table); err != nil {
			return err
		}
	}
}

func newAuditVerify(t *trailSource) *cobra.Command {
	var checkpoint, publicKey string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Find whatever was changed in the trail",
		Long: `Read the whole trail and find each record that was edited, deleted, inserted,
repeated or moved. Against a checkpoint that was kept elsewhere (from the log, the
Redis channel, or a copy of the file .checkpoint) it also finds that the end was
cut off or written anew. Exit code 0: sound; 8: not.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := t.path(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			o := trail.VerifyOptions{}
			if isTerminal(cmd.ErrOrStderr()) {
				o.Progress = func(read, total int64) {
					fmt.Fprintf(cmd.ErrOrStderr(), "\r%d of %d MiB", read>>20, total>>20)
				}
			}
			if publicKey != "" {
				if o.PublicKey, err = readPublicKey(publicKey); err != nil {
					return err
				}
			}
			c, err := t.checkpoint(path, checkpoint)
			switch {
			case err == nil:
				o.Checkpoint = &c
			case checkpoint != "" || publicKey != "" || !errors.Is(err, fs.ErrNotExist):
				return err
			}
			return verifyTrail(cmd, path, o)
		},
	}
	cmd.Flags().StringVar(&checkpoint, "checkpoint", "", "file with a checkpoint; without one that beside the trail or in the data directory, if there is one")
	cmd.Flags().StringVar(&publicKey, "public-key", "", "file with the Ed25519 key that signed the checkpoint, PEM")
	return cmd
}

// checkpoint is what a trail is held against: what the file has or, without one,
// the newest that its service has kept.
func (t *trailSource) checkpoint(path, file string) (audit.Checkpoint, error) {
	if file != "" {
		return audit.ReadCheckpoint(file)
	}
	return audit.NewestCheckpoint(path, local.Dirs(t.dataDir)...)
}

func verifyTrail(cmd *cobra.Command, path string, o trail.VerifyOptions) error {
	if err := found(path); err != nil {
		return err
	}
	report, err := trail.Verify(cmd.Context(), path, o)
	if o.Progress != nil {
		fmt.Fprint(cmd.ErrOrStderr(), "\r\x1b[K")
	}
	if err != nil {
		return err
	}
	w := cmd.OutOrStdout()
	fmt.Fprintf(w, "%s, %d to %d, in %s\n", counted(report.Records, "record"), report.First, report.Last, counted(len(report.Files), "file"))
	switch {
	case o.Checkpoint == nil:
		fmt.Fprintln(w, "no checkpoint: that the end was cut off could not be seen")
	default:
		fmt.Fprintf(w, "checkpoint: record %d at %s\n", o.Checkpoint.Seq, o.Checkpoint.Time.Format(time.RFC3339))
	}
	if report.First > 1 {
		fmt.Fprintf(w, "records before %d are in older files that are not here\n", report.First)
	}
	for _, f := range report.Faults {
		fmt.Fprintln(w, f)
	}
	if !report.Sound() {
		return &codedError{exitDamage, fmt.Errorf("%s is not as it was written; faults: %d", path, uint64(len(report.Faults))+report.Unlisted)}
	}
	_, err = fmt.Fprintf(w, "%s is sound, up to the hash %s\n", path, report.LastHash)
	return err
}

func readPublicKey(file string) (ed25519.PublicKey, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(raw); block != nil {
		if key, err := x509.ParsePKIXPublicKey(block.Bytes); err == nil {
			if public, ok := key.(ed25519.PublicKey); ok {
				return public, nil
			}
		}
	}
	return nil, fmt.Errorf("%s holds no Ed25519 public key in PEM, as 'openssl pkey -in KEY -pubout' prints it", file)
}

func newAuditExport(t *trailSource) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write records as JSON lines, the oldest first",
		Long: `Write records to standard output as JSON lines, the oldest first: byte for byte as
they are in the trail, so that 'audit verify --file' reads a whole export as it
reads the trail, or in the Open Cybersecurity Schema Framework (ocsf).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "jsonl" && format != "ocsf" {
				return usageError(fmt.Errorf("--format %q: want jsonl or ocsf", format))
			}
			if err := t.times(time.Now()); err != nil {
				return err
			}
			path, err := t.path(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			w := bufio.NewWriterSize(forReading(cmd.OutOrStdout()), 64<<10)
			err = trail.Copy(cmd.Context(), path, trailQuery(t.query), func(line []byte) error {
				if format == "jsonl" {
					_, err := w.Write(line)
					return err
				}
				r, err := audit.ParseLine(bytes.TrimSuffix(line, []byte("\n")))
				if err != nil {
					return err
				}
				return trail.WriteOCSF(w, r)
			})
			return errors.Join(err, w.Flush())
		},
	}
	t.addQuery(cmd)
	cmd.Flags().StringVar(&format, "format", "jsonl", "jsonl or ocsf")
	return cmd
}
