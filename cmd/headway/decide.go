package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/client"
)

func newDecide() *cobra.Command {
	r := new(remote)
	var out output
	var req api.DecisionRequest
	var tokens int64
	var keep bool
	cmd := &cobra.Command{
		Use:   "decide --model-type NAME",
		Short: "Ask which head a request would go to, and why",
		Long: `Ask which head a request would go to. --explain shows each candidate with the
filter that removed it or its cost and signals, and the rule that chose the
strategy. The place that the decision reserves is given back at once, unless
--keep is given.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("input-tokens") {
				req.InputTokens = &tokens
			}
			return r.do(&out, func(c *client.Client) error {
				d, err := c.Decide(cmd.Context(), req)
				if refused, ok := errors.AsType[*client.Error](err); ok && refused.Problem.Explanation != nil && !out.structured() {
					explain(cmd.OutOrStdout(), refused.Problem.Explanation)
				}
				if err != nil {
					return err
				}
				if !keep {
					if err := d.Outcome(cmd.Context(), api.Outcome{Result: "cancelled"}); err != nil {
						return err
					}
				}
				if out.structured() {
					return out.write(cmd.OutOrStdout(), d.Decision, nil)
				}
				printDecision(cmd.OutOrStdout(), &d.Decision)
				return nil
			})
		},
	}
	r.addFlags(cmd)
	out.addFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&req.ModelType, "model-type", "", "model type to ask for")
	f.StringVar(&req.Region, "region", "", "region that the request comes from")
	f.StringVar(&req.RegionMode, "region-mode", "", "prefer or require")
	f.StringVar(&req.Strategy, "strategy", "", "strategy to use, if the policy lets callers choose")
	f.StringVar(&req.SessionKey, "session", "", "session that the request belongs to")
	f.StringSliceVar(&req.Exclude, "exclude", nil, "heads not to take")
	f.StringToStringVar(&req.Labels, "label", nil, "label NAME=VALUE that the head must have; may be given several times")
	f.Int64Var(&tokens, "input-tokens", 0, "tokens of the prompt")
	f.BoolVar(&req.Explain, "explain", false, "say what the decision saw")
	f.BoolVar(&keep, "keep", false, "leave the place reserved until its time runs out")
	return cmd
}

func printDecision(w io.Writer, d *api.Decision) {
	fmt.Fprintf(w, "%s  %s  (%s)\n", seen(d.Head.ID), seen(d.Head.Endpoint), seen(d.Head.Region))
	fmt.Fprintf(w, "because   %s\n", seen(d.Reason))
	fmt.Fprintf(w, "strategy  %s, policy revision %d\n", seen(d.Strategy), d.PolicyRevision)
	var others []string
	for _, a := range d.Alternatives {
		others = append(others, a.ID)
	}
	fmt.Fprintf(w, "then      %s\n", orDash(seen(strings.Join(others, ", "))))
	if d.Explanation != nil {
		explain(w, d.Explanation)
	}
}

func explain(w io.Writer, e *api.Explanation) {
	fmt.Fprintf(w, "rule      %s\nformula   %s\n", seen(e.Rule), seen(e.Formula))
	if e.Region != "" {
		fmt.Fprintf(w, "region    %s, %s\n", seen(e.Region), seen(e.RegionMode))
	}
	fmt.Fprintln(w)
	t := &table{columns: []string{"", "HEAD", "REGION", "COST", "REMOVED BY", "SIGNALS"}}
	for i := range e.Candidates {
		c := &e.Candidates[i]
		mark, cost := "", "-"
		if c.Chosen {
			mark = "*"
		}
		if c.Cost != nil {
			cost = fmt.Sprintf("%.4g", *c.Cost)
		}
		var signals []string
		for _, s := range c.Signals {
			text := fmt.Sprintf("%s=%.4g", s.Name, s.Value)
			if s.Used {
				text = "*" + text
			}
			if s.AgeMs > 0 {
				text += fmt.Sprintf(" (%.0f ms old)", s.AgeMs)
			}
			signals = append(signals, text)
		}
		t.add(mark, c.Head, c.Region, cost, orDash(c.Filter), orDash(strings.Join(signals, ", ")))
	}
	_ = (&output{format: "table"}).write(w, nil, t)
	if e.Omitted > 0 {
		fmt.Fprintf(w, "and %d more\n", e.Omitted)
	}
}
