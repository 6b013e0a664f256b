package cli

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/client"
	"headway/internal/cmdline"
	"headway/internal/policy"
	"headway/internal/strict"
	"headway/internal/terminal"
)

func newStrategies() *cobra.Command {
	r := new(remote)
	return r.addFlags(group("strategies", "Show strategies and compare what they lead to", `Show the strategies that a policy may name, and compare what their placements lead
to: how soon requests had their first token, and how much sooner another head was
expected to be.`,
		newStrategiesList(r), newStrategiesShow(r), newStrategiesCompare(r)))
}

// withEffect asks for the strategies, and adds the flags that say of which time
// and model type.
func (r *remote) withEffect(cmd *cobra.Command, q *client.EffectivenessQuery) *cobra.Command {
	cmd.Flags().DurationVar(&q.Window, "window", 15*time.Minute, "how far back, 1m to 1h in whole minutes")
	cmd.Flags().StringVar(&q.ModelType, "model-type", "", "only requests for this model type")
	_ = cmd.RegisterFlagCompletionFunc("window", cobra.FixedCompletions([]string{"5m", "15m", "1h"}, cobra.ShellCompDirectiveNoFileComp))
	return addOutput(cmd)
}

// askEffect makes f the run of a command that has these flags.
func (r *remote) askEffect(q *client.EffectivenessQuery, f func(*call, *api.StrategyList) error) func(*call) error {
	ask := r.ask(func(c *call) error {
		report, err := c.Effectiveness(c.Context(), *q)
		if err != nil {
			return err
		}
		return f(c, &report)
	})
	return func(c *call) error {
		if w := q.Window; w < time.Minute || w > time.Hour || w%time.Minute != 0 {
			return cmdline.Errorf("--window %s: want 1m to 1h in whole minutes, such as 15m", w)
		}
		return ask(c)
	}
}

func newStrategiesList(r *remote) *cobra.Command {
	return addOutput(command("list", "List the strategies", "", r.ask(func(c *call) error {
		all, err := c.Strategies(c.Context())
		if err != nil {
			return err
		}
		t := &terminal.Table{Columns: []string{"NAME", "DECISIONS", "SUMMARY", "FORMULA"}, Wide: 3}
		for i := range all {
			t.Add(all[i].Name, all[i].Results.Decisions, all[i].Summary, all[i].Formula)
		}
		return c.show(all, t)
	})))
}

func newStrategiesShow(r *remote) *cobra.Command {
	var q client.EffectivenessQuery
	cmd := r.withEffect(command("show NAME", "Show one strategy: formula, parameters, what it leads to", "", r.askEffect(&q, func(c *call, report *api.StrategyList) error {
		for _, s := range report.Data {
			if s.Name == c.args[0] {
				return c.showOr(s, func() error { return terminal.WriteYAML(c.w, s) })
			}
		}
		return &codedError{exitNotFound, errors.New(policy.UnknownStrategy(c.args[0]))}
	})), &q)
	cmd.ValidArgsFunction = cobra.FixedCompletions(policy.StrategyNames(), cobra.ShellCompDirectiveNoFileComp)
	return cmd
}

func newStrategiesCompare(r *remote) *cobra.Command {
	var q client.EffectivenessQuery
	return r.withEffect(command("compare", "Compare what strategies lead to, the least regret first",
		`Compare what the strategies led to that decided lately, the least regret first.

Regret is the time to the first token that was expected at the chosen head, less
the least that was expected at any head there was: what a better choice would have
saved. It is reliable as long as what is expected is what comes: up to a
calibration error of 50 %. Strategies that serve other requests differ by those too.`, r.askEffect(&q, func(c *call, report *api.StrategyList) error {
			report.Data = slices.DeleteFunc(report.Data, func(s api.Strategy) bool {
				return s.Effectiveness.Decisions == 0 && s.Effectiveness.RegretMs == nil && s.Effectiveness.Refused == 0
			})
			if len(report.Data) == 0 && q.ModelType != "" {
				if err := c.served(q.ModelType); err != nil {
					return err
				}
			}
			slices.SortStableFunc(report.Data, func(a, b api.Strategy) int {
				return cmp.Compare(orInfinite(a.Effectiveness.RegretMs), orInfinite(b.Effectiveness.RegretMs))
			})
			return c.showOr(report, func() error { return c.compare(report) })
		})), &q)
}

// served fails where no head serves a model type.
func (c *call) served(modelType string) error {
	for _, err := range c.Heads(c.Context(), client.HeadQuery{ModelType: modelType, PageSize: 1}) {
		return err
	}
	return &codedError{exitNotFound, fmt.Errorf("no head serves the model type %s", strict.Quote(modelType))}
}

func orInfinite(v *float64) float64 {
	if v == nil {
		return math.Inf(1)
	}
	return *v
}

// compare prints what strategies led to, and which of it is not reliable.
func (c *call) compare(report *api.StrategyList) error {
	if len(report.Data) == 0 {
		return c.say("no decision ended within %s\n", terminal.Short(time.Duration(report.WindowSeconds)*time.Second))
	}
	t := &terminal.Table{Columns: []string{"STRATEGY", "DECISIONS", "REFUSED", "REGRET", "FIRST TOKEN", "CALIBRATION", "IN TIME", "CACHE KEPT", "IMBALANCE"}}
	var doubted []string
	for i := range report.Data {
		name, e := report.Data[i].Name, &report.Data[i].Effectiveness
		regret := measured(e.RegretMs, 1, "%.1f ms")
		if e.RegretMs != nil && !e.RegretReliable {
			regret += " ?"
			doubted = append(doubted, doubt(name, e))
		}
		t.Add(name, e.Decisions, e.Refused, regret, measured(e.TTFTMs, 1, "%.0f ms"), measured(e.CalibrationError, 100, "%.0f%%"),
			part(e.ObjectiveMet, e.ObjectiveMet+e.ObjectiveMissed), part(orZero(e.PrefixKept), orZero(e.PrefixPromised)), measured(e.Imbalance, 100, "%.0f%%"))
	}
	err := t.Write(c.w, false)
	if len(report.Shadow) > 0 && err == nil {
		err = c.shadows(report.Shadow)
	}
	for _, d := range doubted {
		c.note("%s\n", d)
	}
	return err
}

// shadows prints what strategies that were asked beside others would have chosen.
func (c *call) shadows(list []api.StrategyShadow) error {
	t := &terminal.Table{Columns: []string{"STRATEGY", "SHADOW", "ASKED", "SAME HEAD", "REGRET", "OF THE SHADOW"}}
	for i := range list {
		s := &list[i]
		t.Add(s.Strategy, s.Shadow, s.Decisions, measured(&s.Agreement, 100, "%.0f%%"), measured(s.RegretMs, 1, "%.1f ms"), measured(s.ShadowRegretMs, 1, "%.1f ms"))
	}
	_ = c.say("\n")
	return t.Write(c.w, false)
}

// doubt says why a regret is not reliable.
func doubt(name string, e *api.StrategyEffectiveness) string {
	if e.CalibrationError == nil {
		return fmt.Sprintf("the regret of %s is not reliable yet: no first token was both expected and observed", name)
	}
	return fmt.Sprintf("the regret of %s is not reliable: what was expected was off by %.0f%% of what came, in %d requests; want at most 50%% in at least 30", name, 100**e.CalibrationError, e.Predictions)
}

func measured(v *float64, times float64, format string) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf(format, times**v)
}

func orZero(v *int64) int64 {
	if v == nil {
		return 0
	}
	return *v
}

// part is a share of a whole, in percent.
func part(of, whole int64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*float64(of)/float64(whole))
}
