package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/client"
	"headway/internal/cmdline"
	"headway/internal/decisionlog"
	"headway/internal/terminal"
)

// logSource is where lines of a decision log come from.
type logSource struct {
	*remote
	dir  string // of files; "": the service is asked
	last time.Duration
}

func newDecisions() *cobra.Command {
	s := &logSource{remote: new(remote)}
	cmd := s.addFlags(group("decisions", "Read the decision log", `Read the decision log: what decisions had to choose from and what came of it,
without text of requests. The service is asked, or with --dir the files of one that
does not run are read: decision-log in its data directory.`, newDecisionsWorst(s), newDecisionsExport(s), newDecisionsWhatIf(s)))
	f := cmd.PersistentFlags()
	f.StringVar(&s.dir, "dir", "", "directory with the files of a decision log to read, in place of a service")
	return cmd
}

// lastFlag adds the flag that says which part of the log is read. Each command has its
// own usual value of it.
func (s *logSource) lastFlag(cmd *cobra.Command, usual time.Duration) *cobra.Command {
	cmd.Flags().Duration("last", usual, "time until now whose decisions count")
	return cmd
}

// ask makes f the run of a command that reads the log.
func (s *logSource) ask(f func(*call) error) func(*call) error {
	return func(c *call) (err error) {
		if s.last, err = c.Flags().GetDuration("last"); err != nil {
			return err
		}
		if s.last <= 0 {
			return cmdline.Errorf("--last %s: want more than 0", s.last)
		}
		if s.dir == "" {
			return s.connected(c, func(c *call) error { s.noteBegin(c); return f(c) })
		}
		if err := found(s.dir); err != nil {
			return err
		}
		s.noteBegin(c)
		return f(c)
	}
}

// noteBegin notes that the log has less than what is asked for. That it cannot be read
// is for the reading itself to say.
func (s *logSource) noteBegin(c *call) {
	begins, err := s.begins(c)
	if since := time.Now().Add(-s.last); err == nil && begins.After(since) {
		c.note("the log begins at %s: it has %s of the last %s\n", begins.Format(time.RFC3339), terminal.Short(time.Since(begins)), terminal.Short(s.last))
	}
}

func (s *logSource) begins(c *call) (time.Time, error) {
	if s.dir == "" {
		return c.DecisionLogBegins(c.Context())
	}
	return decisionlog.Begins(func(q decisionlog.Query, yield func([]byte) error) error {
		return decisionlog.ReadDir(c.Context(), s.dir, q, yield, func(decisionlog.Damage) {}) // the reading itself says it
	})
}

// worstDecision is a decision with what it should have known.
type worstDecision struct {
	api.LoggedDecision
	Best string `json:"best,omitempty"` // head with the least predicted time to the first token
	Why  string `json:"why"`
}

func newDecisionsWorst(s *logSource) *cobra.Command {
	most, modelType := 20, ""
	cmd := addOutput(command("worst", "Show the worst placements, and why they were",
		`Show the placements with the most regret: by how much the predicted time to the
first token at the chosen head was above the least among the heads there were. Why
compares the chosen head with that one, term by term.`, s.ask(func(c *call) error {
			if most < 1 || most > decisionlog.MaxLimit {
				return cmdline.Errorf("-n %d: want 1 to %d", most, decisionlog.MaxLimit)
			}
			found, err := s.worst(c, most, modelType)
			if err != nil {
				return err
			}
			worst := make([]worstDecision, len(found))
			for i := range found {
				worst[i] = worstDecision{LoggedDecision: found[i], Why: decisionlog.Why(&found[i])}
				if best := decisionlog.Best(&found[i]); best != nil {
					worst[i].Best = best.ID
				}
			}
			return c.show(worst, worstTable(worst))
		})))
	cmd.Flags().IntVarP(&most, "number", "n", most, "how many")
	cmd.Flags().StringVar(&modelType, "model-type", "", "only requests for this model type")
	return s.lastFlag(cmd, time.Hour)
}

func (s *logSource) worst(c *call, most int, modelType string) (worst []api.LoggedDecision, err error) {
	if s.dir == "" {
		return c.WorstDecisions(c.Context(), client.DecisionLogQuery{Last: s.last, Limit: most, ModelType: modelType})
	}
	q := decisionlog.Query{Since: time.Now().Add(-s.last), Limit: most, Worst: true, Model: modelType}
	err = decisionlog.ReadDir(c.Context(), s.dir, q, func(line []byte) error {
		var d api.LoggedDecision
		if err := json.Unmarshal(line, &d); err != nil {
			return fmt.Errorf("read the decision log: %w", err)
		}
		worst = append(worst, d)
		return nil
	}, c.noteDamage)
	return worst, err
}

// noteDamage notes what cannot be read of a file.
func (c *call) noteDamage(d decisionlog.Damage) {
	c.note("%s is damaged: of %d bytes from byte %d on what can be read is there, and the rest left out\n", d.File, d.Bytes, d.From)
}

func worstTable(list []worstDecision) *terminal.Table {
	t := &terminal.Table{
		Columns: []string{"TIME", "REGRET", "PREDICTED", "TTFT", "MODEL", "STRATEGY", "HEAD", "BEST", "WHY", "CANDIDATES", "DECISION"},
		Wide:    9,
	}
	for i := range list {
		d := &list[i]
		predicted, ttft := "-", "-"
		if h := decisionlog.Chosen(&d.LoggedDecision); h != nil {
			predicted = milliseconds(h.PredictedMs)
		}
		if d.Outcome != nil {
			ttft = milliseconds(d.Outcome.TTFTMs)
		}
		t.Add(d.At.Format(time.RFC3339), milliseconds(d.RegretMs), predicted, ttft, d.ModelType, d.Strategy, d.Head, terminal.OrDash(d.Best), d.Why,
			d.Candidates, d.DecisionID)
	}
	return t
}

func milliseconds(ms *float64) string {
	if ms == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f ms", *ms)
}

func newDecisionsExport(s *logSource) *cobra.Command {
	return s.lastFlag(command("export [FILE]", "Write the decision log as JSON lines to FILE or standard output",
		`Write the decision log as JSON lines to FILE, which must not exist, or to standard
output, also for -. It has no text of requests, and is not compressed.`, s.ask(func(c *call) error {
			name := ""
			if len(c.args) > 0 && c.args[0] != "-" {
				name = c.args[0]
			}
			if strings.HasSuffix(name, ".gz") {
				return cmdline.Errorf("%s: the export is not compressed; write to - and compress that, as in: headway decisions export - | gzip", name)
			}
			err := withOwnFile(name, "name a file that does not exist", terminal.EscapeWriter(c.w), func(w io.Writer) error {
				return s.copy(c.Context(), c, w)
			})
			if err == nil && name != "" {
				c.note("wrote %s\n", name)
			}
			return err
		})), 24*time.Hour)
}

// copy writes lines of the log. It gives up when the service sends nothing for so long.
func (s *logSource) copy(ctx context.Context, c *call, w io.Writer) error {
	if s.dir != "" {
		return decisionlog.ReadDir(ctx, s.dir, decisionlog.Query{Since: time.Now().Add(-s.last)}, func(line []byte) error {
			_, err := w.Write(line)
			return err
		}, c.noteDamage)
	}
	return copyPatiently(ctx, s.Timeout, "read the decision log", w, func(ctx context.Context) (io.ReadCloser, error) {
		return c.DecisionLog(ctx, client.DecisionLogQuery{Last: s.last})
	})
}
