package cli

import (
	"context"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/client"
	"headway/internal/agent"
	"headway/internal/cmdline"
	"headway/internal/engines"
	"headway/internal/fleet"
)

// The variables that give the engine's own API key.
const (
	envEngineKey     = "HEADWAY_AGENT_ENGINE_KEY"
	envEngineKeyFile = "HEADWAY_AGENT_ENGINE_KEY_FILE"
)

// agentCall bounds a call to the service; the agent itself makes it again.
const agentCall = 5 * time.Second

// agentFlags are the flags of headway agent.
type agentFlags struct {
	engine, url, metricsURL, keyFile string
	interval, drainLimit             time.Duration
	weight                           float64
	maxInFlight                      int64
	head                             api.Registration
}

func newAgent() *cobra.Command {
	var flags agentFlags
	r := &remote{}
	cmd := command("agent --engine NAME --url URL", "Keep an unmodified engine registered as a head",
		`Keep an unmodified engine registered as a head, until interrupted. The agent asks
the engine whether it can work, what it serves and how loaded it is, registers it
when it can, and reports for it. An engine that fails three times in a row is
reported offline. When the agent is interrupted it reports the head as draining,
waits until the engine has no request, and deregisters it.

  headway agent --engine vllm --url http://gpu-1:8000 --region eu-west

The engine's own API key, if it needs one, comes from a file
(--engine-key-file, `+envEngineKeyFile+`) or from `+envEngineKey+`.`, func(c *call) error {
			o, err := flags.options(c)
			if err != nil {
				return err
			}
			o.Log = slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
			r.Timeout = agentCall
			run := func(c *call) error {
				o.Open = func(reg api.Registration, load func() fleet.Load) (agent.Lease, error) {
					return c.NewAgent(reg, func() api.Load { return agent.Report(load()) })
				}
				a, err := agent.New(o)
				if err != nil {
					return err
				}
				return a.Run(context.WithoutCancel(c.Context()), c.Context().Done())
			}
			return r.connected(c, run, client.WithLogger(o.Log), client.WithUserAgent("headway-agent"))
		})
	f := cmd.Flags()
	f.StringVar(&flags.engine, "engine", "", "kind of engine: "+strings.Join(engines.Names(), ", "))
	f.StringVar(&flags.url, "url", "", "URL of the engine's API as the agent reaches it: http://host:port")
	f.StringVar(&flags.metricsURL, "metrics-url", "", "URL of its metrics, if they have a listener of their own: http://host:port (default: that of the engine, for triton its port 8002)")
	f.StringVar(&flags.keyFile, "engine-key-file", os.Getenv(envEngineKeyFile), "file with the engine's own API key ("+envEngineKeyFile+", or the key itself in "+envEngineKey+")")
	f.StringVar(&flags.head.ID, "id", "", "id of the head (default: host:port of its endpoint)")
	f.StringVar(&flags.head.Endpoint, "endpoint", "", "URL that requests are sent to, as callers reach it (default: --url)")
	f.StringVar(&flags.head.Region, "region", "default", "region that it is in")
	f.StringVar(&flags.head.Zone, "zone", "", "zone of the region")
	f.StringSliceVar(&flags.head.ModelTypes, "model-type", nil, "model type that it serves, instead of what the engine lists; may be given several times")
	f.StringVar(&flags.head.Version, "engine-version", "", "version of the engine")
	f.Float64Var(&flags.weight, "weight", 1, "share of requests by weight")
	f.Int64Var(&flags.maxInFlight, "max-in-flight", 0, "requests that it takes at a time (default: what the engine says, if it does)")
	f.StringToStringVar(&flags.head.Labels, "label", nil, "label NAME=VALUE; may be given several times")
	f.BoolVar(&flags.head.TakeOver, "take-over", false, "take the id over though another endpoint holds its lease")
	f.DurationVar(&flags.interval, "interval", agent.DefaultInterval, "time between two looks at the engine, 100ms to 1m")
	f.DurationVar(&flags.drainLimit, "drain-timeout", agent.DefaultDrainLimit, "how long requests may take to end when the agent is interrupted")
	_ = cmd.RegisterFlagCompletionFunc("engine", cobra.FixedCompletions(engines.Names(), cobra.ShellCompDirectiveNoFileComp))
	return r.addConnectionFlags(cmd)
}

// options are what the flags say; wrong ones are wrong usage.
func (f *agentFlags) options(c *call) (o agent.Options, err error) {
	if o.Engine = engines.Find(f.engine); o.Engine == nil {
		return o, cmdline.Errorf("--engine %q: want one of %s", f.engine, strings.Join(engines.Names(), ", "))
	}
	if f.interval < 100*time.Millisecond || f.interval > time.Minute {
		return o, cmdline.Errorf("--interval %s: want 100ms to 1m", f.interval)
	}
	if f.drainLimit <= 0 {
		return o, cmdline.Errorf("--drain-timeout %s: want more than 0", f.drainLimit)
	}
	o.Interval, o.DrainLimit, o.Registration = f.interval, f.drainLimit, f.head
	if o.URL, err = fleet.Endpoint(f.url, false); err != nil {
		return o, cmdline.Errorf("--url %w", err)
	}
	o.MetricsURL = o.URL
	if f.metricsURL != "" {
		if o.MetricsURL, err = fleet.Endpoint(f.metricsURL, false); err != nil {
			return o, cmdline.Errorf("--metrics-url %w", err)
		}
	} else if o.Engine.MetricsPort != "" {
		u, _ := url.Parse(o.URL) // it is canonical
		o.MetricsURL = u.Scheme + "://" + net.JoinHostPort(u.Hostname(), o.Engine.MetricsPort)
	}
	if o.Key, err = f.key(); err != nil {
		return o, err
	}
	if o.Registration.Endpoint == "" {
		o.Registration.Endpoint = o.URL
	}
	if c.Flags().Changed("weight") {
		o.Registration.Weight = &f.weight
	}
	if c.Flags().Changed("max-in-flight") {
		o.Registration.Capacity = &api.Capacity{MaxInFlight: f.maxInFlight}
	}
	return o, f.check(&o.Registration)
}

// check fills in the id, and refuses what the service would refuse.
func (f *agentFlags) check(r *api.Registration) error {
	if canonical, err := fleet.Endpoint(r.Endpoint, false); err != nil {
		return cmdline.Errorf("--endpoint %w", err)
	} else if r.ID == "" {
		r.ID = agent.IDOf(canonical)
	}
	spec := fleet.Spec{
		ID: r.ID, Endpoint: r.Endpoint, ModelTypes: r.ModelTypes, Region: r.Region, Zone: r.Zone,
		Version: r.Version, Engine: f.engine, Weight: f.weight, Labels: r.Labels,
	}
	if len(spec.ModelTypes) == 0 {
		spec.ModelTypes = []string{"listed-by-the-engine"}
	}
	if f.weight < fleet.MinWeight || f.weight > fleet.MaxWeight {
		return cmdline.Errorf("--weight %g: want %g to %g", f.weight, fleet.MinWeight, fleet.MaxWeight)
	}
	if r.Capacity != nil && (f.maxInFlight < 1 || f.maxInFlight > fleet.HighestMaxInFlight) {
		return cmdline.Errorf("--max-in-flight %d: want 1 to %d", f.maxInFlight, fleet.HighestMaxInFlight)
	}
	if err := fleet.ValidateSpec(&spec, false); err != nil {
		return cmdline.Errorf("the head cannot be registered so: %w", err)
	}
	return nil
}

// key is what reads the engine's own API key; nil: it needs none.
func (f *agentFlags) key() (func() (string, error), error) {
	read := agent.KeyFile(f.keyFile)
	if f.keyFile == "" {
		key := os.Getenv(envEngineKey)
		if key == "" {
			return nil, nil //nolint:nilnil // documented
		}
		read = func() (string, error) { return agent.CheckKey(key) }
	}
	_, err := read()
	return read, err
}
