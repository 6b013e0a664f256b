package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/client"
	"headway/internal/agent"
	"headway/internal/cmdline"
	"headway/internal/engines"
	"headway/internal/fleet"
	"headway/internal/pki"
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
	engine, metricsURL, keyFile, caFile string
	urls                                []string
	interval, drainLimit                time.Duration
	weight                              float64
	maxInFlight                         int64
	head                                api.Registration
}

func newAgent() *cobra.Command {
	var flags agentFlags
	r := &remote{}
	cmd := command("agent --engine NAME --url URL", "Keep an unmodified engine registered as a head",
		`Keep an unmodified engine registered as a head, until interrupted. The agent asks
the engine whether it can work, what it serves and how loaded it is, registers it
when it can, and reports for it. An engine that fails three times in a row is
reported offline. When the agent is interrupted it reports the head as draining,
waits until the engine has no request, and deregisters it. With several --url it
does so for each of them.

  headway agent --engine vllm --url http://gpu-1:8000 --region eu-west
  headway agent --engine vllm --url http://127.0.0.1:8000 --url http://127.0.0.1:8001
  headway agent --engine sglang --url http://127.0.0.1:30000 --endpoint http://10.0.0.7:30000 \
    --server https://headway:8443 --ca-file ca.pem --token-file head.key

The engine's own API key, if it needs one, comes from a file
(--engine-key-file, `+envEngineKeyFile+`) or from `+envEngineKey+`.`, func(c *call) error {
			log, lines := patientLogger(c.ErrOrStderr(), func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) })
			defer lines.flush()
			all, err := flags.options(c, log)
			if err != nil {
				return err
			}
			r.Timeout = agentCall
			return lines.say(r.connected(c, func(c *call) error { return runAgents(c, all) }, client.WithLogger(log), client.WithUserAgent("headway-agent")))
		})
	f := cmd.Flags()
	f.StringVar(&flags.engine, "engine", "", "kind of engine: "+strings.Join(engines.Names(), ", "))
	f.StringSliceVar(&flags.urls, "url", nil, "URL of the engine's API as the agent reaches it: http://host:port; may be given several times")
	f.StringVar(&flags.metricsURL, "metrics-url", "", "URL of its metrics, if they have a listener of their own: http://host:port (default: that of the engine, for triton its port 8002)")
	f.StringVar(&flags.keyFile, "engine-key-file", os.Getenv(envEngineKeyFile), "file with the engine's own API key ("+envEngineKeyFile+", or the key itself in "+envEngineKey+")")
	f.StringVar(&flags.caFile, "engine-ca-file", "", "who signs the certificate of the engine, PEM (default: the authorities of the system)")
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

// runAgents runs an agent of each engine until the command is interrupted.
func runAgents(c *call, all []agent.Options) error {
	agents := make([]*agent.Agent, len(all))
	for i := range all {
		all[i].Open = func(reg api.Registration, load func() fleet.Load) (agent.Lease, error) {
			return c.NewAgent(reg, func() api.Load { return agent.Report(load()) })
		}
		var err error
		if agents[i], err = agent.New(all[i]); err != nil {
			return err
		}
	}
	errs := make([]error, len(agents))
	var running sync.WaitGroup
	for i, a := range agents {
		running.Go(func() { errs[i] = a.Run(context.WithoutCancel(c.Context()), c.Context().Done()) })
	}
	running.Wait()
	return errors.Join(errs...)
}

// options are what the flags say of each engine; wrong ones are wrong usage.
func (f *agentFlags) options(c *call, log *slog.Logger) (all []agent.Options, err error) {
	o := agent.Options{Engine: engines.Find(f.engine), Interval: f.interval, DrainLimit: f.drainLimit, Log: log, Registration: f.head}
	switch {
	case o.Engine == nil:
		return nil, cmdline.Errorf("--engine %q: want one of %s", f.engine, strings.Join(engines.Names(), ", "))
	case f.interval < 100*time.Millisecond || f.interval > time.Minute:
		return nil, cmdline.Errorf("--interval %s: want 100ms to 1m", f.interval)
	case f.drainLimit <= 0:
		return nil, cmdline.Errorf("--drain-timeout %s: want more than 0", f.drainLimit)
	}
	if o.Key, err = f.key(); err != nil {
		return nil, err
	}
	if o.RootCAs, err = pki.ReadAuthorities(f.caFile); err != nil {
		return nil, fmt.Errorf("read --engine-ca-file: %w", err)
	}
	if c.Flags().Changed("weight") {
		o.Registration.Weight = &f.weight
	}
	if c.Flags().Changed("max-in-flight") {
		o.Registration.Capacity = &api.Capacity{MaxInFlight: f.maxInFlight}
	}
	o.Registration.Labels = agent.Sourced(f.head.Labels, agent.FromAgent)
	for _, name := range []string{"id", "endpoint", "metrics-url"} {
		if c.Flags().Changed(name) && len(f.urls) > 1 {
			return nil, cmdline.Errorf("--%s: want one --url beside it, not %d", name, len(f.urls))
		}
	}
	seen := map[string]bool{}
	for _, text := range f.urls {
		if o.URL, err = fleet.Endpoint(text, false); err != nil {
			return nil, cmdline.Errorf("--url %w", err)
		}
		if seen[o.URL] {
			return nil, cmdline.Errorf("--url %s: is given twice", o.URL)
		}
		seen[o.URL] = true
		each := o
		if err := f.complete(&each); err != nil {
			return nil, err
		}
		all = append(all, each)
	}
	return all, nil
}

// complete adds what follows from the URL of an engine.
func (f *agentFlags) complete(o *agent.Options) (err error) {
	o.MetricsURL = o.URL
	if f.metricsURL != "" {
		if o.MetricsURL, err = fleet.Endpoint(f.metricsURL, false); err != nil {
			return cmdline.Errorf("--metrics-url %w", err)
		}
	} else if o.Engine.MetricsPort != "" {
		u, _ := url.Parse(o.URL) // it is canonical
		o.MetricsURL = u.Scheme + "://" + net.JoinHostPort(u.Hostname(), o.Engine.MetricsPort)
	}
	if o.Registration.Endpoint == "" {
		o.Registration.Endpoint = o.URL
	}
	return f.check(&o.Registration)
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
