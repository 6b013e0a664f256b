package main

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/client"
	"headway/internal/audit"
)

func newAudit() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Read and verify the audit trail",
		Long: `Read and verify the audit trail. tail and search ask the service, or read --file;
verify and export read the file, which without --file is that of the service of
this machine.`,
		Args: cobra.NoArgs,
	}
	t := &trailSource{remote: new(remote)}
	t.addFlags(cmd)
	cmd.PersistentFlags().StringVar(&t.file, "file", "", "audit file to read, with those that were rotated beside it")
	cmd.AddCommand(newAuditTail(t), newAuditSearch(t), newAuditVerify(t), newAuditExport(t))
	return cmd
}

// trailSource is where records come from.
type trailSource struct {
	*remote
	file  string
	query client.AuditQuery
	since string
	until string
}

// path is the audit file.
func (t *trailSource) path() (string, error) {
	if t.file != "" {
		return t.file, nil
	}
	said, found, err := t.announced()
	if err != nil {
		return "", err
	}
	if found {
		return said.AuditFile, nil
	}
	candidates := []string{"/var/log/routing_audit.log"}
	for _, dir := range t.dirs() {
		candidates = append(candidates, filepath.Join(dir, "routing_audit.log"))
	}
	for _, file := range candidates {
		if _, err := os.Stat(file); err == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("no audit file found at %s; name it with --file", strings.Join(candidates, " or "))
}

func (t *trailSource) addQuery(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.since, "since", "", "from then on: a time such as 2026-01-31T15:04:05Z, or how long ago, such as 24h")
	f.StringVar(&t.until, "until", "", "before then, in the same forms")
	f.StringVar(&t.query.Actor, "actor", "", "who: an id, a type, or TYPE:ID")
	f.StringVar(&t.query.Action, "action", "", "what, such as policy.put; its beginning, or with * anywhere all of it")
	f.StringVar(&t.query.Category, "category", "", "admin, policy, head, routing_config, auth or audit")
	f.StringVar(&t.query.Outcome, "outcome", "", "success, failure or denied")
	f.StringVar(&t.query.Target, "target", "", "to what: an id, a type, or TYPE:ID")
}

func (t *trailSource) times(now time.Time) error {
	for _, e := range []struct {
		flag, text string
		to         *time.Time
	}{{"since", t.since, &t.query.Since}, {"until", t.until, &t.query.Until}} {
		if e.text == "" {
			continue
		}
		if ago, err := time.ParseDuration(e.text); err == nil && ago >= 0 {
			*e.to = now.Add(-ago)
			continue
		}
		at, err := time.Parse(time.RFC3339, e.text)
		if err != nil {
			return usageError(fmt.Errorf("--%s %q: want a time such as 2026-01-31T15:04:05Z, or how long ago, such as 24h", e.flag, e.text))
		}
		*e.to = at
	}
	return nil
}

// records returns up to most records, the newest first; 0 is all.
func (t *trailSource) records(ctx context.Context, most int) ([]api.AuditRecord, error) {
	if t.file != "" {
		return fromFile(ctx, t.file, t.query, most)
	}
	var list []api.AuditRecord
	err := t.do(nil, func(c *client.Client) (err error) {
		list, err = client.Collect(c.Audit(ctx, t.query), most)
		return err
	})
	return list, err
}

func fromFile(ctx context.Context, file string, find client.AuditQuery, most int) ([]api.AuditRecord, error) {
	if _, err := os.Stat(file); err != nil {
		return nil, err
	}
	q := audit.Query{
		Since: find.Since, Until: find.Until, Actor: find.Actor, Action: find.Action, Target: find.Target,
		Category: audit.Category(find.Category), Outcome: audit.Outcome(find.Outcome), Limit: audit.MaxFound,
	}
	var list []api.AuditRecord
	for {
		records, next, err := audit.Search(ctx, file, q)
		if err != nil {
			return nil, err
		}
		for i := range records {
			list = append(list, shownRecord(&records[i]))
			if most > 0 && len(list) == most {
				return list, nil
			}
		}
		if q.Cursor = next; next == "" {
			return list, nil
		}
	}
}

func shownRecord(r *audit.Record) api.AuditRecord {
	return api.AuditRecord{
		V: r.V, Seq: r.Seq, Time: r.Time, ID: r.ID, Node: r.Node, Stage: string(r.Stage),
		Category: string(r.Category), Action: r.Action, Outcome: string(r.Outcome), Reason: r.Reason,
		Actor: api.AuditActor(r.Actor), Src: api.AuditSource(r.Src), Target: api.AuditTarget(r.Target),
		RequestID: r.RequestID, TraceID: r.TraceID, Before: r.Before, After: r.After, Prev: r.Prev, Hash: r.Hash,
	}
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
			if err := errors.Join(out.check(), t.times(time.Now())); err != nil {
				return err
			}
			list, err := t.records(cmd.Context(), limit)
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
			if err := errors.Join(out.check(), t.times(time.Now())); err != nil {
				return err
			}
			list, err := t.records(cmd.Context(), count)
			if err != nil {
				return err
			}
			slices.Reverse(list)
			if err := out.write(cmd.OutOrStdout(), list, recordTable(list)); err != nil || !follow {
				return err
			}
			return t.followRecords(cmd.Context(), cmd.OutOrStdout(), &out, list)
		},
	}
	t.addQuery(cmd)
	out.addFlag(cmd)
	cmd.Flags().IntVarP(&count, "lines", "n", 20, "records to begin with")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "wait for more")
	return cmd
}

// followRecords shows records as they come, once a second.
func (t *trailSource) followRecords(ctx context.Context, w io.Writer, out *output, shown []api.AuditRecord) error {
	last := uint64(0)
	if len(shown) > 0 {
		last = shown[len(shown)-1].Seq
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		fresh, err := t.records(ctx, 0)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		fresh = slices.DeleteFunc(fresh, func(r api.AuditRecord) bool { return r.Seq <= last })
		if len(fresh) == 0 {
			continue
		}
		last = fresh[0].Seq
		t.query.Since = fresh[0].Time.Add(-time.Minute) // others of the same moment may follow
		slices.Reverse(fresh)
		table := recordTable(fresh)
		table.bare = true
		if err := out.write(w, fresh, table); err != nil {
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
			path, err := t.path()
			if err != nil {
				return err
			}
			o := audit.VerifyOptions{}
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
			file := checkpoint
			if file == "" {
				file = audit.CheckpointPath(path)
			}
			switch c, err := audit.ReadCheckpoint(file); {
			case err == nil:
				o.Checkpoint = &c
			case checkpoint != "" || publicKey != "" || !errors.Is(err, fs.ErrNotExist):
				return err
			}
			return verifyTrail(cmd, path, o)
		},
	}
	cmd.Flags().StringVar(&checkpoint, "checkpoint", "", "file with a checkpoint; without one that beside the trail, if there is one")
	cmd.Flags().StringVar(&publicKey, "public-key", "", "file with the Ed25519 key that signed the checkpoint, PEM")
	return cmd
}

func verifyTrail(cmd *cobra.Command, path string, o audit.VerifyOptions) error {
	if _, err := os.Stat(path); err != nil {
		return err
	}
	report, err := audit.Verify(cmd.Context(), path, o)
	if o.Progress != nil {
		fmt.Fprint(cmd.ErrOrStderr(), "\r\x1b[K")
	}
	if err != nil {
		return err
	}
	w := cmd.OutOrStdout()
	fmt.Fprintf(w, "%d records, %d to %d, in %d files\n", report.Records, report.First, report.Last, len(report.Files))
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
		return &codedError{exitDamage, fmt.Errorf("%s is not as it was written: %d faults", path, uint64(len(report.Faults))+report.Unlisted)}
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
		Long: `Write records to standard output as JSON lines, the oldest first: as they are in
the trail, or in the Open Cybersecurity Schema Framework (ocsf).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "jsonl" && format != "ocsf" {
				return usageError(fmt.Errorf("--format %q: want jsonl or ocsf", format))
			}
			if err := t.times(time.Now()); err != nil {
				return err
			}
			path, err := t.path()
			if err != nil {
				return err
			}
			list, err := fromFile(cmd.Context(), path, t.query, 0)
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			for i := len(list) - 1; i >= 0; i-- {
				if err := exportRecord(w, &list[i], format); err != nil {
					return err
				}
			}
			return nil
		},
	}
	t.addQuery(cmd)
	cmd.Flags().StringVar(&format, "format", "jsonl", "jsonl or ocsf")
	return cmd
}

func exportRecord(w io.Writer, r *api.AuditRecord, format string) error {
	if format == "jsonl" {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		return e.Encode(r)
	}
	return audit.WriteOCSF(w, audit.Record{
		V: r.V, Seq: r.Seq, Time: r.Time, ID: r.ID, Node: r.Node, Stage: audit.Stage(r.Stage),
		Category: audit.Category(r.Category), Action: r.Action, Outcome: audit.Outcome(r.Outcome), Reason: r.Reason,
		Actor: audit.Actor(r.Actor), Src: audit.Source(r.Src), Target: audit.Target(r.Target),
		RequestID: r.RequestID, TraceID: r.TraceID, Before: r.Before, After: r.After, Prev: r.Prev, Hash: r.Hash,
	})
}
