package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/client"
	"headway/internal/fleet"
)

// subscription are the flags that say what is watched.
type subscription struct{ api.Subscription }

func (s *subscription) addFlags(cmd *cobra.Command, types bool) {
	f := cmd.Flags()
	if types {
		f.StringSliceVar(&s.Types, "types", nil, "types of events, such as head.expired, head.* or decision.*; without it all but decision.*")
	}
	f.StringVar(&s.Head, "head", "", "what concerns this head")
	f.StringVar(&s.ModelType, "model-type", "", "what concerns heads that serve this model type")
	f.StringVar(&s.Region, "region", "", "what concerns this region")
}

func newWatch() *cobra.Command {
	var want subscription
	var asJSON bool
	var most int
	r := new(remote)
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Show what happens as it happens",
		Long: `Show what happens as it happens, one line for each event, until interrupted.
When the connection breaks it is made again, which standard error says, and
nothing that happened in between is left out without saying so. If the service
is away at the beginning the exit code is 6.

  headway watch
  headway watch --types 'head.*,policy.*' --region eu-west
  headway watch --types 'decision.*' --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.do(nil, func(c *client.Client) error {
				w := cmd.OutOrStdout()
				show := showNotice
				if asJSON {
					show = showNoticeJSON
				}
				shown := 0
				for n, err := range follow(cmd, c, want.Subscription) {
					if err != nil {
						return err
					}
					if err := show(w, n); err != nil {
						return err
					}
					if n.Event != nil {
						if shown++; shown == most {
							return nil
						}
					}
				}
				return nil
			})
		},
	}
	r.addFlags(cmd)
	want.addFlags(cmd, true)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print each event as one line of JSON")
	cmd.Flags().IntVar(&most, "count", 0, "end after so many events; 0 is never")
	return cmd
}

// follow watches, and says on standard error when the connection is lost and when
// it is there again. It fails if there was none to begin with.
func follow(cmd *cobra.Command, c *client.Client, want api.Subscription) iter.Seq2[client.Notice, error] {
	return func(yield func(client.Notice, error) bool) {
		ctx, cancel := context.WithCancel(cmd.Context())
		defer cancel()
		say := func(format string, args ...any) {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
		}
		var away error
		met, lost := false, false
		connection := func(err error) {
			switch {
			case err == nil && lost:
				say("connected again")
			case err != nil && !met:
				away = fmt.Errorf("watch: %w", err)
				cancel()
			case err != nil && !lost:
				say("the connection is lost, and made again as soon as the service answers: %v", err)
			}
			met, lost = true, err != nil
		}
		for n, err := range c.Watch(ctx, want, client.OnConnection(connection)) {
			if !yield(n, err) {
				return
			}
		}
		if away != nil {
			yield(client.Notice{}, away)
		}
	}
}

func showNoticeJSON(w io.Writer, n client.Notice) error {
	var v any
	switch {
	case n.Event != nil:
		v = n.Event
	case n.Lost != nil:
		v = map[string]any{"type": api.MessageLost, "data": n.Lost}
	default:
		return nil
	}
	return writeJSON(w, v, "")
}

// showNotice writes one line for people.
func showNotice(w io.Writer, n client.Notice) (err error) {
	switch {
	case n.Snapshot != nil:
		routable := 0
		for _, h := range n.Snapshot.Heads {
			if h.Routable {
				routable++
			}
		}
		if n.Snapshot.Part == 1 {
			part := ""
			if n.Snapshot.Parts > 1 {
				part = fmt.Sprintf(" in the first of %d parts", n.Snapshot.Parts)
			}
			_, err = fmt.Fprintf(w, "%s  %-18s  %s%s, %s; policy revision %d\n",
				time.Now().Format(time.TimeOnly), "now", counted(len(n.Snapshot.Heads), "head"), part, agree(routable, "takes requests", "take requests"), n.Snapshot.PolicyRevision)
		}
	case n.Lost != nil:
		count := "an unknown number of events is missing"
		if n.Lost.Count > 0 {
			count = agree(n.Lost.Count, "event is missing", "events are missing")
		}
		_, err = fmt.Fprintf(w, "%s  %-18s  %s (%s)\n", time.Now().Format(time.TimeOnly), "lost", count, seen(n.Lost.Reason))
	default:
		e := n.Event
		cells := []string{e.Time.Local().Format(time.TimeOnly), fmt.Sprintf("%-18s", e.Type)}
		if e.Head != "" {
			cells = append(cells, e.Head)
		}
		if e.Region != "" {
			cells = append(cells, e.Region)
		}
		if len(e.ModelTypes) > 0 {
			cells = append(cells, strings.Join(e.ModelTypes, ","))
		}
		if about := aboutEvent(e); about != "" {
			cells = append(cells, about)
		}
		_, err = fmt.Fprintln(w, seen(strings.TrimRight(strings.Join(cells, "  "), " ")))
	}
	return err
}

// aboutEvent says in a few words what an event's data has.
func aboutEvent(e *api.Event) string {
	if strings.HasPrefix(e.Type, "decision.") {
		var d api.RecentDecision
		if json.Unmarshal(e.Data, &d) != nil {
			return ""
		}
		if d.Outcome != nil {
			took := ""
			if d.Outcome.DurationMs != nil {
				took = fmt.Sprintf(" in %.0f ms", *d.Outcome.DurationMs)
			}
			return d.DecisionID + " " + d.Outcome.Result + took
		}
		return d.DecisionID + " by " + d.Strategy + ": " + strings.TrimPrefix(d.Reason, d.Strategy+": ")
	}
	var fields map[string]any
	if json.Unmarshal(e.Data, &fields) != nil {
		return ""
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if text := fmt.Sprint(fields[name]); text != "" {
			parts = append(parts, name+"="+text)
		}
	}
	return strings.Join(parts, " ")
}

// redrawEvery bounds how often a table is drawn anew.
const redrawEvery = 200 * time.Millisecond

func newHeadsWatch(r *remote) *cobra.Command {
	var want subscription
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Show the heads, and each change as it happens",
		Long: `Show the heads, and each change as it happens, until interrupted. On a terminal
it is a table that changes; elsewhere a line for each change. For load, see
headway heads list --watch.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			want.Types = []string{"head.*"}
			return r.do(nil, func(c *client.Client) error {
				if isTerminal(cmd.OutOrStdout()) {
					return drawHeads(cmd, c, want.Subscription)
				}
				for n, err := range follow(cmd, c, want.Subscription) {
					if err == nil {
						err = showNotice(cmd.OutOrStdout(), n)
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	want.addFlags(cmd, false)
	return cmd
}

// drawHeads keeps a table of the heads on a terminal.
func drawHeads(cmd *cobra.Command, c *client.Client, want api.Subscription) error {
	w := cmd.OutOrStdout()
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	heads := map[string]api.Head{}
	changed := map[string]time.Time{}
	type told struct {
		n   client.Notice
		err error
	}
	got := make(chan told)
	go func() {
		defer close(got)
		for n, err := range follow(cmd, c, want) {
			select {
			case got <- told{n, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	dirty := time.NewTimer(0)
	defer dirty.Stop()
	for {
		select {
		case t, more := <-got:
			if !more || t.err != nil {
				return t.err
			}
			takeNotice(heads, changed, t.n)
			dirty.Reset(redrawEvery)
		case <-dirty.C:
			if _, err := io.WriteString(w, "\x1b[H\x1b[2J"+headsPage(heads, changed, time.Now())); err != nil {
				return err
			}
		}
	}
}

// takeNotice brings the heads up to date.
func takeNotice(heads map[string]api.Head, changed map[string]time.Time, n client.Notice) {
	switch {
	case n.Snapshot != nil:
		if n.Snapshot.Part == 1 {
			clear(heads)
		}
		for _, h := range n.Snapshot.Heads {
			heads[h.ID] = h
		}
	case n.Event != nil:
		changed[n.Event.Head] = n.Event.Time
		if n.Event.Type == "head.removed" {
			delete(heads, n.Event.Head)
			return
		}
		h := heads[n.Event.Head]
		h.ID, h.Region, h.ModelTypes = n.Event.Head, n.Event.Region, n.Event.ModelTypes
		var state fleet.HeadState
		switch n.Event.Type {
		case "head.routable", "head.unroutable":
			h.Routable = n.Event.Type == "head.routable"
		default:
			if json.Unmarshal(n.Event.Data, &state) != nil {
				break
			}
			h.Status, h.AdminState, h.Routable, h.Epoch, h.Health.State = state.Status, state.AdminState, state.Routable, state.Epoch, state.Health
		}
		heads[h.ID] = h
	}
}

func headsPage(heads map[string]api.Head, changed map[string]time.Time, now time.Time) string {
	t := &table{columns: []string{"ID", "REGION", "MODELS", "STATUS", "ADMIN", "HEALTH", "ROUTABLE", "CHANGED"}}
	routable := 0
	for _, id := range slices.Sorted(maps.Keys(heads)) {
		h := heads[id]
		if h.Routable {
			routable++
		}
		since := "-"
		if at, known := changed[id]; known {
			since = ago(&at, now)
		}
		t.add(h.ID, h.Region, strings.Join(h.ModelTypes, ","), h.Status, h.AdminState, h.Health.State, yesNo(h.Routable), since)
	}
	var page strings.Builder
	fmt.Fprintf(&page, "%s, %s; %s\n\n", counted(len(heads), "head"), agree(routable, "takes requests", "take requests"), now.Format(time.TimeOnly))
	_ = new(output).write(&page, nil, t) // a strings.Builder takes everything
	return page.String()
}
