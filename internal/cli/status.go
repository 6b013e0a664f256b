package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/client"
	"headway/internal/terminal"
)

// census counts heads by whether they take requests, and why not.
type census struct {
	Heads    int `json:"heads"`
	Routable int `json:"routable"`
	Held     int `json:"held"`    // of the routable: silent, and kept by the mass-expiry guard
	Drained  int `json:"drained"` // by an operator, for maintenance too
	Silent   int `json:"silent"`  // whose lease has ended, of the others
	Ejected  int `json:"ejected"` // of the others
	Failing  int `json:"failing"` // of the routable: requests there fail, and too few others are left to eject it
}

func (n *census) add(h *api.Head) {
	n.Heads++
	if h.Routable {
		n.Routable++
	}
	switch {
	case h.Routable && h.Health.State == "held":
		n.Held++
	case h.Routable && h.Health.State == "failing":
		n.Failing++
	case h.Routable:
	case h.AdminState != "" && h.AdminState != "enabled":
		n.Drained++
	case h.Health.State == "stale":
		n.Silent++
	case h.Health.State == "ejected":
		n.Ejected++
	}
}

// taking says how many heads take requests, without those that are only held.
func (n *census) taking() string {
	return terminal.Agree(n.Routable-n.Held, "takes requests", "take requests")
}

// outOfRotation counts the heads that others than themselves took out; "" if
// there are none.
func (n *census) outOfRotation() string {
	var parts []string
	for _, p := range []struct {
		n    int
		name string
	}{{n.Ejected, "ejected"}, {n.Silent, "silent"}, {n.Drained, "drained"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.name))
		}
	}
	return strings.Join(parts, ", ")
}

func (n *census) held() string {
	return terminal.Agree(n.Held, "is silent and gets", "are silent and get") + " requests only because of the mass-expiry guard"
}

func (n *census) failing() string {
	return terminal.Agree(n.Failing, "of them fails its requests and is", "of them fail their requests and are") + " not ejected, since too few others are left"
}

// summary is what status shows.
type summary struct {
	URL    string      `json:"url"`
	Ready  bool        `json:"ready"`
	Checks []api.Check `json:"checks"`
	census
	InFlight int64                `json:"in_flight"`
	Statuses map[string]int       `json:"statuses"`
	Models   map[string]*headSums `json:"models"`
	Regions  map[string]*headSums `json:"regions"`
	Revision uint64               `json:"policy_revision"`
	Strategy []api.Strategy       `json:"strategies"` // those that were used
}

type headSums struct {
	Heads    int   `json:"heads"`
	Routable int   `json:"routable"`
	InFlight int64 `json:"in_flight"`
}

func newStatus() *cobra.Command {
	r := new(remote)
	var watch bool
	cmd := addOutput(&cobra.Command{
		Use:   "status",
		Short: "Show how the service and its fleet are",
		Long:  "Show how the service and its fleet are. Exit code 6: the service is not ready.",
		Args:  cobra.NoArgs,
		RunE: r.ask(func(c *call) error {
			return c.repeat(watch, func() error {
				s, err := summarise(c.Context(), c.Client)
				if err != nil {
					return err
				}
				if s.URL, err = r.URL(); err != nil {
					return err
				}
				if c.structured() {
					err = c.show(s, nil)
				} else {
					err = s.print(c.w)
				}
				if err == nil && !s.Ready {
					err = &codedError{exitUnavailable, fmt.Errorf("the service at %s is not ready", s.URL)}
				}
				return err
			})
		}),
	})
	r.addFlags(cmd)
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again every 2 s")
	return cmd
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
	strategies, err := c.Strategies(ctx)
	for _, st := range strategies {
		if st.Results.Decisions > 0 {
			s.Strategy = append(s.Strategy, st)
		}
	}
	return s, err
}

func newSummary() *summary {
	return &summary{Statuses: map[string]int{}, Models: map[string]*headSums{}, Regions: map[string]*headSums{}}
}

func (s *summary) add(h *api.Head) {
	s.census.add(h)
	s.InFlight += h.InFlight
	s.Statuses[h.Status]++
	sums := []*headSums{at(s.Regions, h.Region)}
	for _, m := range h.ModelTypes {
		sums = append(sums, at(s.Models, m))
	}
	for _, sum := range sums {
		sum.Heads++
		sum.InFlight += h.InFlight
		if h.Routable {
			sum.Routable++
		}
	}
}

func at(m map[string]*headSums, name string) *headSums {
	if m[name] == nil {
		m[name] = new(headSums)
	}
	return m[name]
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
	_ = terminal.Printf(w, "heads    %d, of which %s%s; %d in flight\n", s.Heads, s.taking(), of, s.InFlight)
	if out := s.outOfRotation(); out != "" {
		_ = terminal.Printf(w, "         out of rotation: %s\n", out)
	}
	if s.Held > 0 {
		_ = terminal.Printf(w, "         of the others %s\n", s.held())
	}
	if s.Failing > 0 {
		_ = terminal.Printf(w, "         %s\n", s.failing())
	}
	_ = terminal.Printf(w, "policy   revision %d\n\n", s.Revision)
	t := &terminal.Table{Columns: []string{"", "HEADS", "TAKE REQUESTS", "IN FLIGHT"}}
	for kind, sums := range map[string]map[string]*headSums{"model ": s.Models, "region ": s.Regions} {
		for name, sum := range sums {
			t.Add(kind+name, sum.Heads, sum.Routable, sum.InFlight)
		}
	}
	slices.SortFunc(t.Rows, slices.Compare)
	if len(t.Rows) > 0 {
		_ = t.Write(w, false)
		_ = terminal.Printf(w, "\n")
	}
	t = &terminal.Table{Columns: []string{"STRATEGY", "DECISIONS", "OK", "ERRORS", "CANCELLED", "EXPIRED", "MEAN TTFT"}}
	for _, st := range s.Strategy {
		ttft := "-"
		if st.Results.MeanTTFTMs != nil {
			ttft = fmt.Sprintf("%.0f ms", *st.Results.MeanTTFTMs)
		}
		t.Add(st.Name, st.Results.Decisions, st.Results.OK, st.Results.Errors, st.Results.Cancelled, st.Results.Expired, ttft)
	}
	if len(t.Rows) == 0 {
		return terminal.Printf(w, "no decisions yet\n")
	}
	return t.Write(w, false)
}
