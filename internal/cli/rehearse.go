package cli

import (
	"time"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/internal/cmdline"
	"headway/internal/terminal"
)

// drainRehearsal is a drain that changes nothing.
type drainRehearsal struct {
	*remote
	asked bool
	last  time.Duration
}

func (d *drainRehearsal) run(cmd *cobra.Command, args []string) error {
	format, err := formatOf(cmd)
	if err != nil {
		return err
	}
	if d.last <= 0 {
		return cmdline.Errorf("--last %s: want more than 0", d.last)
	}
	if len(args) != 1 {
		return cmdline.Errorf("--rehearse: want one head")
	}
	return d.connected(&call{Command: cmd, args: args, format: format, w: cmd.OutOrStdout()}, func(c *call) error {
		r, err := c.RehearseDrain(c.Context(), args[0], d.last)
		if err != nil {
			return err
		}
		if late := r.Since.Sub(time.Now().Add(-d.last)); late > time.Second {
			c.note("only requests from %s on are played: of the last %s the log has no others, or too many\n", r.Since.Format(time.RFC3339), terminal.Short(d.last))
		}
		for i := range r.ModelTypes {
			p := &r.ModelTypes[i]
			for _, what := range p.Assumed {
				c.note("%s: %s\n", p.ModelType, what)
			}
			switch {
			case p.Before.P50TTFTMs == nil:
				c.note("%s: no answers in the time looked at\n", p.ModelType)
			case p.After.P50TTFTMs == nil:
				c.note("%s: without %s no answers in the time looked at\n", p.ModelType, r.Head)
			}
		}
		return c.show(r, rehearsalTable(r.ModelTypes))
	})
}

func rehearsalTable(all []api.RehearsedPool) *terminal.Table {
	t := &terminal.Table{Columns: []string{"MODEL", "HEADS LEFT", "REQUESTS", "P50 TTFT", "P95 TTFT", "GOODPUT", "HIT RATE", "FAILED", "CARRIES THE LOAD"}}
	for i := range all {
		r := &all[i]
		carries := "yes"
		if !r.CarriesLoad {
			carries = "NO"
		}
		before, after := &r.Before, &r.After
		t.Add(r.ModelType, r.HeadsLeft, before.Requests, change(1, "%.0f ms", before.P50TTFTMs, after.P50TTFTMs), change(1, "%.0f ms", before.P95TTFTMs, after.P95TTFTMs),
			change(100, "%.1f%%", &before.Goodput, &after.Goodput), change(100, "%.1f%%", before.HitRate, after.HitRate), after.Failed, carries)
	}
	return t
}

func change(times float64, format string, from, to *float64) string {
	return measured(from, times, format) + " -> " + measured(to, times, format)
}
