package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/internal/cmdline"
	"headway/internal/engine"
	"headway/internal/policy"
	"headway/internal/rehearse"
	"headway/internal/sim"
	"headway/internal/strict"
	"headway/internal/terminal"
)

// mostPlayed is how many requests of a log are played.
const mostPlayed = 500_000

// whatIf is what the flags of 'headway decisions what-if' say.
type whatIf struct {
	policies   []string
	strategies []string
	profile    string
}

// contender is a policy that a log is played under.
type contender struct {
	name   string
	policy *policy.Policy
}

// whatIfRow is a line of a comparison.
type whatIfRow struct {
	ModelType string   `json:"model_type"`
	Policy    string   `json:"policy"` // measured: what the log says itself
	Requests  int      `json:"requests"`
	Failed    int      `json:"failed"`
	MeanMs    float64  `json:"mean_ttft_ms"`
	P50Ms     float64  `json:"p50_ttft_ms"`
	P95Ms     float64  `json:"p95_ttft_ms"`
	Goodput   *float64 `json:"goodput,omitempty"`
	HitRate   *float64 `json:"hit_rate,omitempty"`
}

func newDecisionsWhatIf(s *logSource) *cobra.Command {
	var w whatIf
	cmd := addOutput(command("what-if", "Play the decision log under other policies, and compare",
		`Play the requests of the decision log again: under the policy in force, or with --dir
under the strategy that made most of its decisions, and under each --policy and
strategy. The registry, the policy and the router are those of the service; the heads
are models of engines that are fitted to the log: the time for a token of a prompt, for
one of an answer, the KV cache and how much slower a head is. MEASURED is what the log
says itself: as far as "in force" is from it, the model is from your heads.

It does not know which heads came and went meanwhile (all are there all the time), what
callers chose themselves, and requests that never got a head. Model types are played
apart, as if no head served two. Attempts after a failure count as requests.

  headway decisions what-if --last 24h --policy next.yaml
  headway decisions what-if --last 1h --strategies adaptive,least_loaded`, s.ask(func(c *call) error {
			if len(w.policies)+len(w.strategies) == 0 {
				return cmdline.Errorf("want --policy or --strategies")
			}
			return w.run(c, s)
		})))
	f := cmd.Flags()
	f.StringArrayVar(&w.policies, "policy", nil, "file with a policy; may be given several times")
	f.StringSliceVar(&w.strategies, "strategies", nil, "strategies with their usual parameters, as policies without rules")
	f.StringVar(&w.profile, "profile", "", "what the heads are, in place of what is fitted: "+strings.Join(profileNames(), ", "))
	_ = cmd.RegisterFlagCompletionFunc("profile", cobra.FixedCompletions(profileNames(), cobra.ShellCompDirectiveNoFileComp))
	return s.lastFlag(cmd, 24*time.Hour)
}

func (w *whatIf) run(c *call, s *logSource) error {
	log := rehearse.NewLog(mostPlayed)
	if w.profile != "" {
		i := slices.Index(profileNames(), w.profile)
		if i < 0 {
			return cmdline.Errorf("--profile: %s", strict.Unknown("profile", w.profile, profileNames()))
		}
		log.Profile = &engine.Profiles()[i]
	}
	contenders, err := w.contenders(c)
	if err != nil {
		return err
	}
	base, err := s.load(c, log)
	if err != nil {
		return err
	}
	pools, few := log.Pools()
	for _, name := range few {
		c.note("%s has too few requests to say anything\n", name)
	}
	if len(pools) == 0 {
		return &codedError{exitUnavailable, rehearse.ErrTooLittle}
	}
	rows, err := compare(c, log, pools, append([]contender{*base}, contenders...))
	if err != nil {
		return err
	}
	return c.show(rows, whatIfTable(rows))
}

// contenders are the policies that the flags name.
func (w *whatIf) contenders(c *call) (list []contender, err error) {
	for _, file := range w.policies {
		p, err := readPolicy(file, c.InOrStdin(), c.w)
		if err != nil {
			return nil, err
		}
		list = append(list, contender{file, p})
	}
	for _, name := range w.strategies {
		named, err := sim.Named(name)
		if err != nil {
			return nil, cmdline.Errorf("--strategies: %w", err)
		}
		list = append(list, contender{name, named.Policy})
	}
	return list, nil
}

// base is the policy that the others are compared with: that in force, or of files the
// strategy that made most decisions.
func (s *logSource) base(c *call, made map[string]int) (*contender, error) {
	if s.dir != "" {
		most := ""
		for name, n := range made {
			if n > made[most] || n == made[most] && name < most {
				most = name
			}
		}
		named, err := sim.Named(most)
		if err != nil {
			return nil, fmt.Errorf("the log has decisions of %s: %w", most, err)
		}
		return &contender{most + ", as logged", named.Policy}, nil
	}
	now, err := c.Policy(c.Context())
	if err != nil {
		return nil, err
	}
	p, faults := policy.Parse(now.Document, "json")
	if len(faults) > 0 {
		return nil, fmt.Errorf("the policy in force: %s: %s", faults[0].Pointer, faults[0].Reason)
	}
	return &contender{"in force", p}, nil
}

// load reads the log, and returns what others are compared with.
func (s *logSource) load(c *call, log *rehearse.Log) (*contender, error) {
	made, err := s.read(c, log)
	if err != nil {
		return nil, err
	}
	return s.base(c, made)
}

// read reads the log, and counts the decisions of each strategy.
func (s *logSource) read(c *call, log *rehearse.Log) (made map[string]int, err error) {
	made = map[string]int{}
	defer func() {
		if !log.Since.IsZero() {
			c.note("only the newest %d requests at most are played, from %s on\n", mostPlayed, log.Since.Format(time.RFC3339))
		}
	}()
	lines, write := io.Pipe()
	defer func() { _ = lines.Close() }() // a writer that has more ends
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	go func() { _ = write.CloseWithError(s.copy(ctx, c, write)) }()
	in := json.NewDecoder(bufio.NewReader(lines))
	for {
		var d api.LoggedDecision
		if err := in.Decode(&d); errors.Is(err, io.EOF) {
			return made, nil
		} else if err != nil {
			return nil, fmt.Errorf("read the decision log: %w", err)
		}
		made[d.Strategy]++
		log.Add(&d)
	}
}

// far is how many times what was measured the model of the heads may say before that is
// pointed out.
const far = 2.

// compare plays each pool under each policy.
func compare(c *call, log *rehearse.Log, pools []*rehearse.Pool, contenders []contender) (rows []whatIfRow, err error) {
	for _, p := range pools {
		measured, ok := p.Measured()
		if ok {
			rows = append(rows, whatIfRow{ModelType: p.Model, Policy: "measured", Requests: measured.Requests, MeanMs: measured.MeanMs, P50Ms: measured.P50Ms, P95Ms: measured.P95Ms})
		}
		for i, with := range contenders {
			r, unknown, err := log.Play(c.Context(), p, rehearse.Run{Policy: with.policy})
			if err != nil {
				return nil, err
			}
			for _, what := range unknown {
				if i == 0 {
					c.note("%s: %s\n", p.Model, what)
				}
			}
			if times := r.MeanMs / measured.MeanMs; i == 0 && ok && (times > far || times < 1/far) {
				c.note("%s: %s takes %.2g times what was measured, so that heads are far from their model: trust no small difference\n", p.Model, with.name, times)
			}
			rows = append(rows, whatIfRow{p.Model, with.name, r.Requests, r.Failed, r.MeanMs, r.P50Ms, r.P95Ms, &r.Goodput, &r.HitRate})
		}
	}
	return rows, nil
}

func whatIfTable(rows []whatIfRow) *terminal.Table {
	t := &terminal.Table{Columns: []string{"MODEL", "POLICY", "REQUESTS", "FAILED", "MEAN TTFT", "P50", "P95", "GOODPUT", "HIT RATE"}}
	percent := func(v *float64) string {
		if v == nil {
			return "-"
		}
		return fmt.Sprintf("%.1f%%", 100**v)
	}
	for i := range rows {
		r := &rows[i]
		t.Add(r.ModelType, r.Policy, r.Requests, r.Failed, milliseconds(&r.MeanMs), milliseconds(&r.P50Ms), milliseconds(&r.P95Ms), percent(r.Goodput), percent(r.HitRate))
	}
	return t
}
