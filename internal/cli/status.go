package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/client"
	"headway/internal/doctor"
	"headway/internal/terminal"
)

// summary is what status shows.
type summary struct {
	URL    string      `json:"url"`
	Ready  bool        `json:"ready"`
	Checks []api.Check `json:"checks"`
	doctor.Census
	InFlight int64          `json:"in_flight"`
	Statuses map[string]int `json:"statuses"`
	Models   headSums       `json:"models"`
	Regions  headSums       `json:"regions"`
	Revision uint64         `json:"policy_revision"`
	Strategy []api.Strategy `json:"strategies"` // those that were used
}

// headSums sum up the heads that share a name.
type headSums map[string]struct {
	Heads    int   `json:"heads"`
	Routable int   `json:"routable"`
	InFlight int64 `json:"in_flight"`
	Bound    int64 `json:"max_in_flight,omitzero"` // by the policy's pools

	// Waiting are the requests of the data plane without a place, of models; nil: not known.
	Waiting *int64 `json:"waiting,omitempty"`

	census doctor.Census
}

func newStatus() *cobra.Command {
	r := new(remote)
	var watch bool
	cmd := addOutput(command("status", "Show how the service and its fleet are",
		`Show how the service and its fleet are. Exit code 6: the service is not ready.

WAITING are requests of the data plane that have no place yet, by their model.

MEAN TTFT is what decisions report of heads: the time from when a request was
sent to the head. What clients saw of the data plane, with the queue and attempts
before, is in headway_proxy_first_token_seconds, and in each decision.`, r.ask(func(c *call) error {
			return c.repeat(watch, func() error {
				s, err := summarise(c.Context(), c.Client)
				if err != nil {
					return err
				}
				if s.URL, err = r.URL(); err != nil {
					return err
				}
				err = c.showOr(s, func() error { return s.print(c.w) })
				if err == nil && !s.Ready {
					err = &codedError{exitUnavailable, fmt.Errorf("the service at %s is not ready", s.URL)}
				}
				return err
			})
		})))
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again every 2 s")
	return r.addFlags(cmd)
}

// summarise asks the service for all that the summary says but its URL.
func summarise(ctx context.Context, c *client.Client) (*summary, error) {
	s := newSummary()
	ready, err := c.Ready(ctx)
	if err != nil {
		return nil, err
	}
	s.Ready, s.Checks = ready.Status == "ok", ready.Checks
	for h, err := range c.Heads(ctx, client.HeadQuery{PageSize: 1000}) {
		if err != nil {
			return nil, err
		}
		s.add(&h)
	}
	policy, err := c.Policy(ctx)
	if err != nil {
		return nil, err
	}
	s.Revision = policy.Revision
	if err := s.bound(policy.Document); err != nil {
		return nil, err
	}
	if values, err := doctor.Scrape(ctx, c); err == nil { // a proxy may keep /metrics from this command
		s.wait(values)
	}
	strategies, err := c.Strategies(ctx)
	for _, st := range strategies {
		if st.Results.Decisions > 0 || st.Results.Refused > 0 {
			s.Strategy = append(s.Strategy, st)
		}
	}
	return s, err
}

func newSummary() *summary {
	return &summary{Statuses: map[string]int{}, Models: headSums{}, Regions: headSums{}}
}

func (s *summary) add(h *api.Head) {
	s.Census.Add(h)
	s.InFlight += h.InFlight
	s.Statuses[h.Status]++
	s.Regions.add(h.Region, h)
	for _, m := range h.ModelTypes {
		s.Models.add(m, h)
	}
}

// bound notes what the policy's pools allow of the models.
func (s *summary) bound(document []byte) error {
	var of struct {
		Pools map[string]struct {
			Max int64 `json:"max_in_flight"`
		} `json:"pools"`
	}
	if err := json.Unmarshal(document, &of); err != nil {
		return fmt.Errorf("read the policy: %w", err)
	}
	for model, pool := range of.Pools {
		if sum, ok := s.Models[model]; ok {
			sum.Bound = pool.Max
			s.Models[model] = sum
		}
	}
	return nil
}

// wait notes how many requests wait for each model, as the metrics have it.
func (s *summary) wait(metrics map[string]float64) {
	for model, sum := range s.Models {
		if n, ok := metrics[fmt.Sprintf("headway_admission_waiting_by_model{model_type=%q}", model)]; ok {
			sum.Waiting = new(int64(n))
			s.Models[model] = sum
		}
	}
}

func (sums headSums) add(name string, h *api.Head) {
	sum := sums[name]
	sum.Heads++
	sum.census.Add(h)
	sum.InFlight += h.InFlight
	if h.Routable {
		sum.Routable++
	}
	sums[name] = sum
}

func (s *summary) print(w io.Writer) error {
	state := "ready"
	if !s.Ready {
		state = "NOT READY"
	}
	_ = terminal.Printf(w, "service  %s, %s\n", s.URL, state)
	for _, c := range s.Checks {
		if !c.OK {
			_ = terminal.Printf(w, "         %s: %s\n", c.Name, c.Detail)
		}
	}
	var statuses []string
	for _, name := range slices.Sorted(maps.Keys(s.Statuses)) {
		statuses = append(statuses, fmt.Sprintf("%d %s", s.Statuses[name], name))
	}
	of := ""
	if len(statuses) > 0 {
		of = " (" + strings.Join(statuses, ", ") + ")"
	}
	_ = terminal.Printf(w, "heads    %d, of which %s%s; %d in flight\n", s.Heads, s.TakingText(), of, s.InFlight)
	if s.Heads == 0 {
		_ = terminal.Printf(w, "         none is registered\n")
	}
	if out := s.OutOfRotation(); out != "" {
		_ = terminal.Printf(w, "         out of rotation: %s\n", out)
	}
	if why := s.NotReady(); why != "" {
		_ = terminal.Printf(w, "         not ready: %s\n", why)
	}
	if s.Held > 0 {
		_ = terminal.Printf(w, "         of the others %s\n", s.HeldText())
	}
	if s.Paused > 0 {
		_ = terminal.Printf(w, "         of the others %s\n", s.PausedText())
	}
	if s.Failing > 0 {
		_ = terminal.Printf(w, "         %s\n", s.FailingText())
	}
	_ = terminal.Printf(w, "policy   revision %d\n\n", s.Revision)
	t := &terminal.Table{Columns: []string{"", "HEADS", "TAKE REQUESTS", "IN FLIGHT", "WAITING"}}
	for kind, sums := range map[string]headSums{"model ": s.Models, "region ": s.Regions} {
		for name, sum := range sums {
			inFlight := strconv.FormatInt(sum.InFlight, 10)
			if sum.Bound > 0 {
				inFlight += fmt.Sprintf(" of at most %d", sum.Bound)
			}
			waiting := "-"
			if sum.Waiting != nil {
				waiting = strconv.FormatInt(*sum.Waiting, 10)
			}
			t.Add(kind+name, sum.Heads, sum.census.Taking(), inFlight, waiting)
		}
	}
	slices.SortFunc(t.Rows, slices.Compare)
	if len(t.Rows) > 0 {
		_ = t.Write(w, false)
		_ = terminal.Printf(w, "\n")
	}
	t = &terminal.Table{Columns: []string{"STRATEGY", "DECISIONS", "OK", "ERRORS", "CANCELLED", "EXPIRED", "REFUSED", "MEAN TTFT"}}
	for _, st := range s.Strategy {
		ttft := "-"
		if st.Results.MeanTTFTMs != nil {
			ttft = fmt.Sprintf("%.0f ms", *st.Results.MeanTTFTMs)
		}
		t.Add(st.Name, st.Results.Decisions, st.Results.OK, st.Results.Errors, st.Results.Cancelled, st.Results.Expired, st.Results.Refused, ttft)
	}
	if len(t.Rows) == 0 {
		return terminal.Printf(w, "no decisions yet\n")
	}
	return t.Write(w, false)
}
