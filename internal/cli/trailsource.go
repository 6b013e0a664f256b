package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/client"
	"headway/internal/audit"
	"headway/internal/local"
	"headway/internal/trail"
)

// trailSource is where records come from.
type trailSource struct {
	*remote
	file  string
	query client.AuditQuery
	since string
	until string
}

// path is the audit file. Where no service says which one it writes, what is
// taken is told on note.
func (t *trailSource) path(note io.Writer) (string, error) {
	if t.file != "" {
		return t.file, found(t.file)
	}
	if err := t.useConfig(); err != nil {
		return "", err
	}
	said, running, err := local.Running(t.dataDir)
	if err != nil {
		return "", err
	}
	if running {
		return said.AuditFile, nil
	}
	candidates, err := t.unannounced()
	if err != nil {
		return "", err
	}
	for _, file := range candidates {
		if found(file) == nil {
			fmt.Fprintf(note, "no service runs: reading %s; --file names another\n", file)
			return file, nil
		}
	}
	help := "name it with --file"
	if t.dataDir != "" {
		help += ", or the configuration of its service with --config; without either a service writes " + local.SystemTrail + " if it may"
	}
	return "", &codedError{exitNotFound, fmt.Errorf("no audit file found at %s; %s", strings.Join(candidates, " or "), help)}
}

func found(file string) error {
	_, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return &codedError{exitNotFound, err}
	}
	return err
}

// unannounced are the files that a service which does not run may have written,
// the likeliest first. The system's file may be another service's, so that it is
// none of a data directory that was named.
func (t *trailSource) unannounced() ([]string, error) {
	c, err := t.settings()
	if err != nil {
		return nil, err
	}
	if c.Audit.File != "" {
		return local.Trails(c.Audit.File), nil
	}
	var files []string
	for _, dir := range local.Dirs(t.dataDir) {
		if killed, ok, err := local.Read(dir); err == nil && ok {
			files = append(files, killed.AuditFile)
		}
	}
	usual := local.Trails("", local.Dirs(t.dataDir)...)
	if t.dataDir != "" {
		usual = usual[1:]
	}
	return append(files, usual...), nil
}

func (t *trailSource) addQuery(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.since, "since", "", "from then on: a time such as 2026-01-31T15:04:05Z, or how long ago, such as 24h")
	f.StringVar(&t.until, "until", "", "before then, in the same forms")
	f.StringVar(&t.query.Actor, "actor", "", "who: an id, a type, or TYPE:ID")
	f.StringVar(&t.query.Action, "action", "", "what, such as policy.put; its beginning, or with * anywhere all of it")
	f.StringVar(&t.query.Category, "category", "", "admin, policy, head, routing_config, auth or audit")
	f.StringVar(&t.query.Outcome, "outcome", "", "success, failure, denied or unknown")
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

// each gives records to f, the newest first, until it returns false.
func (t *trailSource) each(ctx context.Context, q client.AuditQuery, f func(*api.AuditRecord) bool) error {
	if t.file != "" {
		return t.eachInFile(ctx, q, f)
	}
	return t.do(nil, func(c *client.Client) error {
		for r, err := range c.Audit(ctx, q) {
			if err != nil {
				return err
			}
			if !f(&r) {
				break
			}
		}
		return nil
	})
}

func (t *trailSource) eachInFile(ctx context.Context, q client.AuditQuery, f func(*api.AuditRecord) bool) error {
	if err := found(t.file); err != nil {
		return err
	}
	find := trailQuery(q)
	for {
		records, next, err := trail.Search(ctx, t.file, find)
		if err != nil {
			return err
		}
		for i := range records {
			r := shownRecord(&records[i])
			if !f(&r) {
				return nil
			}
		}
		if find.Cursor = next; next == "" {
			return nil
		}
	}
}

// trailQuery asks a file what q asks a service.
func trailQuery(q client.AuditQuery) trail.Query {
	return trail.Query{
		Since: q.Since, Until: q.Until, Actor: q.Actor, Action: q.Action, Target: q.Target,
		Category: audit.Category(q.Category), Outcome: audit.Outcome(q.Outcome), Limit: q.PageSize,
	}
}

// records returns up to most records, the newest first; 0 is all.
func (t *trailSource) records(ctx context.Context, q client.AuditQuery, most int) ([]api.AuditRecord, error) {
	if q.PageSize = trail.MaxFound; most > 0 {
		q.PageSize = min(most, trail.MaxFound)
	}
	var list []api.AuditRecord
	err := t.each(ctx, q, func(r *api.AuditRecord) bool {
		list = append(list, *r)
		return len(list) != most
	})
	return list, err
}

// position is a record that a follower has got to.
type position struct {
	seq uint64
	at  time.Time
}

func (p *position) reach(records []api.AuditRecord) {
	if len(records) > 0 && records[0].Seq > p.seq {
		p.seq, p.at = records[0].Seq, records[0].Time
	}
}

// fresh returns what is asked for behind the position, the newest first, and
// moves it. As long as nothing is written it reads one record, and else none
// that is older than the position.
func (t *trailSource) fresh(ctx context.Context, from *position) (list []api.AuditRecord, err error) {
	newest, err := t.records(ctx, client.AuditQuery{}, 1)
	if err != nil || len(newest) == 0 || newest[0].Seq <= from.seq {
		return nil, err
	}
	q := t.query
	if from.at.After(q.Since) {
		q.Since = from.at
	}
	err = t.each(ctx, q, func(r *api.AuditRecord) bool {
		if r.Seq <= from.seq {
			return false
		}
		list = append(list, *r)
		return true
	})
	if err != nil {
		return nil, err
	}
	from.reach(newest)
	from.reach(list)
	return list, nil
}

func shownRecord(r *audit.Record) api.AuditRecord {
	return api.AuditRecord{
		V: r.V, Seq: r.Seq, Time: r.Time, ID: r.ID, Node: r.Node, Stage: string(r.Stage),
		Category: string(r.Category), Action: r.Action, Outcome: string(r.Outcome), Reason: r.Reason,
		Actor: api.AuditActor(r.Actor), Src: api.AuditSource(r.Src), Target: api.AuditTarget(r.Target),
		RequestID: r.RequestID, TraceID: r.TraceID, Before: r.Before, After: r.After, Prev: r.Prev, Hash: r.Hash,
	}
}
