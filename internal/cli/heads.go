package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/client"
)

func newHeads() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "heads",
		Short: "List heads and manage them",
		Long: `List heads and manage them.

drain lets a head finish what it has and gives it nothing new; maintenance is
the same under another name, for people; undrain gives it requests again. What
is set here stays over the head's own reports and restarts. reinstate gives
requests to a head again that was ejected because requests there failed.`,
		Args: cobra.NoArgs,
	}
	r := new(remote)
	r.addFlags(cmd)
	cmd.AddCommand(
		newHeadsList(r), newHeadsWatch(r), newHeadsGet(r), newHeadsRegister(r),
		newHeadsState(r, "drain", "draining", "Give heads no new requests"),
		newHeadsState(r, "undrain", "enabled", "Give heads requests again"),
		newHeadsState(r, "maintenance", "maintenance", "Take heads out for maintenance"),
		newHeadsReinstate(r),
		newHeadsRemove(r),
	)
	return cmd
}

func newHeadsList(r *remote) *cobra.Command {
	var out output
	var q client.HeadQuery
	var watch bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List heads",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := out.check(); err != nil {
				return err
			}
			c, err := r.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			return repeat(cmd.Context(), cmd.OutOrStdout(), watch, func(w io.Writer) error {
				heads, err := client.Collect(c.Heads(cmd.Context(), q), 0)
				if err != nil {
					return err
				}
				return out.write(w, heads, headTable(heads))
			})
		},
	}
	out.addFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&q.ModelType, "model-type", "", "only heads that serve this model type")
	f.StringVar(&q.Region, "region", "", "only heads of this region")
	f.StringVar(&q.Status, "status", "", "only heads that report this: unknown, active, degraded, draining or offline")
	f.BoolVarP(&watch, "watch", "w", false, "show the list again every 2 s")
	return cmd
}

// repeat shows something once, or again and again until ctx ends.
func repeat(ctx context.Context, w io.Writer, again bool, show func(io.Writer) error) error {
	if !again {
		return show(w)
	}
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		var page strings.Builder
		if err := show(&page); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		before := ""
		if isTerminal(w) {
			before = "\x1b[H\x1b[2J"
		}
		if _, err := io.WriteString(w, before+page.String()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func headTable(heads []api.Head) *table {
	t := &table{
		columns: []string{"ID", "REGION", "MODELS", "STATUS", "ADMIN", "HEALTH", "ROUTABLE", "IN FLIGHT", "KV CACHE", "REPORTED", "ENDPOINT", "WEIGHT", "EPOCH", "LABELS"},
		wide:    10,
	}
	for i := range heads {
		h := &heads[i]
		kv, reported := "-", "-"
		if h.Load != nil {
			if h.Load.KVCacheUsage != nil {
				kv = fmt.Sprintf("%.0f%%", 100**h.Load.KVCacheUsage)
			}
			reported = short(time.Duration(h.Load.AgeMs*1e6)) + " ago"
		}
		var labels []string
		for _, name := range slices.Sorted(maps.Keys(h.Labels)) {
			labels = append(labels, name+"="+h.Labels[name])
		}
		t.add(h.ID, h.Region, strings.Join(h.ModelTypes, ","), h.Status, h.AdminState, h.Health.State, yesNo(h.Routable), fmt.Sprint(h.InFlight), kv, reported,
			h.Endpoint, strconv.FormatFloat(h.Weight, 'g', -1, 64), fmt.Sprint(h.Epoch), orDash(strings.Join(labels, ",")))
	}
	return t
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func newHeadsGet(r *remote) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:               "get ID",
		Short:             "Show one head",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: r.completeHeads,
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.do(&out, func(c *client.Client) error {
				h, err := c.Head(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if out.format == "table" {
					return writeYAML(cmd.OutOrStdout(), h) // all of it fits no line
				}
				return out.write(cmd.OutOrStdout(), h, headTable([]api.Head{h}))
			})
		},
	}
	out.addFlag(cmd)
	return cmd
}

func newHeadsRegister(r *remote) *cobra.Command {
	var out output
	var reg api.Registration
	var labels map[string]string
	var weight float64
	var maxInFlight int64
	cmd := &cobra.Command{
		Use:   "register ID --endpoint URL --model-type NAME --region NAME",
		Short: "Register a head by hand",
		Long: `Register a head by hand, once. Its lease ends unless it reports its status:
servers that stay do that themselves, with the SDK or over HTTP.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			reg.ID, reg.Labels = args[0], labels
			if cmd.Flags().Changed("weight") {
				reg.Weight = &weight
			}
			if cmd.Flags().Changed("max-in-flight") {
				reg.Capacity = &api.Capacity{MaxInFlight: maxInFlight}
			}
			return r.do(&out, func(c *client.Client) error {
				answer, err := c.Register(cmd.Context(), reg)
				if err != nil {
					return err
				}
				t := &table{columns: []string{"ID", "EPOCH", "LEASE ENDS IN", "REPORT EVERY"}}
				t.add(answer.Head.ID, fmt.Sprint(answer.Lease.Epoch), fmt.Sprintf("%gs", answer.Lease.TTLSeconds), fmt.Sprintf("%gs", answer.Lease.HeartbeatIntervalSeconds))
				return out.write(cmd.OutOrStdout(), answer, t)
			})
		},
	}
	required(cmd, "endpoint", "model-type", "region")
	out.addFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&reg.Endpoint, "endpoint", "", "URL that requests are sent to: http://host:port or https://host:port, without a path")
	f.StringSliceVar(&reg.ModelTypes, "model-type", nil, "model type that it serves; may be given several times")
	f.StringVar(&reg.Region, "region", "", "region that it is in")
	f.StringVar(&reg.Zone, "zone", "", "zone of the region")
	f.StringVar(&reg.Engine, "engine", "", "engine, such as vllm")
	f.StringVar(&reg.Version, "engine-version", "", "version of the engine")
	f.StringVar(&reg.Status, "status", "", "its first status: active, degraded, draining or offline; without one it gets no requests")
	f.BoolVar(&reg.TakeOver, "take-over", false, "take the id over though another endpoint holds its lease")
	f.Float64Var(&weight, "weight", 1, "share of requests by weight")
	f.Int64Var(&maxInFlight, "max-in-flight", 0, "requests that it takes at a time")
	f.StringToStringVar(&labels, "label", nil, "label NAME=VALUE; may be given several times")
	return cmd
}

func newHeadsState(r *remote, use, state, summary string) *cobra.Command {
	return &cobra.Command{
		Use:               use + " ID...",
		Short:             summary,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: r.completeHeads,
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.do(nil, func(c *client.Client) error {
				return each(cmd, use, "head", args, func(id string) error {
					h, err := c.PatchHead(cmd.Context(), id, api.HeadPatch{AdminState: &state})
					if err != nil {
						return err
					}
					_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is %s, with %d in flight\n", seen(h.ID), seen(h.AdminState), h.InFlight)
					return err
				})
			})
		},
	}
}

func newHeadsReinstate(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:   "reinstate ID",
		Short: "Give an ejected head requests again",
		Long: `Give a head requests again that was ejected because requests there failed,
before its time is over. Its earlier ejections are forgotten.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: r.completeHeads,
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.do(nil, func(c *client.Client) error {
				if err := c.EndEjection(cmd.Context(), args[0]); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s takes requests again\n", seen(args[0]))
				return err
			})
		},
	}
}

func newHeadsRemove(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:               "remove ID...",
		Short:             "Deregister heads",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: r.completeHeads,
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.do(nil, func(c *client.Client) error {
				return each(cmd, "remove", "head", args, func(id string) error {
					if err := c.DeleteHead(cmd.Context(), id); err != nil {
						return err
					}
					_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is removed\n", seen(id))
					return err
				})
			})
		},
	}
}

// completeHeads completes ids of heads.
func (r *remote) completeHeads(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	var ids []string
	err := r.do(nil, func(c *client.Client) error {
		heads, err := client.Collect(c.Heads(cmd.Context(), client.HeadQuery{}), 1000)
		for i := range heads {
			ids = append(ids, heads[i].ID)
		}
		return err
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
