package cli

import (
	"github.com/spf13/cobra"

	"headway/internal/cmdline"
	"headway/internal/demo"
)

func newDemo() *cobra.Command {
	var o demo.Options
	var ports string
	var only bool
	r := new(remote)
	cmd := command("demo", "Start a small fleet beside a running service and send it traffic",
		`Start a small fleet beside a running service and send it traffic. The heads are
real HTTP servers on this machine that answer OpenAI's API with the timing of a
simulated GPU; they register themselves, renew their leases and report the load
of the work they get. The traffic are chat completions to /v1 of the service. A
key, if it is to use one, needs the role admin or operator.

On a terminal it draws a live screen: k kills a head, x kills the one that
answers your next request in the middle of it, b makes one go wrong for 15 s,
s starts one again, d drains one, q stops. With --only-heads nothing is
registered and no traffic sent: the heads are as unmodified vLLM servers, and
what is printed names them in the configuration of a service.`, func(c *call) error {
			for _, name := range []string{"heads", "rate", "speed"} {
				if f := c.Flags().Lookup(name); f.Changed && f.Value.String() == "0" {
					return cmdline.Errorf("--%s 0: want more than 0", name)
				}
			}
			var err error
			if o.Ports, err = demo.ParsePorts(ports); err != nil {
				return cmdline.Errorf("--ports: %w", err)
			}
			if err := o.Complete(); err != nil {
				return cmdline.Errorf("%w", err)
			}
			if only {
				return demo.RunHeads(c.Context(), o, c.w)
			}
			transport, url, err := r.Open()
			if err != nil {
				return err
			}
			o.Server, o.Transport = url, transport
			return demo.Run(c.Context(), o, c.w)
		})
	f := cmd.Flags()
	f.IntVar(&o.Heads, "heads", demo.DefaultHeads, "number of heads, 1 to 1000")
	f.StringVar(&ports, "ports", "", "ports of 127.0.0.1 that the heads listen on, FIRST-LAST, one for each; without it free ones")
	f.StringSliceVar(&o.Models, "models", demo.DefaultModels(), "model types")
	f.StringSliceVar(&o.Regions, "regions", demo.DefaultRegions(), "regions")
	f.Float64Var(&o.Rate, "rate", demo.DefaultRate, "requests per second")
	f.DurationVar(&o.Duration, "duration", 0, "how long; 0: until interrupted")
	f.Float64Var(&o.Speed, "speed", demo.DefaultSpeed, "how much faster than real GPUs the heads work")
	f.Uint64Var(&o.Seed, "seed", 1, "seed of the workload")
	f.StringVar(&o.Trace, "trace", "", "workload: a Mooncake JSONL or Azure CSV trace (default: a built-in sample of the Mooncake conversation trace)")
	f.BoolVar(&o.Chaos, "chaos", false, "kill a head and start it again every 15 s")
	f.BoolVar(&o.Faults, "faults", false, "heads take faults over HTTP on this machine, and the first lines say how")
	f.BoolVar(&only, "only-heads", false, "run the heads alone, as engines that know nothing of the service, to try how it finds them")
	f.BoolVar(&o.Plain, "plain", false, "one line per second instead of the live screen")
	return r.addConnectionFlags(cmd)
}
