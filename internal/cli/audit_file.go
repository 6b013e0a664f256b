package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"headway/internal/audit"
	"headway/internal/cmdline"
	"headway/internal/local"
	"headway/internal/pki"
	"headway/internal/terminal"
	"headway/internal/trail"
)

// path is the audit file. Where no service says which one it writes, the call
// notes which one is taken.
func (t *trailSource) path(c *call) (string, error) {
	if t.file != "" {
		return t.file, found(t.file)
	}
	service, running, err := t.running()
	if err != nil || running {
		return service.AuditFile, err
	}
	candidates, err := t.unannounced()
	if err != nil {
		return "", err
	}
	for _, file := range candidates {
		if found(file) == nil {
			c.note("no service runs: reading %s; --file names another\n", file)
			return file, nil
		}
	}
	help := "name it with --file"
	if t.DataDir != "" {
		help += ", or the configuration of its service with --config; without either a service writes " + local.SystemTrail + " if it may"
	}
	return "", &codedError{exitNotFound, fmt.Errorf("no audit file found at %s; %s", strings.Join(candidates, " or "), help)}
}

func found(file string) error {
	_, err := os.Stat(file)
	return missing(err)
}

// missing gives the error of a file that is named and does not exist its exit code.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &codedError{exitNotFound, err}
	}
	return err
}

// unannounced are the files that a service which does not run may have written,
// the likeliest first. The system's file may be another service's, so that it is
// none of a data directory that was named.
func (t *trailSource) unannounced() ([]string, error) {
	c, err := loadConfig(t.flags)
	if err != nil {
		return nil, err
	}
	if c.Audit.File != "" {
		return local.Trails(c.Audit.File), nil
	}
	var files []string
	for _, dir := range local.Dirs(t.DataDir) {
		if killed, ok, err := local.Read(dir); err == nil && ok {
			files = append(files, killed.AuditFile)
		}
	}
	usual := local.Trails("", local.Dirs(t.DataDir)...)
	if t.DataDir != "" {
		usual = slices.DeleteFunc(usual, func(file string) bool { return file == local.SystemTrail })
	}
	return append(files, usual...), nil
}

func newAuditVerify(t *trailSource) *cobra.Command {
	var checkpoint, publicKey string
	cmd := command("verify", "Find every change of the trail",
		`Read the whole trail and find each record that was edited, deleted, inserted,
repeated or moved. Against a checkpoint that was kept elsewhere (from the log, the
Redis channel, or a copy of the file .checkpoint) it also finds that the end was
cut off or written again. Exit code 0: sound; 8: not.`, func(c *call) error {
			path, err := t.path(c)
			if err != nil {
				return err
			}
			var o trail.VerifyOptions
			if terminal.IsTerminal(c.ErrOrStderr()) {
				o.Progress = func(read, total int64) { c.note("\r%d of %d MiB", read>>20, total>>20) }
			}
			if publicKey != "" {
				if o.PublicKey, err = pki.ReadPublicKey(publicKey); err != nil {
					return missing(err)
				}
			}
			var kept audit.Checkpoint
			if checkpoint != "" {
				kept, err = audit.ReadCheckpoint(checkpoint)
			} else { // the newest that its service has kept
				kept, err = audit.NewestCheckpoint(path, local.Dirs(t.DataDir)...)
			}
			switch {
			case err == nil:
				o.Checkpoint = &kept
			case checkpoint != "" || publicKey != "" || !errors.Is(err, fs.ErrNotExist):
				return missing(err)
			}
			return verifyTrail(c, path, o)
		})
	cmd.Flags().StringVar(&checkpoint, "checkpoint", "", "file with a checkpoint; without one that beside the trail or in the data directory, if there is one")
	cmd.Flags().StringVar(&publicKey, "public-key", "", "file with the Ed25519 key that signed the checkpoint, PEM")
	return cmd
}

func verifyTrail(c *call, path string, o trail.VerifyOptions) error {
	if err := found(path); err != nil {
		return err
	}
	report, err := trail.Verify(c.Context(), path, o)
	if o.Progress != nil {
		c.note("\r\x1b[K")
	}
	if err != nil {
		return err
	}
	_ = c.say("%s, %d to %d, in %s\n", terminal.Count(report.Records, "record"), report.First, report.Last, terminal.Count(len(report.Files), "file"))
	if o.Checkpoint == nil {
		_ = c.say("no checkpoint: that the end was cut off could not be seen\n")
	} else {
		_ = c.say("checkpoint: record %d at %s\n", o.Checkpoint.Seq, o.Checkpoint.Time.Format(time.RFC3339))
	}
	if report.First > 1 {
		_ = c.say("records before %d are in older files that are not here\n", report.First)
	}
	for _, f := range report.Faults {
		_ = c.say("%v\n", f)
	}
	if !report.Sound() {
		return &codedError{exitDamage, fmt.Errorf("%s is not as it was written; faults: %d", path, uint64(len(report.Faults))+report.Unlisted)}
	}
	return c.say("%s is sound, up to the hash %s\n", path, report.LastHash)
}

func newAuditExport(t *trailSource) *cobra.Command {
	var format string
	cmd := command("export", "Write records as JSON lines, the oldest first",
		`Write records to standard output as JSON lines, the oldest first: byte for byte as
they are in the trail, so that 'audit verify --file' reads a whole export as it
reads the trail, or in the Open Cybersecurity Schema Framework (ocsf).`, func(c *call) error {
			if format != "jsonl" && format != "ocsf" {
				return cmdline.Errorf("--format %q: want jsonl or ocsf", format)
			}
			if err := t.times(time.Now()); err != nil {
				return err
			}
			path, err := t.path(c)
			if err != nil {
				return err
			}
			w := bufio.NewWriterSize(terminal.EscapeWriter(c.w), 64<<10)
			err = trail.Copy(c.Context(), path, trailQuery(t.query), func(line []byte) error {
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
		})
	t.addQuery(cmd)
	cmd.Flags().StringVar(&format, "format", "jsonl", "jsonl or ocsf")
	return cmd
}
