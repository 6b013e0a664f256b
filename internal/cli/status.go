package cli

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"headway/api"
	"headway/client"
)

// isTerminal reports whether people are at the other end of a stream.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// summary is what status shows.
type summary struct {
	URL      string               `json:"url"`
	Ready    bool                 `json:"ready"`
	Checks   []api.Check          `json:"checks"`
	Heads    int                  `json:"heads"`
	Routable int                  `json:"routable"`
	Held     int                  `json:"held"`    // of the routable: silent, and kept by the mass-expiry guard
	Drained  int                  `json:"drained"` // by an operator, for maintenance too
	Silent   int                  `json:"silent"`  // whose lease has ended, of the others
	Ejected  int                  `json:"ejected"` // of the others
	Failing  int                  `json:"failing"` // of the routable: requests there fail, and too few others are left to eject it
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
	var out output
	var watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the service and its fleet are",
		Long:  "Show how the service and its fleet are. Exit code 6: the service is not ready.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.do(&out, func(c *client.Client) error {
				return repeat(cmd.Context(), cmd.OutOrStdout(), watch, func(w io.Writer) error {
					s, err := summarise(cmd, c)
					if err != nil {
						return err
					}
					if s.URL, err = r.where(); err != nil {
						return err
					}
					if out.structured() {
						err = out.write(w, s, nil)
					} else {
						err = s.print(w)
					}
					if err == nil && !s.Ready {
						err = &codedError{exitUnavailable, fmt.Errorf("the service at %s is not ready", s.URL)}
					}
					return err
				})
			})
		},
	}
	r.addFlags(cmd)
	out.addFlag(cmd)
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again every 2 s")
	return cmd
}

func summarise(cmd *cobra.Command, c *client.Client) (*summary, error) {
	ctx := cmd.Context()
	s := &summary{Statuses: map[string]int{}, Models: map[string]*headSums{}, Regions: map[string]*headSums{}}
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

func (s *summary) add(h *api.Head) {
	s.Heads++
	switch whyOut(h) {
	case drained:
		s.Drained++
	case silent:
		s.Silent++
	case ejected:
		s.Ejected++
	}
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
	if h.Routable {
		s.Routable++
	}
	switch {
	case isHeld(h):
		s.Held++
	case isFailing(h):
		s.Failing++
	}
}

// The reasons that others than the head itself have to give it no requests.
const (
	drained = "drained"
	silent  = "silent"
	ejected = "ejected"
)

// whyOut is the first such reason, "" if there is none.
func whyOut(h *api.Head) string {
	switch {
	case h.Routable:
		return ""
	case h.AdminState != "" && h.AdminState != "enabled":
		return drained
	case h.Health.State == "stale":
		return silent
	case h.Health.State == "ejected":
		return ejected
	}
	return ""
}

// outOfRotation counts heads by that reason, "" if there are none.
func outOfRotation(byEjection, bySilence, byOperator int) string {
	var parts []string
	for _, p := range []struct {
		n    int
		name string
	}{{byEjection, ejected}, {bySilence, silent}, {byOperator, drained}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.name))
		}
	}
	return strings.Join(parts, ", ")
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
	var statuses []string
	for _, name := range slices.Sorted(maps.Keys(s.Statuses)) {
		statuses = append(statuses, fmt.Sprintf("%d %s", s.Statuses[name], seen(name)))
	}
	fmt.Fprintf(w, "service  %s, %s\n", s.URL, state)
	for _, c := range s.Checks {
		if !c.OK {
			fmt.Fprintf(w, "         %s: %s\n", seen(c.Name), seen(c.Detail))
		}
	}
	of := ""
	if len(statuses) > 0 {
		of = " (" + strings.Join(statuses, ", ") + ")"
	}
	fmt.Fprintf(w, "heads    %d, of which %s%s; %d in flight\n", s.Heads, agree(s.Routable-s.Held, "takes requests", "take requests"), of, s.InFlight)
	if out := outOfRotation(s.Ejected, s.Silent, s.Drained); out != "" {
		fmt.Fprintf(w, "         out of rotation: %s\n", out)
	}
	if s.Held > 0 {
		fmt.Fprintf(w, "         of the others %s\n", heldHeads(s.Held))
	}
	if s.Failing > 0 {
		fmt.Fprintf(w, "         %s\n", failingHeads(s.Failing))
	}
	fmt.Fprintf(w, "policy   revision %d\n\n", s.Revision)
	t := &table{columns: []string{"", "HEADS", "TAKE REQUESTS", "IN FLIGHT"}}
	for _, group := range []struct {
		name string
		of   map[string]*headSums
	}{{"model", s.Models}, {"region", s.Regions}} {
		for _, name := range slices.Sorted(maps.Keys(group.of)) {
			sum := group.of[name]
			t.add(group.name+" "+name, fmt.Sprint(sum.Heads), fmt.Sprint(sum.Routable), fmt.Sprint(sum.InFlight))
		}
	}
	human := &output{format: "table"}
	if len(t.rows) > 0 {
		if err := human.write(w, nil, t); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	t = &table{columns: []string{"STRATEGY", "DECISIONS", "OK", "ERRORS", "CANCELLED", "EXPIRED", "MEAN TTFT"}}
	for _, st := range s.Strategy {
		ttft := "-"
		if st.Results.MeanTTFTMs != nil {
			ttft = fmt.Sprintf("%.0f ms", *st.Results.MeanTTFTMs)
		}
		t.add(st.Name, fmt.Sprint(st.Results.Decisions), fmt.Sprint(st.Results.OK), fmt.Sprint(st.Results.Errors),
			fmt.Sprint(st.Results.Cancelled), fmt.Sprint(st.Results.Expired), ttft)
	}
	if len(t.rows) == 0 {
		_, err := fmt.Fprintln(w, "no decisions yet")
		return err
	}
	return human.write(w, nil, t)
}
