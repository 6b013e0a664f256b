package cli

import (
	"iter"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/client"
	"headway/internal/apiv1"
	"headway/internal/audit"
	"headway/internal/cmdline"
	"headway/internal/terminal"
	"headway/internal/trail"
)

// trailSource is where records come from.
type trailSource struct {
	*remote
	file         string // "": the service is asked
	query        client.AuditQuery
	since, until string
}

func newAudit() *cobra.Command {
	t := &trailSource{remote: new(remote)}
	cmd := group("audit", "Read and verify the audit trail", `Read and verify the audit trail. tail and search ask the service, or read --file;
verify and export read the file, which without --file is that of the service of
this machine, or of --data-dir or --config.`,
		newAuditTail(t), newAuditSearch(t), newAuditVerify(t), newAuditExport(t))
	cmd.PersistentFlags().StringVar(&t.file, "file", "", "audit file to read, with those that were rotated beside it")
	return t.addConfigFlag(t.addFlags(cmd))
}

func recordTable(list []api.AuditRecord) *terminal.Table {
	t := &terminal.Table{Columns: []string{"TIME", "ACTION", "OUTCOME", "ACTOR", "TARGET", "REASON", "SEQ", "FROM", "REQUEST", "AFTER"}, Wide: 6}
	for i := range list {
		r := &list[i]
		outcome := r.Outcome
		if r.Stage == "intent" {
			outcome = "intent"
		}
		t.Add(r.Time.Format(time.RFC3339), r.Action, outcome, joined(r.Actor.Type, r.Actor.ID), joined(r.Target.Type, r.Target.ID), terminal.OrDash(r.Reason),
			r.Seq, terminal.OrDash(r.Src.IP), terminal.OrDash(r.RequestID), terminal.OrDash(string(r.After)))
	}
	return t
}

func joined(kind, id string) string {
	if id == "" {
		return kind
	}
	return kind + ":" + id
}

// ask makes f the run of a command that reads records of the file or the
// service. count is a flag that is no number below 0.
func (t *trailSource) ask(flag string, count *int, f func(*call) error) func(*call) error {
	return func(c *call) error {
		if *count < 0 {
			return cmdline.Errorf("--%s %d: want 0 or more", flag, *count)
		}
		if err := t.times(time.Now()); err != nil {
			return err
		}
		if t.file == "" {
			return t.connected(c, f)
		}
		if err := found(t.file); err != nil {
			return err
		}
		return f(c)
	}
}

func newAuditSearch(t *trailSource) *cobra.Command {
	limit := new(int)
	cmd := addOutput(command("search", "Find records, the newest first", "", t.ask("limit", limit, func(c *call) error {
		return list(c, t.records(c, t.query, *limit), *limit, recordTable)
	})))
	t.addQuery(cmd)
	cmd.Flags().IntVar(limit, "limit", 100, "records at most; 0 is all")
	return cmd
}

func newAuditTail(t *trailSource) *cobra.Command {
	count := new(int)
	var follow bool
	cmd := addOutput(command("tail", "Show the newest records, and with -f those that come", "", t.ask("lines", count, func(c *call) error {
		if !follow {
			_, err := t.last(c, *count)
			return err
		}
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		return t.follow(c, *count, tick.C)
	})))
	t.addQuery(cmd)
	cmd.Flags().IntVarP(count, "lines", "n", 20, "records to begin with; 0 is none")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "wait for more")
	return cmd
}

// last shows the newest records, the oldest of them first.
func (t *trailSource) last(c *call, count int) (list []api.AuditRecord, err error) {
	if count > 0 {
		if list, err = t.newest(c, t.query, count); err != nil {
			return nil, err
		}
	}
	shown := slices.Clone(list)
	slices.Reverse(shown)
	return list, c.show(shown, recordTable(shown))
}

// follow shows the newest records and then, at each tick, those that have come.
func (t *trailSource) follow(c *call, count int, tick <-chan time.Time) error {
	newest, err := t.newest(c, client.AuditQuery{}, 1)
	if err != nil {
		return err
	}
	list, err := t.last(c, count)
	if err != nil {
		return err
	}
	var from position
	from.reach(newest)
	from.reach(list)
	for {
		select {
		case <-c.Context().Done():
			return nil
		case <-tick:
		}
		list, err := t.fresh(c, &from)
		if err != nil && c.Context().Err() == nil {
			return err
		}
		if len(list) == 0 {
			continue
		}
		slices.Reverse(list)
		table := recordTable(list)
		table.Bare = true
		if err := c.show(list, table); err != nil {
			return err
		}
	}
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
			return cmdline.Errorf("--%s %q: want a time such as 2026-01-31T15:04:05Z, or how long ago, such as 24h", e.flag, e.text)
		}
		*e.to = at
	}
	return nil
}

// records gives what q asks for, the newest first, in pages for up to most
// records; 0 is all.
func (t *trailSource) records(c *call, q client.AuditQuery, most int) iter.Seq2[api.AuditRecord, error] {
	if q.PageSize = trail.MaxFound; most > 0 {
		q.PageSize = min(most, trail.MaxFound)
	}
	if t.file == "" {
		return c.Audit(c.Context(), q)
	}
	return func(yield func(api.AuditRecord, error) bool) {
		for find, more := trailQuery(q), true; more; more = find.Cursor != "" {
			list, next, err := trail.Search(c.Context(), t.file, find)
			if err != nil {
				yield(api.AuditRecord{}, err)
				return
			}
			for i := range list {
				if !yield(apiv1.Record(&list[i]), nil) {
					return
				}
			}
			find.Cursor = next
		}
	}
}

// newest returns up to most records; 0 is all.
func (t *trailSource) newest(c *call, q client.AuditQuery, most int) ([]api.AuditRecord, error) {
	return client.Collect(t.records(c, q, most), most)
}

// position is the newest record that a follower has got to.
type position struct{ api.AuditRecord }

func (p *position) reach(records []api.AuditRecord) {
	if len(records) > 0 && records[0].Seq > p.Seq {
		p.AuditRecord = records[0]
	}
}

// fresh returns what is asked for behind the position, the newest first, and
// moves it. As long as nothing is written it reads one record, and else none
// that is older than the position.
func (t *trailSource) fresh(c *call, from *position) (list []api.AuditRecord, err error) {
	newest, err := t.newest(c, client.AuditQuery{}, 1)
	if err != nil || len(newest) == 0 || newest[0].Seq <= from.Seq {
		return nil, err
	}
	q := t.query
	if from.Time.After(q.Since) {
		q.Since = from.Time
	}
	for r, err := range t.records(c, q, 0) {
		if err != nil {
			return nil, err
		}
		if r.Seq <= from.Seq {
			break
		}
		list = append(list, r)
	}
	from.reach(newest)
	from.reach(list)
	return list, nil
}

// trailQuery asks a file what q asks a service.
func trailQuery(q client.AuditQuery) trail.Query {
	return trail.Query{
		Since: q.Since, Until: q.Until, Actor: q.Actor, Action: q.Action, Target: q.Target,
		Category: audit.Category(q.Category), Outcome: audit.Outcome(q.Outcome), Limit: q.PageSize,
	}
}
