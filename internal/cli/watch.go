package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"headway/api"
	"headway/client"
	"headway/internal/app"
	"headway/internal/doctor"
	"headway/internal/fleet"
	"headway/internal/terminal"
)

// addSubscription adds the flags that say what is watched.
func addSubscription(cmd *cobra.Command, s *api.Subscription) {
	f := cmd.Flags()
	f.StringVar(&s.Head, "head", "", "what concerns this head")
	f.StringVar(&s.ModelType, "model-type", "", "what concerns heads that serve this model type")
	f.StringVar(&s.Region, "region", "", "what concerns this region")
}

func newWatch() *cobra.Command {
	var want api.Subscription
	var asJSON bool
	var most int
	r := new(remote)
	cmd := command("watch", "Show what happens as it happens",
		`Show what happens as it happens, one line for each event, until interrupted.
When the connection breaks it is made again, which standard error says, and
nothing that happened in between is left out without saying so. If the service
is away at the beginning the exit code is 6.

  headway watch
  headway watch --types 'head.*,policy.*' --region eu-west
  headway watch --types 'decision.*' --json`, r.ask(func(c *call) error {
			show := showNotice
			if asJSON {
				show = showNoticeJSON
			}
			return c.watch(want, show, most)
		}))
	addSubscription(cmd, &want)
	cmd.Flags().StringSliceVar(&want.Types, "types", nil, "types of events, such as head.expired, head.* or decision.*; without it all but decision.*")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print each event as one line of JSON")
	cmd.Flags().IntVar(&most, "count", 0, "end after so many events; 0 is never")
	return r.addFlags(cmd)
}

// watch shows what happens, until so many events were shown; 0 is never.
func (c *call) watch(want api.Subscription, show func(io.Writer, client.Notice) error, most int) error {
	shown := 0
	for n, err := range c.follow(c.Context(), want) {
		if err == nil {
			err = show(c.w, n)
		}
		if err != nil {
			return err
		}
		if n.Event != nil {
			if shown++; shown == most {
				return nil
			}
		}
	}
	return nil
}

// follow watches, and says on standard error when the connection is lost and when
// it is there again. It fails if there was none to begin with.
func (c *call) follow(ctx context.Context, want api.Subscription) iter.Seq2[client.Notice, error] {
	return func(yield func(client.Notice, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		var away error
		met, lost := false, false
		connection := func(err error) {
			at := time.Now().Format(time.TimeOnly)
			switch {
			case err == nil && lost:
				c.note("%s  connected again\n", at)
			case err != nil && !met:
				away = fmt.Errorf("watch: %w", err)
				cancel()
			case err != nil && !lost:
				c.note("%s  the connection is lost, and made again as soon as the service answers: %v\n", at, err)
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
	return terminal.WriteJSON(w, v, "")
}

// showNotice writes one line for people.
func showNotice(w io.Writer, n client.Notice) error {
	now := time.Now().Format(time.TimeOnly)
	switch {
	case n.Snapshot != nil:
		if n.Snapshot.Part != 1 {
			return nil
		}
		var count doctor.Census
		for i := range n.Snapshot.Heads {
			count.Add(&n.Snapshot.Heads[i])
		}
		part := ""
		if n.Snapshot.Parts > 1 {
			part = fmt.Sprintf(" in the first of %d parts", n.Snapshot.Parts)
		}
		return terminal.Printf(w, "%s  %-18s  %s%s, %s; policy revision %d\n", now, "now",
			terminal.Count(count.Heads, "head"), part, count.TakingText(), n.Snapshot.PolicyRevision)
	case n.Lost != nil:
		count := "an unknown number of events is missing"
		if n.Lost.Count > 0 {
			count = terminal.Agree(n.Lost.Count, "event is missing", "events are missing")
		}
		return terminal.Printf(w, "%s  %-18s  %s (%s)\n", now, "lost", count, n.Lost.Reason)
	}
	e := n.Event
	cells := []string{e.Time.Local().Format(time.TimeOnly), fmt.Sprintf("%-18s", e.Type)}
	for _, cell := range []string{e.Head, e.Region, strings.Join(e.ModelTypes, ","), aboutEvent(e)} {
		if cell != "" {
			cells = append(cells, cell)
		}
	}
	return terminal.Printf(w, "%s\n", strings.TrimRight(strings.Join(cells, "  "), " "))
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
	if strings.HasPrefix(e.Type, "alert.") {
		return aboutAlert(e.Data)
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(e.Data, &fields) != nil {
		return ""
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if text := fieldText(fields[name]); text != "" {
			parts = append(parts, name+"="+text)
		}
	}
	return strings.Join(parts, " ")
}

// fieldText is a text as it is, and all else as compact JSON; "" if there is nothing.
func fieldText(value json.RawMessage) string {
	var text string
	if json.Unmarshal(value, &text) == nil {
		return text
	}
	var compact bytes.Buffer
	_ = json.Compact(&compact, value) // it is valid, as what it was part of is
	return compact.String()
}

// aboutAlert names an alert and says what it means. Of its labels that has those that
// matter.
func aboutAlert(data json.RawMessage) string {
	var alert app.AlertState
	if json.Unmarshal(data, &alert) != nil {
		return ""
	}
	name := alert.Alert
	if alert.Severity != "" {
		name += " (" + alert.Severity + ")"
	}
	summary, meaning := oneLine(alert.Annotations["summary"]), oneLine(alert.Annotations["description"])
	switch {
	case strings.Contains(summary, meaning):
		meaning = summary
	case !strings.Contains(meaning, summary):
		meaning = summary + ": " + meaning
	}
	if meaning == "" {
		return name
	}
	return name + ": " + meaning
}

// oneLine is text without line breaks.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// redrawEvery bounds how often a table is drawn again.
const redrawEvery = 200 * time.Millisecond

func newHeadsWatch(r *remote) *cobra.Command {
	want := api.Subscription{Types: []string{"head.*"}}
	cmd := command("watch", "Show the heads, and each change as it happens",
		`Show the heads, and each change as it happens, until interrupted. On a terminal
it is a table that changes; elsewhere a line for each change. For load, see
headway heads list --watch.`, r.ask(func(c *call) error {
			if terminal.IsTerminal(c.w) {
				return drawHeads(c, want)
			}
			return c.watch(want, showNotice, 0)
		}))
	addSubscription(cmd, &want)
	return cmd
}

// drawHeads keeps a table of the heads on a terminal.
func drawHeads(c *call, want api.Subscription) error {
	heads := map[string]api.Head{}
	changed := map[string]time.Time{}
	type notice struct {
		client.Notice
		err error
	}
	got := make(chan notice)
	ctx, cancel := context.WithCancel(c.Context())
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	reading.Go(func() {
		defer close(got)
		for n, err := range c.follow(ctx, want) {
			select {
			case got <- notice{n, err}:
			case <-ctx.Done():
				return
			}
		}
	})
	draw := time.After(0) // nil: the table is as the heads are
	for {
		select {
		case n, more := <-got:
			if !more || n.err != nil {
				return n.err
			}
			takeNotice(heads, changed, n.Notice)
			if draw == nil {
				draw = time.After(redrawEvery)
			}
		case <-draw:
			draw = nil
			if _, err := io.WriteString(c.w, terminal.Clear+headsPage(heads, changed, time.Now())); err != nil {
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
	t := &terminal.Table{Columns: []string{"ID", "REGION", "MODELS", "STATUS", "ADMIN", "HEALTH", "ROUTABLE", "CHANGED"}}
	var count doctor.Census
	for _, id := range slices.Sorted(maps.Keys(heads)) {
		h := heads[id]
		count.Add(&h)
		at := changed[id]
		t.Add(h.ID, h.Region, h.ModelTypes, h.Status, h.AdminState, h.Health.State, h.Routable, terminal.Ago(&at, now))
	}
	var page strings.Builder // takes everything
	_ = terminal.Printf(&page, "%s, %s; %s\n\n", terminal.Count(count.Heads, "head"), count.TakingText(), now.Format(time.TimeOnly))
	_ = t.Write(&page, false)
	return page.String()
}
