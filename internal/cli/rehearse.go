package cli

import (
	"fmt"
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
			for _, what := range r.ModelTypes[i].Assumed {
				c.note("%s: %s\n", r.ModelTypes[i].ModelType, what)
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
		t.Add(r.ModelType, r.HeadsLeft, before.Requests, milliseconds(&before.P50TTFTMs)+" -> "+milliseconds(&after.P50TTFTMs),
			milliseconds(&before.P95TTFTMs)+" -> "+milliseconds(&after.P95TTFTMs), change(before.Goodput, after.Goodput), change(before.HitRate, after.HitRate),
			after.Failed, carries)
	}
	return t
}

// change is from which share to which.
func change(before, after float64) string {
	return fmt.Sprintf("%.1f%% -> %.1f%%", 100*before, 100*after)
}
