package cli

import (
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"headway/internal/cmdline"
	"headway/internal/rehearse"
	"headway/internal/terminal"
)

// drainRehearsal is a drain that changes nothing.
type drainRehearsal struct {
	*remote
	asked bool
	last  time.Duration
}

// rehearsed is what a drain would lead to in one pool. Times are predicted.
type rehearsed struct {
	ModelType   string  `json:"model_type"`
	Heads       int     `json:"heads"` // that are left
	Requests    int     `json:"requests"`
	P50Ms       float64 `json:"p50_ttft_ms"`
	P95Ms       float64 `json:"p95_ttft_ms"`
	WithoutP50  float64 `json:"without_p50_ttft_ms"`
	WithoutP95  float64 `json:"without_p95_ttft_ms"`
	GoodputWith float64 `json:"goodput"`
	Goodput     float64 `json:"without_goodput"`
	Failed      int     `json:"without_failed"`
	Carries     bool    `json:"carries"` // the others answer as many requests in time
}

// inTime is the part of the requests that are answered in time with the head that must
// also be without it.
const inTime = 0.95

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
		if _, err := c.Head(c.Context(), args[0]); err != nil {
			return err
		}
		return d.show(c, args[0])
	})
}

func (d *drainRehearsal) show(c *call, id string) error {
	s := &logSource{remote: d.remote, last: d.last}
	log := rehearse.NewLog(mostPlayed)
	base, err := s.load(c, log)
	if err != nil {
		return err
	}
	pools, _ := log.Pools()
	pools = slices.DeleteFunc(pools, func(p *rehearse.Pool) bool { return !slices.Contains(p.Heads(), id) })
	if len(pools) == 0 {
		return &codedError{exitUnavailable, fmt.Errorf("%w of %s within %s", rehearse.ErrTooLittle, terminal.Escape(id), d.last)}
	}
	var all []rehearsed
	for _, p := range pools {
		with, unknown, err := log.Play(c.Context(), p, rehearse.Run{Policy: base.policy})
		if err != nil {
			return err
		}
		for _, what := range unknown {
			c.note("%s: %s\n", p.Model, what)
		}
		without, _, err := log.Play(c.Context(), p, rehearse.Run{Policy: base.policy, Without: id})
		if err != nil {
			return err
		}
		all = append(all, rehearsed{
			ModelType: p.Model, Heads: len(p.Heads()) - 1, Requests: with.Requests, P50Ms: with.P50Ms, P95Ms: with.P95Ms,
			WithoutP50: without.P50Ms, WithoutP95: without.P95Ms, GoodputWith: with.Goodput, Goodput: without.Goodput,
			Failed: without.Failed, Carries: without.InTime >= inTime*with.InTime,
		})
	}
	return c.show(all, rehearsedTable(all))
}

func rehearsedTable(all []rehearsed) *terminal.Table {
	t := &terminal.Table{Columns: []string{"MODEL", "HEADS LEFT", "REQUESTS", "P50 TTFT", "P95 TTFT", "GOODPUT", "FAILED", "CARRIES THE LOAD"}}
	for i := range all {
		r := &all[i]
		carries := "yes"
		if !r.Carries {
			carries = "NO"
		}
		t.Add(r.ModelType, r.Heads, r.Requests, milliseconds(&r.P50Ms)+" -> "+milliseconds(&r.WithoutP50), milliseconds(&r.P95Ms)+" -> "+milliseconds(&r.WithoutP95),
			fmt.Sprintf("%.1f%% -> %.1f%%", 100*r.GoodputWith, 100*r.Goodput), r.Failed, carries)
	}
	return t
}
