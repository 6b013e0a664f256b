// Package demo runs simulated inference servers beside a running Headway and
// sends the requests of a real trace through it. All of it is real HTTP: heads
// register and renew their leases, each request is a streamed chat completion that
// the service passes to a head.
package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"headway/client"
	"headway/internal/workload"
)

// Defaults of the Options. Eight heads at ten times real speed are about half
// loaded by 30 requests a second of the built-in trace.
const (
	DefaultHeads = 8
	DefaultRate  = 30.0
	DefaultSpeed = 10.0
)

// DefaultModels are the model types, assigned to heads in turn.
func DefaultModels() []string { return []string{"llama-3.1-8b", "qwen2.5-32b"} }

// DefaultRegions are the regions of the heads.
func DefaultRegions() []string { return []string{"us-east", "us-west", "eu-west"} }

// Options say what the demo runs. Server is required; the zero value of each
// other field is its default.
type Options struct {
	Server    string            // base URL of the router
	Transport http.RoundTripper // to the router, with the credential if there is one; nil: one of its own
	Heads     int               // 1 to 1000
	Models    []string          // the heads serve them in turn
	Regions   []string          // the heads of each model stand in them in turn
	Rate      float64           // mean requests per second, 0.01 to 10000
	Ports     Ports             // that the heads listen on; zero: free ones
	Duration  time.Duration     // 0: until the context ends or q is pressed
	Speed     float64           // times faster than real that the heads work, 0.01 to 1000
	Seed      uint64            // of the arrivals and of what is killed
	Plain     bool              // a line per second even on a terminal
	Trace     string            // a Mooncake JSONL or Azure CSV file, gzipped or not; empty: the sample
	Chaos     bool              // kill a head every 15 s and start it again
	Faults    bool              // heads take faults over HTTP, at /faults
	Logger    *slog.Logger
}

// Ports is a range of ports, both ends included.
type Ports struct{ First, Last int }

// ParsePorts reads FIRST-LAST, such as 9001-9008; "" is no range.
func ParsePorts(text string) (p Ports, err error) {
	if text == "" {
		return Ports{}, nil
	}
	first, last, found := strings.Cut(text, "-")
	p.First, err = strconv.Atoi(first)
	if err == nil {
		p.Last, err = strconv.Atoi(last)
	}
	if err != nil || !found || p.First < 1 || p.Last > 65535 || p.First > p.Last {
		return Ports{}, fmt.Errorf("ports %q, want FIRST-LAST such as 9001-9008, of 1 to 65535", text)
	}
	return p, nil
}

// address is where a head listens. A head keeps its port over restarts.
func (p Ports) address(head int) string {
	if p == (Ports{}) {
		return ""
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.First+head))
}

// Bounds on waiting.
const (
	routerTimeout = 30 * time.Second // for the router to be ready
	readyTimeout  = 15 * time.Second // for the heads to be registered
	endTimeout    = 5 * time.Second  // for requests in flight at the end
	routerPoll    = 500 * time.Millisecond
	chaosInterval = 15 * time.Second
	chaosDowntime = 8 * time.Second
)

// ErrNoRouter reports that the router does not answer.
var ErrNoRouter = errors.New("the service does not answer")

// Run runs the demo until ctx or Options.Duration ends or the user quits, then
// stops everything and prints a summary. On a terminal it draws a live screen,
// else one line per second.
func Run(ctx context.Context, o Options, stdout io.Writer) error {
	if err := o.run(ctx, stdout); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	return nil
}

func (o *Options) run(ctx context.Context, stdout io.Writer) error {
	if err := o.Complete(); err != nil {
		return err
	}
	trace, err := workload.ReadTraceFile(o.Trace, o.Seed)
	if err != nil {
		return err
	}
	work, err := workload.New(workload.Options{Rows: trace.Rows, Rate: o.Rate, Models: o.Models, Regions: o.Regions, Seed: o.Seed})
	if err != nil {
		return err
	}
	connections := newConnections()
	defer connections.CloseIdleConnections()
	if o.Transport != nil {
		connections = &http.Client{Transport: o.Transport}
	}
	agents, router, err := o.connect(connections)
	if err != nil {
		return err
	}
	introduce(stdout, o)
	if err := awaitRouter(ctx, router, o, stdout); err != nil {
		return err
	}
	fleet := newHeads(o, agents)
	if err := alone(ctx, router, o, fleet.units[0].id); err != nil {
		return err
	}
	if err := fleet.startAll(ctx); err != nil {
		return errors.Join(err, fleet.stopAll(ctx))
	}
	awaitHeads(ctx, fleet, o, stdout)

	d := &display{
		options: o, fleet: fleet,
		traffic: &traffic{
			router: router, service: connections, url: o.Server + "/v1/chat/completions",
			work: work, stats: newStats(time.Now()), slots: make(chan struct{}, maxConcurrent),
		},
	}
	d.play(ctx, stdout)
	d.judge(context.WithoutCancel(ctx))
	units, _ := fleet.view() // before they are stopped
	err = fleet.stopAll(ctx)
	summarize(stdout, o, d.stats.picture(time.Now()), d.sent, units, d.regret.Load())
	if errors.Is(err, client.ErrUnavailable) { // the leases end by themselves
		fmt.Fprintf(stdout, "\nThe service is away: %v.\n", err)
		return nil
	}
	return err
}

// connect makes two clients: one for the agents, and one without retries for
// the display, so that failures are visible.
func (o *Options) connect(connections *http.Client) (agents, looks *client.Client, err error) {
	settings := []client.Option{
		client.WithHTTPClient(connections), client.WithLogger(o.Logger),
		client.WithUserAgent(userAgent),
	}
	if agents, err = client.New(o.Server, settings...); err != nil {
		return nil, nil, err
	}
	looks, err = client.New(o.Server, append(settings, client.WithRetries(0))...)
	return agents, looks, err
}

// Complete sets the defaults of what is zero, and returns what cannot be run.
func (o *Options) Complete() error {
	o.Server = strings.TrimSuffix(o.Server, "/")
	o.Heads = cmp.Or(o.Heads, DefaultHeads)
	o.Rate = cmp.Or(o.Rate, DefaultRate)
	o.Speed = cmp.Or(o.Speed, DefaultSpeed)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	if len(o.Models) == 0 {
		o.Models = DefaultModels()
	}
	if len(o.Regions) == 0 {
		o.Regions = DefaultRegions()
	}
	switch {
	case o.Heads < 1 || o.Heads > 1000:
		return fmt.Errorf("heads: %d, want 1 to 1000", o.Heads)
	case !(o.Rate >= 0.01 && o.Rate <= 10_000):
		return fmt.Errorf("%v requests a second, want 0.01 to 10000", o.Rate)
	case !(o.Speed >= 0.01 && o.Speed <= 1000):
		return fmt.Errorf("a speed of %v, want 0.01 to 1000", o.Speed)
	case o.Duration < 0:
		return fmt.Errorf("a duration of %v", o.Duration)
	case o.Ports != Ports{} && o.Ports.Last-o.Ports.First+1 < o.Heads:
		return fmt.Errorf("ports %d-%d: %d, fewer than the heads: %d", o.Ports.First, o.Ports.Last, o.Ports.Last-o.Ports.First+1, o.Heads)
	case slices.Contains(o.Models, "") || slices.Contains(o.Regions, ""):
		return errors.New("a model type or region without a name")
	case o.Heads < len(o.Models):
		return fmt.Errorf("heads: %d, fewer than the model types: %d", o.Heads, len(o.Models))
	}
	return nil
}

func awaitRouter(ctx context.Context, router *client.Client, o *Options, stdout io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, routerTimeout)
	defer cancel()
	tick := time.NewTicker(routerPoll)
	defer tick.Stop()
	for first := true; ; first = false {
		r, err := router.Ready(ctx)
		if err == nil && r.Status != "unavailable" {
			return nil
		}
		if err == nil {
			err = errors.New("it is not ready")
		}
		if first {
			fmt.Fprintf(stdout, "Waiting for a service at %s (start one with: headway serve)\n", o.Server)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w at %s: %w", ErrNoRouter, o.Server, err)
		}
	}
}

// alone refuses a second demo at the same router, whose heads would have the
// same names.
func alone(ctx context.Context, router *client.Client, o *Options, id string) error {
	if head, err := router.Head(ctx, id); err == nil && head.Health.State == "fresh" {
		return fmt.Errorf("%s is registered at %s and reports: another demo runs beside this service; stop it first", id, o.Server)
	}
	return nil
}

// awaitHeads waits for the heads' first reports. Traffic starts anyway, so that
// failures are visible.
func awaitHeads(ctx context.Context, fleet *heads, o *Options, stdout io.Writer) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	n := fleet.awaitReady(ctx)
	fmt.Fprintf(stdout, "Heads that are registered and report: %d of %d.\n", n, o.Heads)
	if o.Faults {
		u := fleet.units[0]
		fmt.Fprintf(stdout, "Make %s go wrong: %s\n", u.id, breaking(u.head.URL()))
	}
	if units, _ := fleet.view(); n < o.Heads {
		for _, u := range units {
			if u.agent.LastError != nil {
				fmt.Fprintf(stdout, "  %s: %v\n", u.id, u.agent.LastError)
				break
			}
		}
	}
}

// breaking is a command that makes a head go wrong once.
func breaking(url string) string {
	return fmt.Sprintf(`curl -d '{"kind":"stall","times":1}' %s/faults`, url)
}

func (d *display) play(ctx context.Context, stdout io.Writer) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if d.options.Duration > 0 {
		defer time.AfterFunc(d.options.Duration, cancel).Stop()
	}
	patience, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()

	var running sync.WaitGroup
	running.Go(func() { d.traffic.run(ctx, patience) })
	running.Go(func() { d.watch(ctx) })
	if f, ok := stdout.(*os.File); ok && !d.options.Plain && term.IsTerminal(int(f.Fd())) {
		d.live(ctx, f)
	} else {
		d.lines(ctx, stdout)
	}
	d.sent = time.Since(d.stats.start)
	cancel()
	defer time.AfterFunc(endTimeout, giveUp).Stop()
	running.Wait()
}

// watch polls the router's heads once a second, and injects the failures of
// [Options.Chaos].
func (d *display) watch(ctx context.Context) {
	look := time.NewTicker(time.Second)
	defer look.Stop()
	chaos := time.NewTicker(chaosInterval)
	defer chaos.Stop()
	var revive <-chan time.Time
	victim := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			d.look(ctx)
			d.judge(ctx)
		case <-chaos.C:
			if d.options.Chaos {
				victim = d.fleet.kill()
				revive = time.After(chaosDowntime)
			}
		case <-revive:
			d.fleet.revive(ctx, victim)
			revive = nil
		}
	}
}
