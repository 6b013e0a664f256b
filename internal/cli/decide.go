package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/client"
	"headway/internal/cmdline"
	"headway/internal/terminal"
)

func newDecide() *cobra.Command {
	r := new(remote)
	var req api.DecisionRequest
	var tokens int64
	var keep bool
	cmd := addOutput(command("decide --model-type NAME", "Ask which head a request would go to, and why",
		`Ask which head a request would go to. --explain shows each candidate with the
filter that removed it or its cost and signals, and the rule that chose the
strategy. The place that the decision reserves is given back at once, unless
--keep is given.`, r.ask(func(c *call) error {
			if c.Flags().Changed("input-tokens") {
				req.InputTokens = &tokens
			}
			d, err := c.Decide(c.Context(), req)
			if refused, ok := errors.AsType[*client.Error](err); ok && refused.Problem.Explanation != nil && !c.structured() {
				explain(c.w, refused.Problem.Explanation)
			}
			if err != nil {
				return nameUnknown(c, &req, err)
			}
			if !keep {
				if err := d.Outcome(c.Context(), api.Outcome{Result: "cancelled"}); err != nil {
					return err
				}
			}
			return c.showOr(d.Decision, func() error { printDecision(c.w, &d.Decision); return nil })
		}, client.WithRetries(0)))) // what it is asked about is how things are now
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
	return r.addFlags(cmd)
}

// nameUnknown adds to a refusal what no head has of what was asked for, the region
// and labels, with the nearest that heads have.
func nameUnknown(c *call, req *api.DecisionRequest, refusal error) error {
	refused, ok := errors.AsType[*client.Error](refusal)
	if !ok || req.Region == "" && len(req.Labels) == 0 || refused.Problem.Code != api.CodeNoEligibleHead {
		return refusal
	}
	regions, names, labels := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for h, err := range c.Heads(c.Context(), client.HeadQuery{PageSize: 1000}) {
		if err != nil {
			return refusal // a key that may not read
		}
		regions[h.Region] = true
		for name, value := range h.Labels {
			names[name], labels[name+"="+value] = true, true
		}
	}
	unknown := func(what, name string, known map[string]bool) {
		refusal = fmt.Errorf("%w No head %s %s%s", refusal, what, terminal.Escape(name), cmp.Or(terminal.Escape(cmdline.DidYouMean("", name, slices.Sorted(maps.Keys(known)))), "."))
	}
	if req.Region != "" && !regions[req.Region] {
		unknown("is in the region", req.Region, regions)
	}
	for _, name := range slices.Sorted(maps.Keys(req.Labels)) {
		switch label := name + "=" + req.Labels[name]; {
		case !names[name]:
			unknown("has a label", name, names)
		case !labels[label]:
			ofName := maps.Clone(labels)
			maps.DeleteFunc(ofName, func(l string, _ bool) bool { return !strings.HasPrefix(l, name+"=") })
			unknown("has the label", label, ofName)
		}
	}
	return refusal
}

func printDecision(w io.Writer, d *api.Decision) {
	for _, line := range terminal.Wrap(fmt.Sprintf("%s  %s  (%s)", terminal.Escape(d.Head.ID), terminal.Escape(d.Head.Endpoint), terminal.Escape(d.Head.Region)), terminal.PageWidth) {
		fmt.Fprintln(w, line)
	}
	paragraph(w, "because", d.Reason)
	paragraph(w, "strategy", fmt.Sprintf("%s, policy revision %d", d.Strategy, d.PolicyRevision))
	var others []string
	for _, a := range d.Alternatives {
		others = append(others, a.ID)
	}
	paragraph(w, "then", terminal.OrDash(strings.Join(others, ", ")))
	if d.Explanation != nil {
		explain(w, d.Explanation)
		fmt.Fprintln(w, "COST is worked out again for this table: parts of a request are rounded at random, so it can differ from the one above.")
	}
}

// paragraph writes a name and what is said of it beside it, on lines that a page
// shows whole.
func paragraph(w io.Writer, name, text string) {
	const indent = 10
	for _, line := range terminal.Wrap(terminal.Escape(text), terminal.PageWidth-indent) {
		fmt.Fprintf(w, "%-*s%s\n", indent, name, line)
		name = ""
	}
}

func explain(w io.Writer, e *api.Explanation) {
	paragraph(w, "rule", e.Rule)
	paragraph(w, "formula", e.Formula)
	if e.Region != "" {
		paragraph(w, "region", e.Region+", "+e.RegionMode)
	}
	switch {
	case e.InputTokensAssumed:
		paragraph(w, "prompt", fmt.Sprintf("%d tokens, as is usual: the request does not say", e.InputTokens))
	case e.InputTokens > 0:
		paragraph(w, "prompt", fmt.Sprintf("%d tokens", e.InputTokens))
	}
	fmt.Fprintln(w)
	t := &terminal.Table{Columns: []string{"", "HEAD", "REGION", "COST", "PREDICTED", "REMOVED BY", "TERMS AND SIGNALS"}, Limit: terminal.PageWidth}
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
		for _, t := range c.Terms {
			signals = append(signals, strings.TrimSpace(fmt.Sprintf("%s %.4g %s", t.Name, t.Value, t.Unit)))
		}
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
		t.Add(mark, c.Head, c.Region, cost, measured(c.PredictedMs, 1, "%.1f ms"), terminal.OrDash(c.Filter), terminal.OrDash(strings.Join(signals, ", ")))
	}
	_ = t.Write(w, false)
	if e.Omitted > 0 {
		fmt.Fprintf(w, "and %d more\n", e.Omitted)
	}
}
