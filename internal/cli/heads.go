package cli

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/client"
	"headway/internal/agent"
	"headway/internal/cmdline"
	"headway/internal/terminal"
)

func newHeads() *cobra.Command {
	r := new(remote)
	return r.addFlags(group("heads", "List heads and manage them", `List heads and manage them.

drain lets a head finish what it has and gives it nothing new; maintenance is
the same under another name, for people; undrain gives it requests again. What
is set here stays over the head's own reports and restarts. reinstate gives
requests to a head again that was ejected because requests there failed.`,
		newHeadsList(r), newHeadsWatch(r), newHeadsGet(r), newHeadsRegister(r),
		newHeadsDrain(r),
		newHeadsState(r, "undrain", "enabled", "Give heads requests again"),
		newHeadsState(r, "maintenance", "maintenance", "Take heads out for maintenance"),
		r.eachHead("reinstate ID", "Give an ejected head requests again",
			`Give a head requests again that was ejected because requests there failed,
before its time is over. Its earlier ejections are forgotten.`, func(c *call, id string) error {
				if err := c.EndEjection(c.Context(), id); err != nil {
					return err
				}
				return c.say("%s takes requests again\n", id)
			}),
		r.eachHead("remove ID...", "Deregister heads", "", func(c *call, id string) error {
			if err := c.DeleteHead(c.Context(), id); err != nil {
				return err
			}
			return c.say("%s is removed\n", id)
		})))
}

func newHeadsList(r *remote) *cobra.Command {
	var q client.HeadQuery
	var watch bool
	cmd := addOutput(command("list", "List heads", "", r.ask(func(c *call) error {
		return c.repeat(watch, func() error { return list(c, c.Heads(c.Context(), q), 0, headTable) })
	})))
	f := cmd.Flags()
	f.StringVar(&q.ModelType, "model-type", "", "only heads that serve this model type")
	f.StringVar(&q.Region, "region", "", "only heads of this region")
	f.StringVar(&q.Status, "status", "", "only heads that report this: unknown, active, degraded, draining or offline")
	f.BoolVarP(&watch, "watch", "w", false, "show the list again every 2 s")
	return cmd
}

func headTable(heads []api.Head) *terminal.Table {
	t := &terminal.Table{
		Columns: []string{"ID", "REGION", "MODELS", "STATUS", "ADMIN", "HEALTH", "ROUTABLE", "IN FLIGHT", "KV CACHE", "REPORTED", "ENDPOINT", "ENGINE", "FROM", "WEIGHT", "EPOCH", "LABELS"},
		Wide:    10,
	}
	for i := range heads {
		h := &heads[i]
		kv, reported := "-", "-"
		if h.Load != nil {
			if h.Load.KVCacheUsage != nil {
				kv = fmt.Sprintf("%.0f%%", 100**h.Load.KVCacheUsage)
			}
			reported = terminal.Short(time.Duration(h.Load.AgeMs*1e6)) + " ago"
		}
		inFlight := strconv.FormatInt(h.InFlight, 10)
		if h.Capacity != nil && h.Capacity.MaxInFlight > 0 {
			inFlight += fmt.Sprintf(" of %d", h.Capacity.MaxInFlight)
		}
		var labels []string
		for _, name := range slices.Sorted(maps.Keys(h.Labels)) {
			labels = append(labels, name+"="+h.Labels[name])
		}
		t.Add(h.ID, h.Region, h.ModelTypes, h.Status, h.AdminState, h.Health.State, h.Routable, inFlight, kv, reported,
			h.Endpoint, cmp.Or(h.Engine, "-"), cmp.Or(h.Labels[agent.SourceLabel], "-"), h.Weight, h.Epoch, labels)
	}
	return t
}

func newHeadsGet(r *remote) *cobra.Command {
	return addOutput(r.eachHead("get ID", "Show one head", "", func(c *call, id string) error {
		h, err := c.Head(c.Context(), id)
		if err != nil {
			return err
		}
		if c.format == "table" {
			return terminal.WriteYAML(c.w, h) // all of it fits no line
		}
		return c.show(h, headTable([]api.Head{h}))
	}))
}

func newHeadsRegister(r *remote) *cobra.Command {
	var reg api.Registration
	var weight float64
	var maxInFlight int64
	cmd := addOutput(command("register ID --endpoint URL --model-type NAME --region NAME", "Register a head by hand",
		`Register a head by hand, once. Its lease ends unless it reports its status:
servers that stay do that themselves, with the SDK or over HTTP.`, r.ask(func(c *call) error {
			reg.ID = c.args[0]
			if c.Flags().Changed("weight") {
				reg.Weight = &weight
			}
			if c.Flags().Changed("max-in-flight") {
				reg.Capacity = &api.Capacity{MaxInFlight: maxInFlight}
			}
			answer, err := c.Register(c.Context(), reg)
			if err != nil {
				return err
			}
			t := &terminal.Table{Columns: []string{"ID", "EPOCH", "LEASE ENDS IN", "REPORT EVERY"}}
			t.Add(answer.Head.ID, answer.Lease.Epoch, fmt.Sprintf("%gs", answer.Lease.TTLSeconds), fmt.Sprintf("%gs", answer.Lease.HeartbeatIntervalSeconds))
			return c.show(answer, t)
		})))
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
	f.StringToStringVar(&reg.Labels, "label", nil, "label NAME=VALUE; may be given several times")
	return cmd
}

func newHeadsDrain(r *remote) *cobra.Command {
	cmd := newHeadsState(r, "drain", "draining", "Give heads no new requests")
	cmd.Long = `Give heads no new requests: each finishes what it has. With --rehearse nothing is
changed: the last minutes of the decision log are played with and without the head,
and the time to the first token that callers would see is compared.`
	drain := cmd.RunE
	rehearsal := drainRehearsal{remote: r}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if rehearsal.asked {
			return rehearsal.run(cmd, args)
		}
		if cmd.Flags().Changed("last") {
			return cmdline.Errorf("--last: goes together with --rehearse")
		}
		return drain(cmd, args)
	}
	cmd.Flags().BoolVar(&rehearsal.asked, "rehearse", false, "change nothing, and predict what it would lead to")
	cmd.Flags().DurationVar(&rehearsal.last, "last", 10*time.Minute, "with --rehearse: time until now whose requests are played")
	return addOutput(cmd)
}

func newHeadsState(r *remote, use, state, short string) *cobra.Command {
	return r.eachHead(use+" ID...", short, "", func(c *call, id string) error {
		h, err := c.PatchHead(c.Context(), id, api.HeadPatch{AdminState: &state})
		if err != nil {
			return err
		}
		return c.say("%s is %s, with %d in flight\n", h.ID, strings.Replace(h.AdminState, "maintenance", "in maintenance", 1), h.InFlight)
	})
}

// eachHead makes a command that does something with each head that is named.
func (r *remote) eachHead(use, short, long string, act func(c *call, id string) error) *cobra.Command {
	cmd := command(use, short, long, r.ask(func(c *call) error {
		return each(c, "head", c.args, func(id string) error { return act(c, id) })
	}))
	cmd.ValidArgsFunction = r.completeHeads
	return cmd
}

// completeHeads completes ids of heads.
func (r *remote) completeHeads(cmd *cobra.Command, _ []string, _ string) (ids []string, _ cobra.ShellCompDirective) {
	err := r.connected(&call{Command: cmd}, func(c *call) error {
		heads, err := client.Collect(c.Heads(c.Context(), client.HeadQuery{}), 1000)
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
